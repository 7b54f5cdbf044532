"""Train a network for the integers that it will be run in."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import distributed

from lit_xai.network.calling import BatchToInputs, Inputs, OutputSpec, find_network
from lit_xai.network.layers import one_or_more
from lit_xai.network.probing import Probe
from lit_xai.network.recording import recorded
from lit_xai.network.spec import Network
from lit_xai.quantization.fake_quantizers import FakeQuantizers, find_fake_quantizers
from lit_xai.quantization.observers import AVERAGING
from lit_xai.quantization.quantization import check_scheme, describe_quantization
from lit_xai.quantization.rehearsal import Rehearsal, refuse_averages, refuse_compiled, rehearse
from lit_xai.quantization.steps import fold_step, quantize_step, quantize_steps
from lit_xai.quantization.unfolded import UnfoldedUpdates, fold_scales
from lit_xai.structure.attaching import unwrap, wrap
from lit_xai.structure.recipe import recipe_of
from lit_xai.trainer.access import callbacks_of
from lit_xai.trainer.batches import example_inputs, read_batch
from lit_xai.trainer.logging import log_text
from lit_xai.trainer.scheduling import Epochs, resolve_epochs
from lit_xai.trainer.structural_callback import StructuralCallback, structural_callbacks
from lit_xai.trainer.structure_change import bare_optimizers, refuse_optimizers
from lit_xai.trainer.training_step import called, called_by_step, candidates, chosen, say_what_is_called


class QuantizationAwareTraining(StructuralCallback):
    """Round weights and activations to integers for the last epochs of a run, in any LightningModule.

    At the start of ``start_epoch`` BatchNorms are folded into the layers before them (optimizers go on as if these were
    frozen, :mod:`lit_xai.quantization.unfolded`), and what runtimes compute in integers is rounded from then on in
    every forward, with gradients as if it were not (`Jacob et al. 2018
    <https://arxiv.org/abs/1712.05877>`_). Modules, names, parameters and hooks stay; the network gets one child more,
    ``fake_quantizers``, with buffers alone. Every checkpoint holds a recipe of it, so that
    ``trainer.test(ckpt_path="best")``, a resumed ``fit`` and :func:`lit_xai.load_from_checkpoint` find the structure
    that was saved; ModelCheckpoint's "best" and EarlyStopping's patience start over. ``ModelExport`` writes the result
    as a file that ONNX Runtime runs in integers.

    A network whose BatchNorms are folded bears less than one with them: at a learning rate that is still high, clip
    gradients (``Trainer(gradient_clip_val=1.0)``), or they may grow beyond all bounds.

    Args:
        start_epoch: the epoch that begins with it, counted from 0: an integer, or a fraction of ``max_epochs``.
        bits: of weights, 2 to 8: of all, or by layers' names and patterns with ``*``. Runtimes compute in 8 bits all
            the same: fewer show what a network bears, they do not make it faster. With 2, four values a weight,
            training often fails (20 ± 44% accuracy of a ResNet-20 on Fashion-MNIST): give it to single layers that bear
            it, see :func:`~lit_xai.quantization.sensitivity.quantization_sensitivity`.
        cpu: ``"any"``: 8 bits in weights become 7, and results are right on every x86; ``"vnni"`` or ``"arm64"``: all
            8, for CPUs with AVX-512 VNNI, AVX-VNNI or AMX, and for ARM.
        activations: ``"unsigned"``, or ``"symmetric"``: -128..127 around 0, as GPU runtimes want it.
        ignored_layers: what stays in float: names, patterns (``"network.head*"``) or classes. Names may begin at the
            LightningModule or inside its network.
        warm_up_batches: how many training batches are looked at before anything is rounded; half an epoch at most.
        freeze_epoch: the epoch from which on the ranges of activations stay as they are; a fraction counts from 0.
        module: the network inside the LightningModule, a dotted name; default what its training step calls: itself, or
            the one direct part with weights.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several, a function or its import path.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.

    Raises:
        ValueError: in the constructor or before the first step, one sentence on the argument that is wrong.

    Example:
        >>> trainer = Trainer(callbacks=[QuantizationAwareTraining(start_epoch=0.7)], logger=False)
        >>> QuantizationAwareTraining(bits=1)
        Traceback (most recent call last):
        ...
        ValueError: bits expected an integer from 2 to 8, but got 1.
    """

    def __init__(
        self,
        start_epoch: Epochs = 0.7,
        *,
        bits: int | dict[str, int] = 8,
        cpu: str = "any",
        activations: str = "unsigned",
        ignored_layers: str | list[Any] | None = None,
        warm_up_batches: int = 16,
        freeze_epoch: Epochs = 0.9,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
    ) -> None:
        super().__init__()
        check_scheme(bits, cpu, activations)
        if isinstance(warm_up_batches, bool) or not isinstance(warm_up_batches, int) or warm_up_batches < 1:
            raise ValueError(f"warm_up_batches expected a positive integer, but got {warm_up_batches!r}.")
        for name, value in (("start_epoch", start_epoch), ("freeze_epoch", freeze_epoch)):
            resolve_epochs(value, 1, name)  # what is no epoch at all is said now
        self._start, self._freeze, self._warm_up = start_epoch, freeze_epoch, warm_up_batches
        self._given = Network(module, batch_to_inputs, output)
        self.scheme: dict[str, Any] = {
            "bits": dict(bits) if isinstance(bits, Mapping) else bits,
            "cpu": cpu,
            "activations": activations,
            "ignored_layers": one_or_more(ignored_layers),
        }
        self._forget()

    def _forget(self) -> None:
        self.start_epoch = self.freeze_epoch = 0
        self._seen = 0
        self._network = self._given
        self._inputs: Inputs | None = None
        self._watched: Callable[..., Any] | None = None
        self._scales: dict[str, torch.Tensor] = {}
        self._is_lost = False
        self._updates: UnfoldedUpdates | None = None

    # --- what Lightning calls -----------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what is wrong whatever the network."""
        if stage == "fit":
            self._forget()
            refuse_averages(trainer)
            self._plan(trainer)
        super().setup(trainer, pl_module, stage)

    def last_change(self, max_epochs: int | None) -> int:
        """Return the epoch that quantization begins with."""
        return resolve_epochs(self._start, max_epochs, "start_epoch")

    def state(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return how many batches ranges were seen on, and the scales of the folded weights."""
        return {"seen": self._seen, "scales": dict(self._scales)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self._seen = state["seen"]
        self._scales = dict(state["scales"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be seen into."""
        refuse_compiled(pl_module, self._given.of(pl_module))
        refuse_optimizers(trainer, "QuantizationAwareTraining")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fold, prepare and run a copy forwards and backwards, so that nothing foreseeable fails later."""
        if self._rounds(pl_module) is None:
            self._network = self._found(trainer, pl_module)
            self._inputs = example_inputs(trainer, pl_module, self._network)
            found = self._rehearsed(pl_module)
            rank_zero_info(f"QuantizationAwareTraining begins with epoch {self.start_epoch}: {found.said()}")
            if self.freeze_epoch < (trainer.max_epochs or 0):
                rank_zero_info(f"Ranges of activations stay as they are from epoch {self.freeze_epoch} on.")
            self._watched = partial(self._first_step, pl_module)
            wrap(pl_module, "training_step", self._watched)
        else:
            self._go_on(pl_module)
            self._update_unfolded(trainer, pl_module)
        super().on_train_start(trainer, pl_module)

    def change(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to round, or let ranges be, if it is due."""
        rounds = self._rounds(pl_module)
        if rounds is None and trainer.current_epoch >= self.start_epoch:
            rounds = self._begin(trainer, pl_module)
        if rounds is not None:
            rounds.observe_(trainer.current_epoch < self.freeze_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the batches that ranges are first seen on, and begin to round after them."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        rounds = self._rounds(pl_module)
        if rounds is None:
            return
        warm_up = min(self._warm_up, max(1, int(min(trainer.num_training_batches, 2**31)) // 2))
        if self._seen < warm_up:
            rounds.averaging_(1 / (self._seen + 1))
        elif self._seen == warm_up:
            rounds.averaging_(AVERAGING)
            rounds.round_(True)
        self._seen += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have all processes use the same ranges."""
        self._agree(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have all processes use, and save, the same ranges, and say if there are none to use."""
        self._agree(trainer, pl_module)
        rounds = self._rounds(pl_module)
        if rounds is not None and not self._is_lost and not rounds.is_calibrated():
            self._is_lost = True
            rank_zero_warn(
                "QuantizationAwareTraining saw NaN or infinity in the network: without the statistics of its batches it"
                " does not bear every learning rate that it was trained with. Take a lower one from start_epoch on, or"
                " Trainer(gradient_clip_val=1.0)."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where a run ended before anything was rounded: by max_steps, say, or EarlyStopping."""
        if self._rounds(pl_module) is None:
            rank_zero_warn(
                f"QuantizationAwareTraining never began: the run ended before epoch {self.start_epoch}, with the model"
                " in float. Lower start_epoch, or let the run go on longer (max_epochs, max_steps, EarlyStopping)."
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module with nothing of ours but its structure."""
        self._stop_watching(pl_module)
        if self._updates is not None:
            self._updates.stop()
        super().teardown(trainer, pl_module, stage)

    # --- how --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer) -> None:
        if sum(isinstance(other, QuantizationAwareTraining) for other in callbacks_of(trainer)) > 1:
            raise MisconfigurationException("Two QuantizationAwareTraining callbacks cannot share a model: keep one.")
        last = trainer.max_epochs
        self.start_epoch = resolve_epochs(self._start, last, "start_epoch")
        self.freeze_epoch = max(resolve_epochs(self._freeze, last, "freeze_epoch"), self.start_epoch + 1)
        if last is not None and 0 <= last <= self.start_epoch:
            raise MisconfigurationException(
                f"QuantizationAwareTraining: start_epoch expected an epoch of the run, which are 0 to {last - 1}, but"
                f" got {self.start_epoch}: nothing would ever be rounded."
            )
        for other in structural_callbacks(trainer):
            their_last = None if other is self else other.last_change(last)
            if their_last is not None and their_last >= self.start_epoch:
                raise MisconfigurationException(
                    "QuantizationAwareTraining: start_epoch expected an epoch after the last step of"
                    f" {type(other).__name__}, which is at epoch {their_last}, but got {self.start_epoch}: a quantized"
                    " network keeps its structure."
                )

    def _rounds(self, pl_module: LightningModule) -> FakeQuantizers | None:
        steps = quantize_steps(recipe_of(pl_module))
        return find_fake_quantizers(find_network(pl_module, steps[0]["module"])) if steps else None

    def _found(self, trainer: Trainer, pl_module: LightningModule) -> Network:
        """Return the network that the training step calls, as far as that can be known before it runs."""
        if self._given.module is not None:
            return self._given
        batch, _ = read_batch(trainer, "train", Probe(n=1), seed=0)
        name = chosen(called_by_step(pl_module, batch))
        return replace(self._given, module=name or None)

    def _first_step(
        self, pl_module: LightningModule, training_step: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Refuse, in the first batch, a step that does not call the network: nothing of it would be rounded.

        Seen is what happens inside the step: around it DDP calls the module itself.
        """
        with recorded(candidates(pl_module, self._given.module)) as calls:
            result = training_step(*args, **kwargs)
        self._stop_watching(pl_module)
        wanted, names = self._network.module or "", called(calls)
        if wanted not in names:
            raise MisconfigurationException(
                f"QuantizationAwareTraining rounds inside a call of {(wanted or type(pl_module).__name__)!r}, but"
                f" {say_what_is_called(pl_module, names, wanted)}"
            )
        return result

    def _stop_watching(self, pl_module: LightningModule) -> None:
        if self._watched is not None:
            unwrap(pl_module, "training_step", self._watched)
            self._watched = None

    def _rehearsed(self, pl_module: LightningModule) -> Rehearsal:
        assert self._inputs is not None  # read in on_train_start
        try:
            scheme = self._scheme_inside(self._network.prefix(pl_module))
            return rehearse(self._network.of(pl_module), self._inputs, scheme, self._network.output)
        except ValueError as error:
            raise MisconfigurationException(f"QuantizationAwareTraining: {error}") from None

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> FakeQuantizers:
        found = self._rehearsed(pl_module)
        network, prefix = self._network.of(pl_module), self._network.prefix(pl_module)
        # Of the first process, whose statistics are folded everywhere: others may have seen other batches.
        scales = trainer.strategy.broadcast(fold_scales(network, found.pairs))
        self._scales = {f"{prefix}{layer}.weight": scale for layer, scale in scales.items()}
        folds = [fold_step(network, found.pairs, prefix)] if found.pairs else []
        self.take_step(trainer, pl_module, *folds, quantize_step(found.plan, prefix.removesuffix(".")))
        self._update_unfolded(trainer, pl_module)
        self._seen = 0
        rank_zero_info(f"QuantizationAwareTraining, epoch {trainer.current_epoch}: it begins.")
        log_text(trainer, "compression/quantization", _described(describe_quantization(network)), trainer.global_step)
        rounds = self._rounds(pl_module)
        assert rounds is not None  # put in just now
        return rounds

    def _scheme_inside(self, prefix: str) -> dict[str, Any]:
        """Return the scheme with names as they are inside the network, wherever they began."""
        bits, ignored = self.scheme["bits"], self.scheme["ignored_layers"]
        inside = [one.removeprefix(prefix) if isinstance(one, str) else one for one in ignored]
        by_name = {name.removeprefix(prefix): n for name, n in bits.items()} if isinstance(bits, dict) else bits
        return {**self.scheme, "bits": by_name, "ignored_layers": inside}

    def _go_on(self, pl_module: LightningModule) -> None:
        """Say how a resumed run rounds, and that this is not what was asked for, if it is not."""
        facts = describe_quantization(pl_module)
        rank_zero_info(f"QuantizationAwareTraining goes on: {len(facts['integer'])} layers, {facts['weights']}.")
        (step,) = quantize_steps(recipe_of(pl_module))
        wanted = self._scheme_inside(f"{step['module']}." if step["module"] else "")
        other = [name for name, value in step["plan"]["scheme"].items() if wanted[name] != value]
        for name in other:
            rank_zero_warn(
                f"QuantizationAwareTraining goes on with {name}={step['plan']['scheme'][name]!r}, as the run began,"
                f" rather than {wanted[name]!r}: to change it, start from float weights, a checkpoint of before (such"
                " as a '-dense' or '-pruned' one)."
            )

    def _update_unfolded(self, trainer: Trainer, pl_module: LightningModule) -> None:
        named = dict(pl_module.named_parameters())
        weights = [(named[name], scale) for name, scale in self._scales.items() if name in named]
        self._updates = UnfoldedUpdates(weights, bare_optimizers(trainer))

    @torch.no_grad()
    def _agree(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rounds = self._rounds(pl_module) if trainer.training or trainer.validating else None
        if rounds is None or not (distributed.is_available() and distributed.is_initialized()) or not self._seen:
            return
        ranges = rounds.ranges()
        mean = trainer.strategy.reduce(torch.stack(ranges), reduce_op="mean")
        for value, agreed in zip(ranges, mean, strict=True):
            value.copy_(agreed)
        rounds.renew_scales_()


def _described(facts: Mapping[str, Any]) -> str:
    from lit_xai.render.summary import markdown_table

    rows = [[name, "integer", ""] for name in facts["integer"]]
    rows += [[name, "float", why] for name, why in facts["float"].items()]
    return f"Weights: {facts['weights']}. Activations: {facts['activations']}.\n\n" + markdown_table(
        ["layer", "computes in", "why"], rows
    )
