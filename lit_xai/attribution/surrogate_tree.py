"""The callback that fits a decision tree to the network's predictions, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.evaluation import DataInfo
from lit_xai.attribution.explanation import class_labels
from lit_xai.attribution.normalization import find_normalization
from lit_xai.attribution.surrogate import (
    Array,
    Names,
    agreement,
    as_before_normalization,
    as_nodes,
    choose_leaves,
    column_names,
    constant_agreement,
    fit_tree,
    predict,
    rules,
    to_rows,
)
from lit_xai.attribution.surrogate_fidelity import SIZES, Fidelity
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, call_network
from lit_xai.network.check import check_flag, check_integer, refusal
from lit_xai.network.rows import take
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.trainer.access import rank_zero_info
from lit_xai.trainer.batches import datasets
from lit_xai.trainer.logging import log_image, log_scalars
from lit_xai.trainer.observer import Observer, Rows
from lit_xai.trainer.scheduling import Epochs

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class SurrogateTree(Observer):
    r"""Fit a decision tree to the network's predictions after every epoch, log how faithful it is, and draw it.

    The tree of scikit-learn (``max_leaf_nodes=leaves``) answers for the network in a few questions. How far to trust it
    is ``surrogate/fidelity``: the share of held-out samples for which it predicts the class that the network does; of a
    regression, :math:`R^2`. ``surrogate/constant`` is that of always giving the most frequent answer, and
    ``surrogate/label_agreement`` the tree's against the labels. The figure and ``tree.txt`` go to the run's folder, and
    warn of a tree that answers otherwise than the network for more than a tenth of the samples. Weights, random numbers
    and losses are bit for bit those of a run without it.

    M. Craven and J. Shavlik, "Extracting Tree-Structured Representations of Trained Networks", NeurIPS (1995).

    Args:
        leaves: of a tree, at most; default two for each class, at least 8 and at most 32.
        n: training samples that it is fitted to, and at most as many validation samples that it is tested on; without
            validation data a quarter of the training samples is held out.
        on_labels: whether a tree of the same size is fitted to the labels and drawn below: what can be learned without
            the network.
        every_n_epochs: an integer, or a fraction of the run; the last epoch always has its tree.
        name: of tags and of the folder.
        module: the network inside the LightningModule; default the LightningModule itself.
        batch_to_inputs: the network's inputs in a batch; default those of the module's own step.
        batch_to_target: the labels in a batch; default likewise.
        output: the logits in its output.
        class_names: of the labels; default the data module's.
        feature_names: of the inputs' values; default the data module's.
        seed: of the choice of samples, and of the tree.

    Raises:
        ValueError: an argument is out of range; or, before the first step, inputs are not one tensor of numbers, or
            outputs are not one answer for each sample.

    Example:
        >>> SurrogateTree(leaves=4, on_labels=True).name
        'surrogate'
    """

    def __init__(
        self,
        leaves: int | None = None,
        n: int = 2000,
        on_labels: bool = False,
        every_n_epochs: Epochs = 1,
        name: str = "surrogate",
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        batch_to_target: BatchToTarget = None,
        output: OutputSpec = None,
        class_names: list[str] | None = None,
        feature_names: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name, every_n_epochs, Network(module, batch_to_inputs, output), batch_to_target, seed)
        self.leaves = leaves if leaves is None else check_integer("leaves", leaves, 2)
        self.n = check_integer("n", n, 8)
        self.on_labels = check_flag("on_labels", on_labels)
        self._info = DataInfo(class_names, feature_names)
        self._caution = ""

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the samples, and refuse inputs and outputs that a tree cannot have."""
        train = self.read(trainer, pl_module, "train", self.n)
        columns = to_rows(train.inputs)
        has_validation = trainer.val_dataloaders is not None and trainer.val_dataloaders != []
        held_out = self.read(trainer, pl_module, "val", self.n) if has_validation else None
        if held_out is None:
            train, held_out = _halves(train, len(columns))
        self._train, self._held_out, self._caution = train, held_out, ""
        self._check_outputs(pl_module, train)
        self._known = self._facts(trainer, train)
        self._label_tree = None
        if self.on_labels:
            if train.labels is None:
                raise refusal("on_labels", "labels in the batches", "none: set on_labels=False")
            answers = _answers(train.labels, self._are_values)
            leaves = self.leaves or choose_leaves(answers)
            self._label_tree = fit_tree(self._columns(train), answers, leaves, self.seed)

    def observe(self, trainer: Trainer, pl_module: LightningModule, when: str, step: int) -> None:
        """Fit, test and draw the tree of this moment."""
        from lit_xai.render.png import figure_to_rgb, save_png
        from lit_xai.render.tree import tree_figure

        network, rows, held_out = self.network.of(pl_module), self._columns(self._train), self._columns(self._held_out)
        taught, expected = (
            predict(network, part.inputs, self._are_values, self.network.output)
            for part in (self._train, self._held_out)
        )
        leaves = self.leaves or choose_leaves(taught)
        trees = {size: fit_tree(rows, taught, size, self.seed) for size in {*SIZES, leaves}}
        tree, label_tree = trees[leaves], self._label_tree
        found = self._fidelity(trees, leaves, held_out, taught, expected)
        numbers = {
            "fidelity": found.value,
            "constant": None if found.constant is None else found.constant[1],
            "label_agreement": found.label_agreement,
            "label_tree": found.label_tree,
        }
        log_scalars(trainer, {f"{self.name}/{key}": one for key, one in numbers.items() if one is not None}, step)
        drawn = [("the network's predictions" if label_tree is not None else "", as_nodes(tree, self._names))]
        if label_tree is not None:
            drawn.append(("the labels", as_nodes(label_tree, self._names)))
        title = f"SurrogateTree of {leaves} leaves\n{when}, step {step}"
        pixels = figure_to_rgb(tree_figure(drawn, title, found.summary(), found.caution()))
        place = self.folder / when.replace(" ", "=")
        png = save_png(pixels, place / "figure.png")
        words = "\n".join(filter(None, (found.caution(), found.summary(), rules(tree, self._names))))
        (place / "tree.txt").write_text(words, encoding="utf-8")
        log_image(trainer, self.name, pixels, step, png)
        self._caution = found.caution()

    def finish(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Say so if the last tree is not faithful."""
        if self._caution:
            rank_zero_info(f"{self.name}, the last tree: {self._caution}")

    def _fidelity(
        self, trees: Mapping[int, Any], leaves: int, held_out: Array, taught: Array, expected: Array
    ) -> Fidelity:
        labels = None
        if self._held_out.labels is not None:
            labels = _answers(self._held_out.labels, self._are_values)
        constant = None
        if not self._are_values:
            kind, share = constant_agreement(taught, expected)
            constant = (self._names.classes[kind] if kind < len(self._names.classes) else str(kind), share)
        of_labels = (
            None if labels is None or self._label_tree is None else agreement(self._label_tree, held_out, labels)
        )
        by_leaves = {size: agreement(tree, held_out, expected) for size, tree in trees.items()}
        return Fidelity(
            by_leaves[leaves],
            len(held_out),
            self._are_values,
            constant,
            by_leaves,
            None if labels is None else agreement(trees[leaves], held_out, labels),
            of_labels,
        )

    def _check_outputs(self, pl_module: LightningModule, rows: Rows) -> None:
        network = self.network.of(pl_module)
        few = take(rows.inputs, [0, 1], SplitInputs(rows.inputs, any_dtype=True).n)
        with untouched(network), torch.no_grad():
            logits = call_network(network, few, "forward", self.network.output)
        if logits.dim() > 2:
            expected = "one answer for each sample, (N, outputs), which a tree can give"
            raise refusal("outputs", expected, f"shape {tuple(logits.shape)}")
        labels = rows.labels
        self._are_values = labels is not None and labels.is_floating_point() and labels.numel() != 0
        if labels is not None and not self._are_values and logits.dim() == 2 and logits.shape[1] > 1:
            n = SplitInputs(rows.inputs, any_dtype=True).n
            if class_labels(labels, (n, logits.shape[1])) is None:
                raise refusal("labels", "one class for each sample", f"shape {tuple(labels.shape)} of {labels.dtype}")

    def _facts(self, trainer: Trainer, rows: Rows) -> DataInfo:
        info = self._info.completed_by(getattr(trainer, "datamodule", None))
        split = SplitInputs(rows.inputs, any_dtype=True)
        values = split.values[split.explained[0]]
        self._shape = tuple(values.shape[1:])
        mean, std = info.mean, info.std
        if mean is None and std is None:
            mean, std = find_normalization(datasets(trainer), values) or (None, None)
        names = column_names(self._shape, info.feature_names)
        groups = info.feature_groups
        categories = [owner != name for owner, name in zip(groups, names, strict=True)] if groups is not None else []
        self._names = Names(names, info.class_names or [], categories)
        return DataInfo(info.class_names, info.feature_names, mean, std)

    def _columns(self, rows: Rows) -> Array:
        return as_before_normalization(to_rows(rows.inputs), self._shape, self._known.mean, self._known.std)


def _halves(rows: Rows, n: int) -> tuple[Rows, Rows]:
    """Return three quarters of the samples, and the rest."""
    cut = max(1, n - n // 4)
    first, last = (
        Rows(take(rows.inputs, places, n), None if rows.labels is None else rows.labels[places])
        for places in (list(range(cut)), list(range(cut, n)) or [n - 1])
    )
    return first, last


def _answers(labels: Tensor, are_values: bool) -> Array:
    values = labels.detach().cpu()
    if are_values:
        return values.double().squeeze(-1).numpy() if values.dim() > 1 else values.double().numpy()
    return values.reshape(len(values)).long().numpy()
