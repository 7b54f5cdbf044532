"""Export from weights to files: the part that :class:`~lit_xai.callbacks.ModelExport` and ``lit-xai export`` share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_xai.attribution.callback import AttributionMonitor
from lit_xai.attribution.evaluation import DataInfo
from lit_xai.export.parity import measure_parity, network_predictor
from lit_xai.export.timing import check_batch_sizes
from lit_xai.export.weights import Weights, calibration_batches, evaluation_batches
from lit_xai.network.calling import BatchToTarget, call_network, find_inputs
from lit_xai.network.check import check_flag, check_integer, refusal
from lit_xai.network.copying import uncompiled_
from lit_xai.network.metric import first_batch, metric_name, resolve_direction
from lit_xai.network.spec import Network
from lit_xai.network.untouched import fork_rng, untouched
from lit_xai.quantization.float_layers import check_max_drop, quantize_within
from lit_xai.quantization.quantization import check_scheme, is_quantized, quantize
from lit_xai.quantization.steps import Quantize
from lit_xai.runtime.runtimes import check_runtimes
from lit_xai.trainer.access import callbacks_of, is_a, without_log
from lit_xai.trainer.batches import datasets, loaders
from lit_xai.trainer.watching import labels_of, resolved

if TYPE_CHECKING:
    from lit_xai.export import ExportReport

BATCH = 64
"""Samples per calibration batch."""

INT8_OPTIONS = ("int8", "cpu", "calibrate", "activations", "ignored_layers", "max_drop")
"""The settings that say how a network is quantized that was not trained for it."""


@dataclass(frozen=True)
class Exporter:
    """The settings of an export.

    Args:
        network: the network to export, and how it is called.
        data_info: class names and normalization, for the files' metadata.
        batch_to_target: the labels in a batch; default the usual places.
        metric: see :func:`lit_xai.export.export_model`.
        int8: whether to quantize a network that was not trained for it.
        calibrate: the number of training samples to calibrate on.
        cpu: the target of the integers.
        threads: of the runtimes.
        program: whether to write a ``torch.export`` program too.
        activations: what they are quantized to, of a network that was not trained for it.
        ignored_layers: of such a network, those that stay in float: names, patterns or classes.
        max_drop: how much such a network may lose of the metric; see
            :func:`~lit_xai.quantization.float_layers.quantize_within`.
        training: the network as the training step calls it, for batches of the training data; default ``network``.
        runtimes: to compare, by name.
        batch_sizes: to measure latencies at.

    Raises:
        ValueError: an argument is wrong.
    """

    network: Network = field(default_factory=Network)
    data_info: DataInfo = field(default_factory=DataInfo)
    metric: Any = None
    int8: bool = False
    calibrate: int = 512
    cpu: str = "any"
    threads: int = 1
    program: bool = True
    batch_to_target: BatchToTarget = None
    training: Network | None = None
    runtimes: Sequence[str] = ("onnxruntime",)
    batch_sizes: Sequence[int] = (1, 64)
    activations: str = "unsigned"
    ignored_layers: Sequence[str | type] = ()
    max_drop: float | None = None

    def __post_init__(self) -> None:
        check_runtimes(self.runtimes)
        check_batch_sizes(self.batch_sizes)
        check_flag("int8", self.int8)
        check_flag("program", self.program)
        check_integer("calibrate", self.calibrate)
        check_integer("threads", self.threads)
        if self.metric is not None and (not callable(self.metric) or isinstance(self.metric, type)):
            raise refusal("metric", "a torchmetrics.Metric, a function or None", self.metric)
        check_scheme(8, self.cpu, self.activations)
        if check_max_drop(self.max_drop) is not None and self.metric is not None:
            _check_direction(self.metric)
        _check_data_info(self.data_info)

    def watched(self, trainer: Trainer, pl_module: LightningModule, loader: str) -> "Exporter":
        """Return these settings with all that was left out of the network and the labels taken from the module's steps.

        Args:
            trainer: inside a stage.
            pl_module: its module.
            loader: ``"val"`` or ``"test"``: whose step is watched; that of training where there is no such loader.
        """
        has = {name for name, one in loaders(trainer).items() if one is not None and one != []}
        loader = next(name for name in (loader, "val", "test", "train") if name in has)
        return replace(
            self,
            network=resolved(trainer, pl_module, loader, self.network),
            training=resolved(trainer, pl_module, "train", self.network) if "train" in has else self.network,
            batch_to_target=labels_of(trainer, pl_module, loader, self.network, self.batch_to_target),
        )

    def export(
        self,
        trainer: Trainer,
        weights: Weights,
        before: Weights | None,
        folder: Path,
        overwrite: bool,
        dense: Weights | None = None,
    ) -> "ExportReport":
        """Write the files and return the report; nothing else is changed, random generators included.

        Args:
            trainer: the source of the data to compare the files on.
            weights: the final weights.
            before: the float weights just before quantization-aware training, if there was any.
            folder: the folder to write to.
            overwrite: whether files of an earlier export may be replaced.
            dense: the weights just before the first step of a pruned network, if they are known.

        Raises:
            ValueError: the network cannot be exported, or there are no data; says why.
        """
        from lit_xai.export import export_model

        # Loaders and networks may draw random numbers; a run that continues must not notice an export.
        with fork_rng(0, {trainer.strategy.root_device}), without_log(weights.pl_module):
            variants, source = self._variants(trainer, weights, before)
            epochs = dict.fromkeys(("network", "quantized"), weights.epoch)
            epochs |= {"ptq": (before or weights).epoch, "dense": None if dense is None else dense.epoch}
            batches = evaluation_batches(trainer)
            on = {"val": "validation", "test": "test", "train": "training"}[batches.name]
            data_info = self._data_info(trainer, variants["network"], batches)
            return export_model(
                variants.pop("network"),
                batches,
                folder.absolute(),
                **variants,
                epochs=epochs,
                metric=self.metric,
                classes=data_info.class_names,
                mean=data_info.mean,
                std=data_info.std,
                recipe=weights.recipe.to_dict(),
                source=f"{source}; compared on the {on} data",
                **self._dense(weights, dense),
                batch_to_inputs=self.network.batch_to_inputs,
                batch_to_target=self.batch_to_target,
                output=self.network.output,
                overwrite=overwrite,
                threads=self.threads,
                program=self.program,
                progress=end_progress(trainer),
                runtimes=self.runtimes,
                batch_sizes=self.batch_sizes,
            )

    def _variants(self, trainer: Trainer, weights: Weights, before: Weights | None) -> tuple[dict[str, Any], str]:
        """Return the networks of an export by their arguments' names, and where their weights come from."""
        network = self._network(weights)
        if not is_quantized(network):
            if not self.int8:
                return {"network": network}, weights.source
            if self.max_drop is None:
                return {"network": network, "ptq": self._quantized(trainer, weights)}, weights.source
            quantized, note = self._quantized_within(trainer, weights, self.max_drop)
            return {"network": network, "ptq": quantized, "notes": [note]}, weights.source
        # Both files hold the same weights, so that they differ by the quantization alone.
        in_float = weights.as_before(Quantize.name)
        variants: dict[str, Any] = {"network": self._network(in_float), "quantized": network}
        if before is not None:  # the weights that quantization-aware training began with show what it gained
            variants["ptq"] = self._quantized(trainer, before, weights.recipe.steps[-1])
            variants["ptq_source"] = before.source
        return variants, weights.source

    def _dense(self, weights: Weights, dense: Weights | None) -> dict[str, Any]:
        """Return the arguments for the row of the dense network, none where nothing was cut in float."""
        if not weights.recipe.in_float().steps:
            return {}
        return {"dense": self._network(dense or weights.as_dense()), "is_dense_known": dense is not None}

    def _network(self, weights: Weights) -> nn.Module:
        """Return the network in a copy of the module, without ``torch.compile``."""
        # The functions inside a compiled network can be neither intercepted nor traced.
        return uncompiled_(self.network.of(weights.pl_module))

    def _quantized(self, trainer: Trainer, weights: Weights, step: dict[str, Any] | None = None) -> nn.Module:
        """Quantize after training, with the scheme of a recorded step if there is one."""
        network = self._network(weights)
        scheme = self._scheme() if step is None else _scheme(step, self.network.prefix(weights.pl_module))
        batches, options = self._calibration(trainer, network)
        return quantize(network, batches, **options, progress=False, **scheme)

    def _scheme(self) -> dict[str, Any]:
        return {"cpu": self.cpu, "activations": self.activations, "ignored_layers": self.ignored_layers}

    def _calibration(self, trainer: Trainer, network: nn.Module) -> tuple[list[Any], dict[str, Any]]:
        """Return the batches to observe ranges on, and how they are read."""
        training = self.training or self.network
        batches = calibration_batches(trainer, network, training, self.calibrate)
        options = {"batches": len(batches), "batch_to_inputs": training.batch_to_inputs, "output": self.network.output}
        return batches, options

    def _quantized_within(self, trainer: Trainer, weights: Weights, max_drop: float) -> tuple[nn.Module, str]:
        """Quantize after training with as few layers in float as it takes, and say which."""
        network = self._network(weights)
        batches, options = self._calibration(trainer, network)
        loader = evaluation_batches(trainer)

        def measure(changed: nn.Module) -> float:
            predictors = {"network": network_predictor(changed.cpu().float(), self.network.output)}
            read = self.network.batch_to_inputs, False, self.batch_to_target
            with untouched(changed):
                result = measure_parity(predictors, [], loader, changed, self.metric, *read)
            if not result.metrics:
                raise ValueError(f"max_drop expected a metric to measure, but got none. {result.without_metric}")
            return result.metrics["network"]

        measure.__name__ = "accuracy" if self.metric is None else metric_name(self.metric)
        upwards = self.metric is None or resolve_direction(self.metric)
        limits: dict[str, Any] = {"metric": measure, "higher_is_better": upwards, "progress": end_progress(trainer)}
        quantized, found = quantize_within(network, batches, max_drop, **limits, **options, **self._scheme())
        on = {"val": "validation", "test": "test", "train": "training"}[loader.name]
        return quantized, f"{found} The layers were chosen on the {on} data, so the metric on them flatters a little."

    def _data_info(self, trainer: Trainer, network: nn.Module, batches: Iterable[Any]) -> DataInfo:
        data_info = self.data_info.completed_by(getattr(trainer, "datamodule", None))
        # Not the module's mean and std: a module that has them normalizes by itself.
        if data_info.class_names is None and (candidates := _class_names(trainer)):
            # Nobody gave these to the export: where they are too many or too few, they are of something else.
            n = max(2, self._outputs(network, batches))  # one output stands for two classes
            return replace(data_info, class_names=next((names for names in candidates if len(names) == n), None))
        return data_info

    def _outputs(self, network: nn.Module, batches: Iterable[Any]) -> int:
        """Return the number of outputs for each sample."""
        inputs = find_inputs(first_batch(batches, torch.device("cpu")), network, self.network.batch_to_inputs)
        with torch.no_grad():
            logits = call_network(network, inputs, output=self.network.output)
        return logits.size(1) if logits.dim() > 1 else 1


