"""Export the network of a run as files that run without torch."""

import contextlib
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torchmetrics import Metric

from lit_xai.attribution.evaluation import DataInfo
from lit_xai.export.exporter import INT8_OPTIONS, Exporter, check_int8_options
from lit_xai.export.files import FixedSamplesError, write_onnx
from lit_xai.export.layer_blame import SECONDS
from lit_xai.export.parity import in_float
from lit_xai.export.report import numbers_of
from lit_xai.export.weights import Weights, final_weights, live_weights, saved_weights
from lit_xai.export.wholes import SEARCHED, describe_sizes, others_of
from lit_xai.network.calling import (
    BatchToInputs,
    BatchToTarget,
    Inputs,
    OutputSpec,
    check_call,
    find_inputs,
    find_labels,
    find_targets,
)
from lit_xai.network.check import check_flag, refusal
from lit_xai.network.describing import describe
from lit_xai.network.layers import one_or_more
from lit_xai.network.packages import ONNX, require
from lit_xai.network.probing import Probe
from lit_xai.network.profiling import count_samples
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.quantization.callback import QuantizationAwareTraining
from lit_xai.quantization.steps import quantize_steps
from lit_xai.render.png import read_png
from lit_xai.structure.attachment import attach, detach
from lit_xai.structure.recipe import KEY, Recipe, recipe_of
from lit_xai.structure.schema import Weights as StateWeights
from lit_xai.structure.schema import entries
from lit_xai.trainer.access import callbacks_of, refuse_strategies, require_writable, run_folder, without_log
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.batches import example_inputs, loader_name, read_batch
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.logging import log_image, log_scalars, log_text
from lit_xai.trainer.progress import is_within_epoch
from lit_xai.trainer.saved_state import FIX, check_saved_state, check_state
from lit_xai.trainer.structure_change import bare_optimizers
from lit_xai.trainer.watching import resolved

if TYPE_CHECKING:
    from lit_xai.export import ExportReport


