"""Quantization-aware training: a run whose last epochs train the network for integer inference."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, NotRequired

import torch
from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import distributed

from lit_xai.network.calling import BatchToInputs, Inputs, OutputSpec, find_network
from lit_xai.network.check import check_integer
from lit_xai.network.layers import one_or_more
from lit_xai.network.reading import UnwatchableError
from lit_xai.network.recording import recorded
from lit_xai.network.spec import Network
from lit_xai.quantization.fake_quantizers import NAME, FakeQuantizers, find_fake_quantizers
from lit_xai.quantization.observers import AVERAGING
from lit_xai.quantization.quantization import check_scheme, describe_quantization
from lit_xai.quantization.rehearsal import Rehearsal, refuse_averages, refuse_compiled, rehearse
from lit_xai.quantization.steps import quantize_step, quantize_steps
from lit_xai.quantization.unfolded import UnfoldedUpdates
from lit_xai.structure.attaching import unwrap, wrap
from lit_xai.structure.recipe import recipe_of
from lit_xai.structure.schema import NonNegative, TensorOf
from lit_xai.trainer.access import callbacks_of
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.batches import example_inputs
from lit_xai.trainer.logging import log_text
from lit_xai.trainer.progress import length_ahead, run_length
from lit_xai.trainer.scheduling import Epochs, Point, RunLength, Steps, Times, one_of
from lit_xai.trainer.stand_in import STEPS
from lit_xai.trainer.structural_callback import StructuralCallback, structural_callbacks
from lit_xai.trainer.structure_change import bare_optimizers
from lit_xai.trainer.training_step import called, candidates, say_what_is_called
from lit_xai.trainer.watching import resolved, watch

LOW = 0.1
"""The share of its peak up to which a learning rate is low enough to train with fixed statistics of BatchNorms.

