"""The Trainer and the command line behind ``lit-xai export``."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torchmetrics import Metric

from lit_xai.cli.checkpoints import read_checkpoint
from lit_xai.cli.files import is_file_name
from lit_xai.cli.run import LitXaiCLI
from lit_xai.export.callback import ModelExport
from lit_xai.export.exporter import INT8_OPTIONS, Exporter, check_int8_options
from lit_xai.export.weights import Weights, live_weights, saved_weights
from lit_xai.network.calling import BatchToInputs, OutputSpec
from lit_xai.network.import_path import load_object
from lit_xai.network.packages import ONNX, require
from lit_xai.quantization.steps import quantize_steps
from lit_xai.structure.recipe import KEY, Recipe

if TYPE_CHECKING:
    from lit_xai.export import ExportReport

# The run may have trained on GPUs; files are written and compared on one CPU, and no run folder is left behind.
TRAINER_SETTINGS: dict[str, Any] = {
    "accelerator": "cpu",
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "precision": "32-true",
    "logger": False,
    "fast_dev_run": False,
    "overfit_batches": 0.0,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "inference_mode": False,
    "profiler": None,
    "plugins": None,
    "sync_batchnorm": False,
    "barebones": False,
}


class ExportTrainer(Trainer):
    """A Trainer that loads a checkpoint, exports it, and does nothing else.

    Attributes:
        report: of the export.
    """

    report: "ExportReport"

    def export(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        dirpath: str = "export",
        int8: bool = False,
        calibrate: int | None = None,
        cpu: str | None = None,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        batch_to_target: int | str | None = None,
        output: OutputSpec = None,
        metric: Metric | Callable[..., Any] | None = None,
        threads: int | None = None,
        program: bool | None = None,
        overwrite: bool = False,
        runtimes: list[str] | None = None,
        batch_sizes: list[int] | None = None,
        activations: str | None = None,
        ignored_layers: list[str] | None = None,
        max_drop: float | None = None,
    ) -> None:
        """Write a checkpoint as ONNX files, and compare them with the model.

        Args:
            model: whose weights the checkpoint holds.
            datamodule: where it has the data that files are compared on.
            ckpt_path: the checkpoint.
            weights_only: False to unpickle a checkpoint that holds more than tensors and plain values.
            dirpath: the folder for the files.
            int8: quantize to 8 bits without training.
            calibrate: on how many training samples; default 512.
            cpu: the target of the integers: any, vnni or arm64; default any.
            module: the network inside the module, a dotted name; default the module itself.
            batch_to_inputs: its inputs in a batch: a key, an index, several, or a function's import path.
            batch_to_target: the labels in a batch, for the metric: a key, an index, or a function's import path.
            output: the logits in its output: a key, an attribute, an index, or a function's import path.
            metric: of (logits, labels): a torchmetrics.Metric or a function; default accuracy.
            threads: of ONNX Runtime, for the latency; default 1.
            program: false to leave out the torch.export program.
            overwrite: replace the files of an earlier export.
            runtimes: to compare, such as [onnxruntime, openvino]; default ONNX Runtime alone.
            batch_sizes: of the latencies; default [1, 64].
            activations: unsigned or symmetric integers, or float: weights alone become integers; default unsigned.
            ignored_layers: with int8, those that stay in float: names or patterns.
            max_drop: how much of the metric int8 may lose: the fewest layers that it takes stay in float.

        Arguments left out are taken from the ModelExport among the callbacks, if there is one.
        """
        callbacks: list[Callback] = self.callbacks  # type: ignore[attr-defined]  # set in Trainer.__init__, by its connector
        exporters = [callback.exporter for callback in callbacks if isinstance(callback, ModelExport)]
        configured = exporters[0] if exporters else Exporter()
        network_options = {"module": module, "batch_to_inputs": batch_to_inputs, "output": output}
        options = {
            "batch_to_target": batch_to_target,
            "calibrate": calibrate,
            "cpu": cpu,
            "metric": metric,
            "threads": threads,
            "program": program,
            "runtimes": runtimes,
            "batch_sizes": batch_sizes,
            "activations": activations,
            "ignored_layers": ignored_layers,
            "max_drop": max_drop,
        }
        network = replace(configured.network, **_not_none(network_options))
        exporter = replace(configured, network=network, int8=int8 or configured.int8, **_not_none(options))
        export_loaded = _ExportLoaded(exporter, str(ckpt_path), weights_only, Path(dirpath), overwrite)
        callbacks[:] = [*(callback for callback in callbacks if not isinstance(callback, ModelExport)), export_loaded]
        run = self.validate if _has(model, datamodule, "validation_step", "val_dataloader") else self.test
        with warnings.catch_warnings():
            # The checkpoint names the callbacks that trained the model, which are not needed here.
            warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks")
            run(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=weights_only)


def _not_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _has(model: LightningModule, datamodule: LightningDataModule | None, step: str, loader: str) -> bool:
    has_loader = any(is_overridden(loader, owner) for owner in (model, datamodule) if owner is not None)
    return has_loader and is_overridden(step, model)


class _ExportLoaded(Callback):
    """Export the model once Lightning has loaded it.

    Loading needs a loop of the Trainer, which runs a single batch; the export itself goes through all of them.
    """

    def __init__(
        self, exporter: Exporter, ckpt_path: str, weights_only: bool | None, folder: Path, overwrite: bool
    ) -> None:
        self._exporter, self._folder, self._overwrite = exporter, folder, overwrite
        self._path, self._weights_only = ckpt_path, weights_only
        self._limits: tuple[Any, Any] = (1.0, 1.0)

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        # One batch for the stage that loads the checkpoint; the limits are restored for the export.
        self._limits = trainer.limit_val_batches, trainer.limit_test_batches
        trainer.limit_val_batches = trainer.limit_test_batches = 1

    def on_validation_end(self, trainer: Any, pl_module: LightningModule) -> None:
        checkpoint = read_checkpoint(self._path, self._weights_only)
        weights = live_weights(pl_module, _weights_label(checkpoint, self._path), checkpoint.get("epoch"))
        trainer.limit_val_batches, trainer.limit_test_batches = self._limits
        before = _weights_before_quantization(pl_module, checkpoint)
        try:
            exporter = self._exporter.watched(trainer, pl_module, "val")
            trainer.report = exporter.export(trainer, weights, before, self._folder, self._overwrite)
        except ValueError as error:
            raise ValueError(with_option_names(str(error))) from error

    on_test_end = on_validation_end


def _weights_label(checkpoint: dict[str, Any], path: str) -> str:
    """Describe a checkpoint's weights: their epoch, and the monitored metric if they were the best."""
    parts = [f"epoch {checkpoint['epoch']}"] if "epoch" in checkpoint else []
    for state in checkpoint.get("callbacks", {}).values():
        # By name: the folder may have been moved since.
        best = isinstance(state, dict) and Path(str(state.get("best_model_path") or ".")).name == Path(path).name
        score = state.get("best_model_score") if best else None
        score = score.item() if isinstance(score, Tensor) and score.numel() == 1 else score
        if best and state.get("monitor") and isinstance(score, int | float):
            parts.append(f"{state['monitor']} {score:.4g}")
            break
    return ", ".join([*parts, path])