class ModelExport(AnyCallback):
    """Write the network of a run as files for ONNX Runtime when the run ends, and compare the files with the network.

    The folder then holds ``model.onnx``, ``model.int8.onnx`` if the network computes in integers, ``infer.py`` (which
    needs ONNX Runtime and NumPy alone), a ``torch.export`` program, and a table of metric, agreement, size and latency,
    which also goes to the log and to TensorBoard; of the layers in integers, how noisy each is, and which to leave in
    float if they cost too much. The exported weights are ModelCheckpoint's best ones of the final
    structure, or the last ones where nothing is monitored. After QuantizationAwareTraining ``model.onnx`` holds the
    float weights of just before it, and the table has a row for quantizing those without training. Training is bit for
    bit that of a run without it; an export that fails at the end is a warning.

    Args:
        dirpath: the folder; default ``export`` in the run's folder.
        module: the network inside the LightningModule, a dotted name; default the LightningModule itself.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several, a function or its import path.
        batch_to_target: the labels in a batch, for the metric: a key, an index, a function or its import path; default
            the usual places.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        metric: of (logits, labels): a torchmetrics.Metric or a function; default accuracy, where labels are classes.
        int8: whether to quantize a network that was not trained for it.
        calibrate: the number of training samples to calibrate on.
        cpu: the target of the integers: ``"any"``, ``"vnni"`` or ``"arm64"``, see
            :func:`~lit_xai.quantization.quantization.plan_quantization`; has to agree with QuantizationAwareTraining.
        activations: with ``int8``: ``"unsigned"`` or ``"symmetric"`` integers, or ``"float"``: weights alone become
            integers, for a file of a quarter the size, where activations do not tolerate it; see
            :func:`~lit_xai.quantization.quantization.plan_quantization`.
        ignored_layers: with ``int8``: layers that stay in float: names, patterns (``"network.head*"``) or classes.
        max_drop: with ``int8``: how much of the metric may be lost against float, in its own unit: the fewest layers
            that it takes stay in float, chosen on the evaluation data; default no limit.
        classes: names of the labels, which ``infer.py`` prints; default ``class_names`` of the data module, the module
            or an AttributionMonitor of the run, or the ``classes`` of the dataset, as torchvision's have.
        mean: the normalization's mean, one number per channel; default the data module's ``mean``.
        std: its standard deviation, one number per channel; default the data module's ``std``.
        overwrite: whether files of an earlier export may be replaced. A resumed run replaces its own.
        threads: of the runtimes, for the latency; several runtimes are compared on all threads as well.
        program: whether to write a ``torch.export`` program too.
        weights_only: ``False`` to unpickle objects of any class in ModelCheckpoint's best checkpoint, such as a module
            among the hyperparameters; otherwise the last weights are exported in place of such a file's, with a
            warning.
        runtimes: to compare: ``"onnxruntime"``, ``"openvino"``, ``"executorch"``, for which ``model.pte`` is written;
            of more than one the table shows each file in each, and a sentence says which file to run where. What is
            not installed is left out, with a line; default ONNX Runtime alone.
        batch_sizes: of the latencies; default 1 and 64.

    Attributes:
        report: the :class:`lit_xai.export.ExportReport` of the export; ``None`` before.

    Raises:
        ValueError: in the constructor or before the first step, one sentence on the argument that is wrong.

    Example:
        >>> trainer = Trainer(callbacks=[ModelExport("export", int8=True)], logger=False)
        >>> ModelExport(calibrate=0)
        Traceback (most recent call last):
        ...
        ValueError: calibrate expected a positive integer, but got 0.
    """

    def __init__(
        self,
        dirpath: str | PathLike[str] | None = None,
        *,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
        metric: Metric | Callable[..., Any] | None = None,
        int8: bool = False,
        calibrate: int = 512,
        cpu: str = "any",
        classes: list[str] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        overwrite: bool = False,
        threads: int = 1,
        program: bool = True,
        batch_to_target: BatchToTarget = None,
        weights_only: bool | None = None,
        runtimes: list[str] | None = None,
        batch_sizes: list[int] | None = None,
        activations: str = "unsigned",
        ignored_layers: str | list[Any] | None = None,
        max_drop: float | None = None,
    ) -> None:
        super().__init__()
        if weights_only not in (None, True, False):
            raise refusal("weights_only", "a bool or None", weights_only)
        if dirpath is not None and (not isinstance(dirpath, (str, PathLike)) or not str(dirpath)):
            raise refusal("dirpath", "a folder's path or None", dirpath)
        self.dirpath, self.overwrite = dirpath, check_flag("overwrite", overwrite)
        self.given, self.batch_to_target = Network(module, batch_to_inputs, output), batch_to_target
        self.exporter = self.given_exporter = Exporter(
            self.given,
            DataInfo(classes, mean=mean, std=std),
            metric,
            int8,
            calibrate,
            cpu,
            threads,
            program,
            batch_to_target,
            runtimes=["onnxruntime"] if runtimes is None else runtimes,
            batch_sizes=[1, 64] if batch_sizes is None else batch_sizes,
            activations=activations,
            ignored_layers=tuple(one_or_more(ignored_layers)),
            max_drop=max_drop,
        )
        self.weights_only = weights_only
        self.report: ExportReport | None = None
        self._resumed: dict[str, Any] = {}
        self._forget()

    def _forget(self) -> None:
        self._folder = Path()
        self.exporter = self.given_exporter
        self._has_begun = self._has_ended = False
        self._inputs: Inputs | None = None
        self._others: tuple[Inputs, ...] | None = None
        self._before: Weights | None = None
        self._dense: Weights | None = None

    # --- what Lightning calls -----------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse settings that are wrong for any network, and keep the float weights before each structural step."""
        guard(trainer)
        if stage != "fit":
            return
        self._forget()
        self.report, self._resumed = None, {}
        refuse_strategies(trainer, "ModelExport", "export a checkpoint afterwards, with `lit-xai export`")
        exports = [callback for callback in callbacks_of(trainer) if isinstance(callback, ModelExport)]
        if sum(export.dirpath == self.dirpath for export in exports) > 1:
            raise MisconfigurationException(
                "Two ModelExport callbacks would write into one folder: give each its own dirpath, or keep one."
            )
        self._folder = run_folder(trainer) / "export" if self.dirpath is None else Path(self.dirpath)
        attach(
            pl_module,
            self,
            optimizers=lambda: bare_optimizers(trainer),
            before_step=lambda module: self._keep_float_weights(trainer, module),
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the float weights, once training continues in integers, and the folders that this run writes to.

        All exports of a run share one entry, so that a resumed run finds it also with another ``dirpath``.
        """
        states = checkpoint.setdefault("callbacks", {})
        if not self._has_begun:
            # The checkpoint of a tuner, say: a folder that was not checked yet must not come back as this run's own.
            if self._resumed:
                states[self.state_key] = dict(self._resumed)
            return
        state = states.setdefault(self.state_key, {"folders": []})
        state["folders"].append(str(self._folder.absolute()))
        # While training is in float, the checkpoint's own weights are the float weights.
        if self._before is not None and _is_in_integers(pl_module):
            state["before"] = {
                "state_dict": self._before.pl_module.state_dict(),
                KEY: self._before.recipe.to_dict(),
            }
            state["source"] = self._before.source
            state["before"]["epoch"] = self._before.epoch

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a damaged state before anything is restored from it."""
        check_saved_state(self, checkpoint, _check_state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what the checkpoint holds until the run starts.

        Raises:
            ValueError: it is damaged; names the entry.
        """
        _check_state(state_dict)
        self._resumed = dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a folder that cannot be written to, or that holds another run's files."""
        require("ModelExport", *ONNX, "onnxruntime")
        was_written_by_this_run = str(self._folder.absolute()) in self._resumed.get("folders", ())
        may_replace = self.overwrite or was_written_by_this_run or _is_fast_dev_run(trainer)
        _in_first_process(trainer, lambda: self._check_folder(may_replace))
        # Here and not in load_state_dict, which gets no module to copy.
        _in_first_process(trainer, lambda: self._take_over(pl_module))
        self._resumed, self._has_begun = {}, True

    def _take_over(self, pl_module: LightningModule) -> None:
        saved = self._resumed.get("before")
        if saved is None:
            return
        try:
            self._before = saved_weights(pl_module, saved, self._resumed["source"], is_whole=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the 'before' of its state in the checkpoint does not fit: {reason} {FIX}") from None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse options that contradict the training; export a copy and discard it, so that failures come early."""
        # Not in setup: whether a resumed run is in integers shows once its checkpoint has been read.
        _in_first_process(trainer, lambda: self._check_int8_options(trainer, pl_module))
        self.exporter = _agreed(trainer, lambda: self.given_exporter.watched(trainer, pl_module, "val"))
        network = _agreed(trainer, lambda: resolved(trainer, pl_module, "train", self.given))
        self._inputs = _agreed(trainer, lambda: example_inputs(trainer, pl_module, network))
        self._others = _agreed(trainer, lambda: self._of_other_sizes(trainer, pl_module, network))
        _agreed(trainer, lambda: self._check_labels(trainer, pl_module))
        if not _is_in_integers(pl_module):
            _in_first_process(trainer, lambda: self._rehearse(live_weights(pl_module)))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files in the first process, after the last checkpoint; the other processes wait.

        Whoever needs the files calls this hook before Lightning does, which then finds the work done.
        """
        # A fast_dev_run writes no files, as Lightning writes no checkpoints in it.
        if _is_fast_dev_run(trainer) or self._has_ended:
            return
        self._has_ended = True
        if trainer.is_global_zero:
            try:
                self._finish(trainer, pl_module)
            except Exception as error:  # an error here would make a finished run look like a failed one
                rank_zero_warn(
                    f"ModelExport: nothing was exported, but the run's checkpoints are complete. {_line(error)} Once"
                    " that is fixed, `lit-xai export` exports from a checkpoint."
                )
        # The other processes would otherwise leave the process group while the first still measures.
        trainer.strategy.barrier("lit_xai.ModelExport")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach from the module."""
        unguard(trainer)
        detach(pl_module, self)
        if stage == "fit":
            self._inputs = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Detach as well where Lightning does not tear down."""
        self.teardown(trainer, pl_module, "exception")

    # --- helpers --------------------------------------------------------------------------------------------------

    def _check_folder(self, may_replace: bool) -> None:
        from lit_xai.export.folder import check_folder

        try:
            require_writable(check_folder(self._folder, may_replace))
        except OSError as error:
            reason = error.strerror or getattr(error.__cause__, "strerror", None) or error
            raise ValueError(
                f"dirpath expected a folder that can be written to, but got {self._folder}: {reason}."
            ) from None

    def _check_int8_options(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Saved configurations spell out the defaults too, so only other values are taken for the user's choice.
        given, default = vars(self.exporter), vars(Exporter())
        options = {name: given[name] for name in INT8_OPTIONS if given[name] != default[name]}
        taken = [step["plan"]["scheme"] for step in quantize_steps(recipe_of(pl_module))]
        training = [qat.scheme for qat in callbacks_of(trainer) if isinstance(qat, QuantizationAwareTraining)]
        scheme = next(iter([*taken, *training]), None)
        is_kept = self._before is not None or not _is_in_integers(pl_module)
        if note := check_int8_options(options, scheme, is_kept):
            rank_zero_info(f"ModelExport: {note}")

    def _check_labels(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a metric whose labels are not in the batches, or in another place than was named."""
        exporter = self.exporter
        if exporter.metric is None and self.batch_to_target is None:
            return
        batch, _ = read_batch(trainer, loader_name(trainer, Probe(n=1), "fit"), Probe(n=1), seed=0)
        network = exporter.network.of(pl_module)
        find = find_labels if exporter.metric is None else find_targets
        if find(batch, network, batch_to_target=exporter.batch_to_target) is None:
            raise ValueError(
                f"metric expected labels in each batch, but got {describe(batch)}: name them with batch_to_target=, as"
                " a key, an index or a function."
            )

    def _of_other_sizes(
        self, trainer: Trainer, pl_module: LightningModule, network: Network
    ) -> tuple[Inputs, ...] | None:
        """Return inputs of further samples that differ in size, such as longer texts."""
        assert self._inputs is not None  # read just before
        inputs, model = in_float(self._inputs), network.of(live_weights(pl_module).pl_module)
        with untouched(model), torch.no_grad():
            check_call(model, inputs, output=network.output)  # whose error names the arguments that help
        has_rows = count_samples(model, inputs, output=network.output) is not None
        some = [inputs]
        with contextlib.suppress(ValueError):  # there are fewer samples, or they have no index
            for index in range(1, SEARCHED):
                batch, _ = read_batch(trainer, "train", Probe(indices=[index]), seed=0)
                some.append(in_float(find_inputs(batch, model, network.batch_to_inputs)))
        return others_of(some, rows=has_rows) or (None if has_rows else ())

    def _keep_float_weights(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights before a step: the step's kind is not known here, and these may be the last in float."""
        if trainer.is_global_zero and not _is_in_integers(pl_module):
            epoch = trainer.current_epoch
            last = epoch if is_within_epoch(trainer) else epoch - 1
            source = f"the weights just before {f'step {trainer.global_step}' if last == epoch else f'epoch {epoch}'}"
            source = source if last >= 0 else "the weights that the run began with"
            self._before = live_weights(pl_module, source, last)
            if not self._before.recipe.steps:
                self._dense = self._before

    def _rehearse(self, weights: Weights) -> None:
        assert self._inputs is not None  # read in on_train_start
        network, output = self.exporter.network.of(weights.pl_module), self.exporter.network.output
        with untouched(network), torch.no_grad():
            check_call(network, in_float(self._inputs), output=output)
        with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder, without_log(weights.pl_module):
            path = Path(folder) / "model.onnx"
            try:
                sizes = write_onnx(network, in_float(self._inputs), path, output, others=self._others or ())
            except FixedSamplesError as error:
                rank_zero_warn(f"ModelExport: {error} The files will take batches of the size of the first one alone.")
                return
        if self._others is not None and not any(None in size for size in sizes.values()):
            rank_zero_warn(f"ModelExport: {describe_sizes(type(network).__name__, sizes)}")

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Weights kept before a pruning step are of another network than the final one.
        before = self._before if _is_in_integers(pl_module) else None
        weights = final_weights(trainer, pl_module, self.weights_only)
        # Between the last epoch and the table is otherwise half a minute without a word.
        rank_zero_info(
            f"ModelExport: writing the files with the weights of {weights.source}, comparing them with the network on"
            " the evaluation data, and measuring latencies; where integers cost accuracy, searching for the layers that"
            f" do, for about {SECONDS:.0f} s ..."
        )
        # Files in the folder were checked before the first step, or are this run's own: overwrite them.
        self.report = self.exporter.export(trainer, weights, before, self._folder, True, self._dense)
        rank_zero_info(f"ModelExport, in '{self._folder}':\n{self.report}")
        log_scalars(trainer, numbers_of(self.report.rows), trainer.global_step)
        log_text(trainer, "compression/export", str(self.report), trainer.global_step)
        self._log_layers(trainer)

    def _log_layers(self, trainer: Trainer) -> None:
        figure = self._folder / "layers.png"
        if self.report is None or self.report.blame is None or not figure.exists():
            return
        blame = self.report.blame
        log_text(trainer, "compression/layers", f"{blame}\n\n{blame.table()}", trainer.global_step)
        log_image(trainer, "compression/layers", read_png(figure), trainer.global_step, figure)


T = TypeVar("T")

_BEFORE = entries({"state_dict": StateWeights, KEY: Any, "epoch": NotRequired[int | None]})
_STATE_IN_INTEGERS = entries({"folders": list[str], "before": _BEFORE, "source": str})
_STATE = entries({"folders": list[str], "before": NotRequired[_BEFORE], "source": NotRequired[str]})


def _check_state(state: Any) -> None:
    check_state("ModelExport", state, _STATE)
    if "before" in state:
        check_state("ModelExport", state, _STATE_IN_INTEGERS)
        Recipe.from_dict(state["before"][KEY])


def _is_in_integers(pl_module: LightningModule) -> bool:
    """Return whether a step has left float weights behind; a pruned module's are still float."""
    recipe = recipe_of(pl_module)
    return len(recipe.in_float().steps) < len(recipe.steps)


def _is_fast_dev_run(trainer: Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by its connector


def _agreed(trainer: Trainer, work: Callable[[], T], name: str = "ModelExport") -> T:
    """Return the result of ``work`` in each process, and raise its refusal in all of them."""
    try:
        return agreed(trainer, name, work)
    except (ValueError, OSError) as error:  # an OSError: no room for the rehearsal's file, say
        raise MisconfigurationException(f"ModelExport: {_line(error).removeprefix('ModelExport: ')}") from None


def _in_first_process(trainer: Trainer, work: Callable[[], object]) -> None:
    """Run ``work`` in the first process and raise its refusal in all: the others would wait for it forever."""
    _agreed(trainer, lambda: work() if trainer.is_global_zero else None, name="")


def _line(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"