At a constant 0.1 (SGD, ResNet-8 of width 8 on digits), 5 of 8 runs ended at chance once these were fixed, and none with
those of its batches."""

CALIBRATION_BATCHES = 16
"""The default number of batches that ranges are observed on before anything is quantized."""


class QuantizationAwareTraining(StructuralCallback):
    """Fake-quantize weights and activations for the last epochs of a run, in any LightningModule.

    From ``start_epoch`` or ``start_step`` on, the tensors that runtimes compute in integers are quantized and
    dequantized in every forward, with straight-through gradients (`Jacob et al. 2018
    <https://arxiv.org/abs/1712.05877>`_). Modules, names, parameters and hooks stay; the network gets one more
    child, ``fake_quantizers``, with only buffers. Every checkpoint holds a recipe of the change, so that
    ``trainer.test(ckpt_path="best")``, a resumed ``fit`` and :func:`lit_xai.load_from_checkpoint` restore the
    structure that was saved; ModelCheckpoint's "best" and EarlyStopping's patience start over. ``ModelExport``
    writes the result as a file that ONNX Runtime executes in integers.

    BatchNorms go on normalizing, so that learning rates that work in float work here too. Those that follow a layer
    directly count as part of it: what is quantized is what a runtime computes once they are folded into the layer,
    which the export does on a copy. From ``freeze_epoch`` on they normalize by their running statistics, as the file
    will, in epochs that begin at a tenth of the highest learning rate or less: at a higher one, training without the
    statistics of its batches may diverge.

    Args:
        start_epoch: the first epoch with quantization, counted from 0: an integer, or a fraction of the run. Where the
            run has a single epoch, or ends by ``max_steps``, fractions count its optimizer steps.
        bits: of weights, 2 to 8: for all layers, or by names and patterns with ``*``. Runtimes compute in 8 bits in any
            case: fewer bits test what a network tolerates, and do not make it faster. With 2 bits, four values per
            weight, training often fails (20 ± 44% accuracy of a ResNet-20 on Fashion-MNIST): use them only for layers
            that tolerate it, see :func:`~lit_xai.quantization.sensitivity.quantization_sensitivity`.
        cpu: ``"any"``: 8 bits in weights become 7, with correct results on every x86; ``"vnni"`` or ``"arm64"``: all 8,
            for CPUs with AVX-512 VNNI, AVX-VNNI or AMX, and for ARM.
        activations: ``"unsigned"``; ``"symmetric"``: -128..127 around 0, as GPU runtimes need it; or ``"float"``:
            weights alone become integers, for a smaller file.
        ignored_layers: layers that stay in float: names, patterns (``"network.head*"``) or classes. Names may begin at
            the LightningModule or inside its network.
        calibration_batches: how many training batches ranges are observed on before anything is quantized; at most half
            an epoch.
        freeze_epoch: the epoch from which on the ranges of activations, and at a low learning rate the statistics of
            BatchNorms that will be folded, stay fixed; a fraction counts from epoch 0.
        start_step: the first step of the first optimizer with quantization, instead of an epoch: an integer, or a
            fraction of the run's.
        freeze_step: likewise, the step from which on ranges and statistics stay fixed.
        module: the network inside the LightningModule, a dotted name; default what its training step calls: itself, or
            the one direct part with weights.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several, a function or its import path.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        warm_up_batches: deprecated, the name of ``calibration_batches`` in 0.1.

    Raises:
        ValueError: an argument is wrong; in the constructor or before the first step.

    Example:
        >>> trainer = Trainer(callbacks=[QuantizationAwareTraining(start_epoch=0.7)], logger=False)
        >>> QuantizationAwareTraining(bits=1)
        Traceback (most recent call last):
        ...
        ValueError: bits expected an integer from 2 to 8, but got 1.
    """

    remedy = (
        "Start later (start_epoch), lower the learning rate from there on, clip gradients, such as with"
        " Trainer(gradient_clip_val=1.0), or use more bits."
    )

    instead_of_sharding = "quantize a consolidated checkpoint afterwards, with `lit-xai export`"

    state_entries = {
        "seen": NonNegative,
        "peaks": NotRequired[list[Annotated[float, Ge(0)]]],
        "scales": dict[str, Annotated[torch.Tensor, TensorOf(finite=True)]],
        "names": NotRequired[list[list[list[str]]]],  # of 0.1
    }

    def __init__(
        self,
        start_epoch: Epochs = 0.7,
        *,
        bits: int | dict[str, int] = 8,
        cpu: str = "any",
        activations: str = "unsigned",
        ignored_layers: str | list[Any] | None = None,
        calibration_batches: int = CALIBRATION_BATCHES,
        freeze_epoch: Epochs = 0.9,
        start_step: Steps | None = None,
        freeze_step: Steps | None = None,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
        warm_up_batches: int | None = None,
    ) -> None:
        super().__init__()
        check_scheme(bits, cpu, activations)
        if warm_up_batches is not None:
            calibration_batches = _renamed_argument(warm_up_batches, calibration_batches)
        self.calibration_batches = check_integer("calibration_batches", calibration_batches)
        self._when = Times.given(
            (0.7, 0.9),
            {"start_epoch": start_epoch, "freeze_epoch": freeze_epoch},
            {"start_step": start_step, "freeze_step": freeze_step},
        )
        self.given = Network(module, batch_to_inputs, output)
        self.scheme: dict[str, Any] = {
            "bits": dict(bits) if isinstance(bits, Mapping) else bits,
            "cpu": cpu,
            "activations": activations,
            "ignored_layers": one_or_more(ignored_layers),
        }
        self._module: LightningModule | None = None
        self._reset()

    def _reset(self) -> None:
        self.unit = "epoch"
        self.start = self.freeze = Point(0)
        self._is_fixed: tuple[bool, bool] | None = None
        self._run = RunLength()
        self._seen = 0
        self._peaks: list[float] = []
        self._network = self.given
        self._inputs: Inputs | None = None
        self._step_check: Callable[..., Any] | None = None
        self._is_whole_step = False
        self._scales: dict[str, torch.Tensor] = {}
        self._has_warned = False
        self._updates: UnfoldedUpdates | None = None

    # --- what Lightning calls -----------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse settings that are wrong for any network."""
        if stage == "fit":
            self._reset()
            # WeightAveraging copies the module in its own setup and pairs parameters by position: refused before a fit
            # builds on it.
            refuse_averages(trainer)
            if sum(isinstance(other, QuantizationAwareTraining) for other in callbacks_of(trainer)) > 1:
                raise MisconfigurationException(
                    "Two QuantizationAwareTraining callbacks cannot share a model: keep one."
                )
            if (run := length_ahead(trainer)) is not None and self._when.is_settled(run):
                self._plan(trainer, run)  # refuses what can be refused before the data are loaded
        super().setup(trainer, pl_module, stage)
        self._wrap_steps(pl_module)

    def last_change(self, run: RunLength) -> Point | None:
        """Return the point at which quantization begins, ``None`` if that is not known yet."""
        return self._when.point("start", run) if self._when.is_settled(run) else None

    def state(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the number of batches seen, peaks of learning rates, and scales of weights that 0.1 folded."""
        return {"seen": self._seen, "peaks": list(self._peaks), "scales": dict(self._scales)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self._seen = state["seen"]
        self._peaks = list(state.get("peaks", ()))
        self._scales = dict(state["scales"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse compiled networks, whose functions cannot be intercepted."""
        # Not in setup: a module may compile itself in configure_model, which comes after that hook.
        refuse_compiled(pl_module, self.given.of(pl_module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare a copy and run it forward and backward, so that foreseeable errors come before the first epoch."""
        super().on_train_start(trainer, pl_module)
        self._plan(trainer, run_length(trainer))
        fake_quantizers = self._fake_quantizers(pl_module)
        if fake_quantizers is None:
            # No loader exists before on_train_start, so this is the first hook that can read a batch.
            rehearsal = agreed(trainer, "QuantizationAwareTraining", lambda: self._first_rehearsal(trainer, pl_module))
            rank_zero_info(f"QuantizationAwareTraining begins with {self.start}: {rehearsal.summary()}")
            if self.freeze.count < (self._run.of(self.unit) or 0):
                rank_zero_info(
                    f"Ranges of activations stay fixed from {self.freeze} on, and so do statistics of"
                    " BatchNorms if the learning rate is a tenth of its peak or less by then."
                )
            # Whether the step calls the network shows only when it runs: the first real step is observed.
            if not self._is_whole_step:
                self._step_check = partial(self._check_first_step, pl_module)
                wrap(pl_module, "training_step", self._step_check)
        else:
            # A resumed run: the recipe in the checkpoint has inserted the fake-quantizers already. What is no part of a
            # checkpoint is applied again.
            self._is_whole_step = self._calls_parts(trainer, pl_module, "train")
            self._report_resumed(pl_module)
            self._update_unfolded(trainer, pl_module)
            self._freeze_if_due(trainer, pl_module, fake_quantizers)

    def change(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to quantize, or fix ranges and statistics, if that is due."""
        fake_quantizers = self._fake_quantizers(pl_module)
        if fake_quantizers is None and self.now(trainer).count >= self.start.count:
            fake_quantizers = self._begin(trainer, pl_module)
        if fake_quantizers is not None:
            self._freeze_if_due(trainer, pl_module, fake_quantizers)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the calibration batches, and begin to quantize after the last of them."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._peaks = [peak for _, peak in _learning_rates(trainer, self._peaks)]
        fake_quantizers = self._fake_quantizers(pl_module)
        if fake_quantizers is None:
            return
        # A network may train in eval mode, as those of transformers' from_pretrained() do: its ranges move as well.
        fake_quantizers.training = True
        calibration = self._calibration(trainer)
        if self._seen < calibration:
            # A weight of 1/n for the n-th batch makes the range the plain mean of the batches' ranges.
            fake_quantizers.set_averaging_constant_(1 / (self._seen + 1))
        elif self._seen == calibration:
            fake_quantizers.set_averaging_constant_(AVERAGING)
            fake_quantizers.enable_fake_quant_(True)
            if unobserved := fake_quantizers.unobserved():
                rank_zero_info(
                    f"QuantizationAwareTraining: what the training step never computes stays in float, as its range is"
                    f" unknown: {', '.join(unobserved[:6])}{' and others' * (len(unobserved) > 6)}."
                )
        self._seen += 1

    def _calibration(self, trainer: Trainer) -> int:
        """Return for how many batches ranges are observed: half an epoch, or half of the steps to come, at most.

        A run with a single step to come quantizes in that, by the ranges of its batch.
        """
        # So that the first epoch of quantization does quantize. Infinity for data without a length.
        most = trainer.num_training_batches
        if self.unit == "step" and self._run.steps is not None:
            most = min(most, self._run.steps - self.start.count)
        least = 0 if most == 1 and self.start.count + 1 == self._run.of(self.unit) else 1
        return min(self.calibration_batches, max(least, int(min(most, 2**31)) // 2))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average ranges over processes, so that all of them use the same."""
        if trainer.state.fn == "validate":
            self._is_whole_step = self._calls_parts(trainer, pl_module, "val")
        self._average_ranges(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Quantize in the steps of ``trainer.test`` as in those of ``fit``."""
        self._is_whole_step = self._calls_parts(trainer, pl_module, "test")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average ranges over processes, before a checkpoint is saved, and warn if they are not finite."""
        self._average_ranges(trainer, pl_module)
        fake_quantizers = self._fake_quantizers(pl_module)
        if fake_quantizers is not None and not self._has_warned and not fake_quantizers.is_calibrated():
            self._has_warned = True
            rank_zero_warn(
                "QuantizationAwareTraining observed NaN or infinity in the network. Use a lower learning rate from"
                f" {self.start} on, or Trainer(gradient_clip_val=1.0)."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the run ended before anything was quantized, by max_steps or EarlyStopping."""
        fake_quantizers = self._fake_quantizers(pl_module)
        if fake_quantizers is not None and self._seen and not fake_quantizers.is_enabled():
            fake_quantizers.enable_fake_quant_(True)
            rank_zero_warn(
                "QuantizationAwareTraining: the run ended while ranges were still observed, so that the network is"
                " quantized, but was never trained for it. Lower"
                f" {self._when.argument('start')} or calibration_batches, or let the run take longer."
            )
        if fake_quantizers is None:
            rank_zero_warn(
                f"QuantizationAwareTraining never began: the run ended before {self.start}, with the model"
                f" in float. Lower {self._when.argument('start')}, or let the run take longer (max_epochs, max_steps,"
                " EarlyStopping)."
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove everything from the module but its new structure."""
        self._remove_step_check(pl_module)
        self._unwrap_steps()
        if self._updates is not None:
            self._updates.stop()
        fake_quantizers = self._fake_quantizers(pl_module)
        if fake_quantizers is not None:
            fake_quantizers.freeze_norms_(False)
        super().teardown(trainer, pl_module, stage)

    # --- how ----------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, run: RunLength) -> None:
        self._run, self.start, name = run, self._when.point("start", run), self._when.argument("start")
        self.unit = self.start.unit
        freeze = self._when.point("freeze", run).count
        self.freeze = Point(max(freeze, self.start.count + 1), self.unit)
        total, one = run.of(self.unit), one_of(self.unit)
        if total is not None and total <= self.start.count:
            raise MisconfigurationException(
                f"QuantizationAwareTraining: {name} expected {one} of the run, which are 0 to {total - 1}, but got"
                f" {self.start.count}: nothing would ever be quantized."
            )
        for other in structural_callbacks(trainer):
            last = None if other is self else other.last_change(run)
            if last is not None:
                self._refuse_later(type(other).__name__, Point(last) if isinstance(last, int) else last, run)

    def _refuse_later(self, other: str, last: Point, run: RunLength) -> None:
        """Refuse to begin before the last step of another callback."""
        is_before, name = run.is_before(last, self.start), self._when.argument("start")
        if is_before:
            return
        if is_before is None:
            raise MisconfigurationException(
                f"QuantizationAwareTraining: {name} expected {one_of(last.unit)}, as the last step of {other} is at"
                f" {last} and it is not known which {self.unit} that is, but got {self.start}: give both in epochs, or"
                " in steps."
            )
        raise MisconfigurationException(
            f"QuantizationAwareTraining: {name} expected {one_of(self.unit)} after the"
            f" last step of {other}, which is at {last}, but got {self.start.count}: a quantized network keeps its"
            " structure."
        )

    def _fake_quantizers(self, pl_module: LightningModule) -> FakeQuantizers | None:
        steps = quantize_steps(recipe_of(pl_module))
        return find_fake_quantizers(find_network(pl_module, steps[0]["module"])) if steps else None

    def _called_network(self, trainer: Trainer, pl_module: LightningModule) -> Network:
        """Return the network as the training step calls it: only inside of that call tensors are quantized."""
        self._is_whole_step = self._calls_parts(trainer, pl_module, "train")
        return resolved(trainer, pl_module, "train", self.given, as_called=True)

    def _calls_parts(self, trainer: Trainer, pl_module: LightningModule, loader: str) -> bool:
        """Return whether a step calls several parts of the module rather than one network."""
        if self.given.module is not None:
            return False
        try:
            return watch(trainer, pl_module, loader).called.step is not None
        except UnwatchableError:
            return False

    def _around_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Quantize within a step whose parts make up the network: none of them is called by the others."""
        return self._quantized(step, *args, **kwargs) if self._is_whole_step else step(*args, **kwargs)

    def _quantized(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a step of a module that is the network itself, with its tensors quantized.

        ``predict_step`` always: no step of a Trainer that only predicts shows whether it calls the module or its parts.
        Where it calls the module, that counts as part of the step.
        """
        module = self._module
        fake_quantizers = None if module is None else module._modules.get(NAME)
        if module is None or not isinstance(fake_quantizers, FakeQuantizers):
            return step(*args, **kwargs)
        fake_quantizers.enter(module, args)
        result = None
        try:
            result = step(*args, **kwargs)
        finally:
            left = fake_quantizers.leave(module, args, result)
        return result if left is None else left

    def _wrap_steps(self, pl_module: LightningModule) -> None:
        self._unwrap_steps()
        self._module = pl_module
        for name in STEPS.values():
            wrap(pl_module, name, self._around_step)
        wrap(pl_module, "predict_step", self._quantized)

    def _unwrap_steps(self) -> None:
        if self._module is not None:
            for name in STEPS.values():
                unwrap(self._module, name, self._around_step)
            unwrap(self._module, "predict_step", self._quantized)
        self._module = None

    def _check_first_step(
        self, pl_module: LightningModule, training_step: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the first training step, and refuse it if it does not call the network: nothing would be quantized.

        Calls are recorded inside the step, because DDP calls the LightningModule itself around it.
        """
        with recorded(candidates(pl_module, self._network.module)) as calls:
            result = training_step(*args, **kwargs)
        self._remove_step_check(pl_module)
        wanted, names = self._network.module or "", called(calls)
        if wanted not in names:
            raise MisconfigurationException(
                f"QuantizationAwareTraining quantizes inside a call of {(wanted or type(pl_module).__name__)!r}, but"
                f" {say_what_is_called(pl_module, names, wanted)}"
            )
        return result

    def _remove_step_check(self, pl_module: LightningModule) -> None:
        if self._step_check is not None:
            unwrap(pl_module, "training_step", self._step_check)
            self._step_check = None

    def _first_rehearsal(self, trainer: Trainer, pl_module: LightningModule) -> Rehearsal:
        self._network = self._called_network(trainer, pl_module)
        self._inputs = example_inputs(trainer, pl_module, self._network)
        return self._rehearse(pl_module)

    def _rehearse(self, pl_module: LightningModule) -> Rehearsal:
        assert self._inputs is not None  # read in on_train_start
        try:
            scheme = self._scheme_inside(self._network.prefix(pl_module))
            return rehearse(self._network.of(pl_module), self._inputs, scheme, self._network.output)
        except ValueError as error:
            raise MisconfigurationException(f"QuantizationAwareTraining: {error}") from None

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> FakeQuantizers:
        rehearsal = agreed(trainer, "QuantizationAwareTraining", lambda: self._rehearse(pl_module))
        # Planned on a copy, so that a network that cannot be quantized is left whole.
        network, prefix = self._network.of(pl_module), self._network.prefix(pl_module)
        self.take_step(trainer, pl_module, quantize_step(rehearsal.plan, prefix.removesuffix(".")))
        self._seen = 0
        rank_zero_info(f"QuantizationAwareTraining, {self.now(trainer)}: quantization begins.")
        log_text(trainer, "compression/quantization", _layer_table(describe_quantization(network)), trainer.global_step)
        fake_quantizers = self._fake_quantizers(pl_module)
        assert fake_quantizers is not None  # take_step inserted them
        return fake_quantizers

    def _scheme_inside(self, prefix: str) -> dict[str, Any]:
        """Return the scheme with names relative to the network; they may begin at the LightningModule."""
        bits, ignored = self.scheme["bits"], self.scheme["ignored_layers"]
        ignored = [layer.removeprefix(prefix) if isinstance(layer, str) else layer for layer in ignored]
        by_name = {name.removeprefix(prefix): n for name, n in bits.items()} if isinstance(bits, dict) else bits
        return {**self.scheme, "bits": by_name, "ignored_layers": ignored}

    def _report_resumed(self, pl_module: LightningModule) -> None:
        """Log how a resumed run quantizes, and warn if that differs from the arguments."""
        facts = describe_quantization(pl_module)
        rank_zero_info(f"QuantizationAwareTraining continues: {len(facts['integer'])} layers, {facts['weights']}.")
        (step,) = quantize_steps(recipe_of(pl_module))
        wanted = self._scheme_inside(f"{step['module']}." if step["module"] else "")
        for name, value in step["plan"]["scheme"].items():
            if wanted[name] != value:
                rank_zero_warn(
                    f"QuantizationAwareTraining continues with {name}={value!r}, as the run began, rather than"
                    f" {wanted[name]!r}: to change it, start from an earlier checkpoint with float weights (such as a"
                    " '-dense' or '-pruned' one)."
                )

    def _freeze_if_due(self, trainer: Trainer, pl_module: LightningModule, fake_quantizers: FakeQuantizers) -> None:
        """Fix or release the ranges of activations and the statistics of BatchNorms, as this epoch or step requires."""
        fixed = self.now(trainer).count >= self.freeze.count
        frozen = fixed and all(now <= 1.01 * LOW * peak for now, peak in _learning_rates(trainer, self._peaks))
        if (fixed, frozen) == self._is_fixed:  # as in most steps
            return
        was_fixed = self._is_fixed is not None and self._is_fixed[0]
        self._is_fixed = fixed, frozen
        if frozen and not fake_quantizers.norms_frozen:
            # Each process has those of its own batches, unless DDP broadcasts buffers.
            (step,) = quantize_steps(recipe_of(pl_module))
            _average_(trainer, fake_quantizers.norm_statistics(find_network(pl_module, step["module"])))
        elif fixed and not was_fixed and fake_quantizers.norms and not frozen:
            rank_zero_info(
                f"QuantizationAwareTraining, {self.freeze}: statistics of BatchNorms go on moving, as the"
                f" learning rate is still above {LOW:g} of its peak."
            )
        fake_quantizers.enable_observer_(not fixed)
        fake_quantizers.freeze_norms_(frozen)

    def _update_unfolded(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have optimizers continue a run of 0.1, which folded BatchNorms when it began to quantize."""
        named = dict(pl_module.named_parameters())
        weights = [(named[name], scale) for name, scale in self._scales.items() if name in named]
        self._updates = UnfoldedUpdates(weights, bare_optimizers(trainer))

    def _average_ranges(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fake_quantizers = self._fake_quantizers(pl_module) if trainer.training or trainer.validating else None
        if fake_quantizers is not None and self._seen and _average_(trainer, fake_quantizers.ranges()):
            # Scales were computed from each process's own ranges.
            fake_quantizers.recompute_scales_()


def _learning_rates(trainer: Trainer, peaks: list[float]) -> list[tuple[float, float]]:
    """Return the learning rate of each parameter group, and its peak: the highest so far, or that its schedule names.

    Args:
        trainer: its optimizers are read.
        peaks: the highest so far of each group.
    """
    groups = [group for optimizer in bare_optimizers(trainer) for group in optimizer.param_groups]
    rates = []
    for place, group in enumerate(groups):
        known = [float(group[key]) for key in ("lr", "initial_lr", "max_lr") if key in group]
        rates.append((known[0], max(known + peaks[place : place + 1])) if known else (0.0, 0.0))
    return rates


@torch.no_grad()
def _average_(trainer: Trainer, tensors: list[torch.Tensor]) -> bool:
    """Set tensors to their mean over all processes; return whether there are several."""
    if not tensors or not (distributed.is_available() and distributed.is_initialized()):
        return False
    # One collective call for all of them rather than one for each.
    mean = trainer.strategy.reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduce_op="mean")
    for tensor, part in zip(tensors, mean.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
    return True


def _layer_table(facts: Mapping[str, Any]) -> str:
    from lit_xai.render.summary import markdown_table

    rows = [[name, "integer", ""] for name in facts["integer"]]
    rows += [[name, "float", "stored as integers"] for name in facts["tables"]]
    rows += [[name, "float", why] for name, why in facts["float"].items()]
    return f"Weights: {facts['weights']}. Activations: {facts['activations']}.\n\n" + markdown_table(
        ["layer", "computes in", "why"], rows
    )


def _renamed_argument(warm_up_batches: int, calibration_batches: int) -> int:
    """Return the value of ``warm_up_batches``, given under its name of 0.1."""
    if calibration_batches != CALIBRATION_BATCHES:
        raise ValueError(
            "warm_up_batches is the old name of calibration_batches, but both are given"
            f" ({warm_up_batches!r} and {calibration_batches!r}): keep calibration_batches."
        )
    warnings.warn(
        "warm_up_batches is now calibration_batches: the old name will be removed in the next release.",
        FutureWarning,
        stacklevel=4,
    )
    return check_integer("warm_up_batches", warm_up_batches)
