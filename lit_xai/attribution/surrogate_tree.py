"""The callback that fits a decision tree to the network's predictions, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    column_names,
    fit_tree,
    predict,
    rules,
    to_rows,
)
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, call_network
from lit_xai.network.check import check_flag, check_integer, refusal
from lit_xai.network.rows import take
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
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
    regression, :math:`R^2`. ``surrogate/label_agreement`` is the same against the labels. The figure and ``tree.txt``
    go to the run's folder. Weights, random numbers and losses are bit for bit those of a run without it.

    M. Craven and J. Shavlik, "Extracting Tree-Structured Representations of Trained Networks", NeurIPS (1995).

    Args:
        leaves: of a tree, at most.
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
        leaves: int = 8,
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
        self.leaves = check_integer("leaves", leaves, 2)
        self.n = check_integer("n", n, 8)
        self.on_labels = check_flag("on_labels", on_labels)
        self._info = DataInfo(class_names, feature_names)

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the samples, and refuse inputs and outputs that a tree cannot have."""
        train = self.read(trainer, pl_module, "train", self.n)
        columns = to_rows(train.inputs)
        has_validation = trainer.val_dataloaders is not None and trainer.val_dataloaders != []
        held_out = self.read(trainer, pl_module, "val", self.n) if has_validation else None
        if held_out is None:
            train, held_out = _halves(train, len(columns))
        self._train, self._held_out = train, held_out
        self._check_outputs(pl_module, train)
        self._known = self._facts(trainer, train)
        self._label_tree = None
        if self.on_labels:
            if train.labels is None:
                raise refusal("on_labels", "labels in the batches", "none: set on_labels=False")
            answers = _answers(train.labels, self._are_values)
            self._label_tree = fit_tree(self._columns(train), answers, self.leaves, self.seed)

    def observe(self, trainer: Trainer, pl_module: LightningModule, when: str, step: int) -> None:
        """Fit, test and draw the tree of this moment."""
        from lit_xai.render.png import figure_to_rgb, save_png
        from lit_xai.render.tree import tree_figure

        network, held_out = self.network.of(pl_module), self._columns(self._held_out)
        taught, expected = (
            predict(network, rows.inputs, self._are_values, self.network.output)
            for rows in (self._train, self._held_out)
        )
        tree = fit_tree(self._columns(self._train), taught, self.leaves, self.seed)
        numbers = {"fidelity": agreement(tree, held_out, expected)}
        if self._held_out.labels is not None:
            labels = _answers(self._held_out.labels, self._are_values)
            numbers["label_agreement"] = agreement(tree, held_out, labels)
            if self._label_tree is not None:
                numbers["label_tree"] = agreement(self._label_tree, held_out, labels)
        log_scalars(trainer, {f"{self.name}/{name}": value for name, value in numbers.items()}, step)
        trees = [("", as_nodes(tree, self._names))]
        if self._label_tree is not None:
            trees = [
                ("the network's predictions", trees[0][1]),
                ("the labels", as_nodes(self._label_tree, self._names)),
            ]
        title = f"SurrogateTree of {self.leaves} leaves\n{when}, step {step}"
        pixels = figure_to_rgb(tree_figure(trees, title, _summary(numbers, len(held_out), self._are_values)))
        place = self.folder / when.replace(" ", "=")
        png = save_png(pixels, place / "figure.png")
        (place / "tree.txt").write_text(rules(tree, self._names), encoding="utf-8")
        log_image(trainer, self.name, pixels, step, png)

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


def _summary(numbers: dict[str, float], n: int, are_values: bool) -> str:
    """Return what the numbers say, in words."""

    def told(value: float) -> str:
        return f"R² = {value:.2f}" if are_values else f"{100 * value:.0f}%"

    parts = [f"on {n:,} held-out samples the tree agrees with the network: {told(numbers['fidelity'])}"]
    if "label_agreement" in numbers:
        parts.append(f"with the labels: {told(numbers['label_agreement'])}")
    if "label_tree" in numbers:
        parts.append(f"a tree on the labels: {told(numbers['label_tree'])}")
    return " · ".join(
        parts
    ) + "\nbars: share of the samples that end there; in brackets: how many of these agree" * bool(not are_values)