def _check_direction(metric: Any) -> None:
    try:
        resolve_direction(metric)
    except ValueError:
        raise refusal(
            "metric",
            "a torchmetrics.Metric with higher_is_better, or a function with an attribute of that name, for max_drop",
            metric_name(metric),
        ) from None


def _class_names(trainer: Trainer) -> list[list[str]]:
    """Return the names of classes that the module, monitors of the run and datasets know."""
    monitors = [callback.data_info for callback in callbacks_of(trainer) if isinstance(callback, AttributionMonitor)]
    owners: list[Any] = [trainer.lightning_module, *monitors]
    names = [getattr(owner, "class_names", None) for owner in owners]
    names += [getattr(dataset, "classes", None) for dataset in datasets(trainer)]
    return [list(some or ()) for some in names if _is_list_of(some, str)]


def _check_data_info(data_info: DataInfo) -> None:
    classes, mean, std = data_info.class_names, data_info.mean, data_info.std
    if classes is not None and not _is_list_of(classes, str):
        raise refusal("classes", "a list of names", classes)
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and not _is_list_of(values, (int, float)):
            raise refusal(name, "a list of numbers, one per channel", values)
    if std is not None and min(std) <= 0:
        raise refusal("std", "numbers above 0", std)
    if mean is not None and std is not None and len(mean) != len(std):
        raise ValueError(f"mean and std expected as many numbers each, but got {len(mean)} and {len(std)}.")