def _weights_before_quantization(pl_module: LightningModule, checkpoint: dict[str, Any]) -> Weights | None:
    """Return the weights from before quantization-aware training, if a ModelExport kept them."""
    state = _export_state(checkpoint)
    if "before" not in state:
        return None
    return saved_weights(pl_module, state["before"], state["source"], is_whole=False)


def _export_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = checkpoint.get("callbacks", {}).get(ModelExport.__qualname__, {})
    return state


class ExportCLI(LitXaiCLI):
    """The command line of ``lit-xai export``.

    Args:
        arguments: the command and its options, spelled out.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments, trainer_class=ExportTrainer, save_config_callback=None)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the only command, and the arguments of its method that are no options."""
        return {"export": {"model", "datamodule"}}

    def _check(self, config: Any) -> None:
        from lit_xai.export.folder import check_folder

        require("lit-xai export", *ONNX, "onnxruntime")
        super()._check(config)
        options = _not_none({"int8": config.int8 or None, **{name: config[name] for name in INT8_OPTIONS[1:]}})
        settings = {name: config[name] for name in ("threads", "runtimes", "batch_sizes")}
        ModelExport(config.dirpath, **_not_none(settings), **options)  # checks the values
        try:
            check_folder(config.dirpath, config.overwrite)
        except ValueError as error:
            raise ValueError(with_option_names(str(error))) from None
        if is_file_name(config.ckpt_path):
            checkpoint = read_checkpoint(config.ckpt_path, config.weights_only)
            configured = any(one.get("init_args", {}).get("int8") for one in _model_exports(config.trainer.callbacks))
            if note := _check_integer_options(options, configured, checkpoint):
                rank_zero_info(note)

    def before_instantiate_classes(self) -> None:
        """Set up the Trainer for export, and leave out all callbacks but ModelExport."""
        config = self.config["export"].trainer
        for name, value in TRAINER_SETTINGS.items():
            config[name] = value
        config.callbacks = _model_exports(config.callbacks)


def with_option_names(sentence: str) -> str:
    """Return an error message on Python arguments with the command line's options in their place."""
    for argument in ("module", "batch_to_inputs", "batch_to_target", "output"):
        sentence = sentence.replace(f"with {argument}=", f"with --{argument}")
    return re.sub(r"^dirpath", "--dirpath", sentence).replace("overwrite=True", "--overwrite")


def _model_exports(callbacks: Any) -> list[Any]:
    """Return the entries of a config's callbacks that are ModelExports."""
    entries = callbacks if isinstance(callbacks, list) else [callbacks]
    return [entry for entry in entries if entry is not None and _is_model_export(entry.class_path)]


def _is_model_export(class_path: str) -> bool:
    callback = load_object(class_path, "callbacks")
    return isinstance(callback, type) and issubclass(callback, ModelExport)


def _check_integer_options(options: dict[str, Any], configured: bool, checkpoint: dict[str, Any]) -> str:
    """Return a note on options that have no effect on this checkpoint's integers, and refuse those that contradict it.

    Args:
        options: those of :data:`~lit_xai.export.exporter.INT8_OPTIONS` that were given.
        configured: whether the config's ModelExport sets ``int8``.
        checkpoint: the one to export.
    """
    steps = quantize_steps(Recipe.from_dict(checkpoint.get(KEY)))
    scheme = steps[0]["plan"]["scheme"] if steps else None
    if scheme is None and configured:
        return ""
    return check_int8_options(options, scheme, "before" in _export_state(checkpoint), lambda name: f"--{name}")