def _is_list_of(values: Any, types: Any) -> bool:
    return isinstance(values, (list, tuple)) and len(values) > 0 and all(isinstance(value, types) for value in values)


def _scheme(step: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the arguments of :func:`quantize` that a step was planned with, for a network of another name."""
    plan = step["plan"]
    # A step names its network within the LightningModule; here names begin at the exported network.
    inside = f"{step['module']}.".removeprefix(prefix) if step["module"] else ""
    scheme = dict(plan["scheme"])
    if isinstance(scheme["bits"], dict):
        scheme["bits"] = {inside + pattern: bits for pattern, bits in scheme["bits"].items()}
    return scheme | {"ignored_layers": [inside + name for name in plan["float_layers"]]}


def end_progress(trainer: Trainer) -> bool:
    """Return whether an export may draw a progress bar; stops Lightning's own where that would get in the way.

    A rich progress bar moves every line that is printed above itself, so that no second bar can be redrawn in place.
    """
    bar: Any = trainer.progress_bar_callback
    if is_a(bar, "RichProgressBar"):
        bar.teardown(trainer, trainer.lightning_module, "fit")  # Lightning is about to do it; twice does no harm
    return bar is not None


def check_int8_options(
    options: Mapping[str, Any], scheme: Mapping[str, Any] | None, is_kept: bool, spell: Callable[[str], str] = str
) -> str:
    """Refuse int8 options that contradict how the network was trained; return a sentence on those without effect.

    Args:
        options: those of :data:`INT8_OPTIONS` that were given.
        scheme: the scheme of quantization-aware training, ``None`` where there was none.
        is_kept: whether the float weights from before that training are known; they are quantized for comparison.
        spell: returns how an option is written, by its name.

    Returns:
        An empty string where every option has an effect.

    Raises:
        ValueError: ``cpu`` is not the one the network was trained for, or nothing is quantized for it.

    Example:
        >>> check_int8_options({"calibrate": 64}, None, False)
        'calibrate changes nothing: without int8 nothing is quantized.'
        >>> check_int8_options({"int8": True, "cpu": "vnni"}, {"cpu": "any"}, False)
        Traceback (most recent call last):
        ...
        ValueError: cpu expected 'any', which the network was trained for, but got 'vnni': leave it out, or ...
    """
    cpu, int8, given = spell("cpu"), spell("int8"), options.get("cpu")
    if scheme is None and options.get("int8"):
        return ""
    if scheme is None and given not in (None, "any"):
        raise ValueError(
            f"{cpu} expected {int8} as well, since nothing is quantized otherwise, but got {given!r} alone."
        )
    if scheme is not None and given not in (None, scheme["cpu"]):
        raise ValueError(
            f"{cpu} expected {scheme['cpu']!r}, which the network was trained for, but got {given!r}: leave it out, or"
            f" train with QuantizationAwareTraining(cpu={given!r})."
        )
    why = f"without {int8} nothing is quantized"
    if scheme is not None:
        why = f"the integers, for cpu {scheme['cpu']!r}, are those that the network was trained in"
    idle = [spell(name) for name in options if not (name == "calibrate" and is_kept and scheme is not None)]
    return f"{' and '.join(idle)} change{'s' if len(idle) == 1 else ''} nothing: {why}." if idle else ""
