"""From weights to files: what :class:`~lit_xai.callbacks.ModelExport` and ``lit-xai export`` have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from torch import nn

from lit_xai.attribution.evaluation import DataInfo
from lit_xai.export.weights import Weights, calibration_batches, evaluation_batches
from lit_xai.network.copying import uncompiled_
from lit_xai.network.spec import Network
from lit_xai.network.untouched import fork_rng
from lit_xai.quantization.quantization import is_quantized, quantize
from lit_xai.quantization.steps import Quantize
from lit_xai.trainer.access import is_a, without_log

if TYPE_CHECKING:
    from lit_xai.export import ExportReport

BATCH = 64
"""How many samples ranges are observed on at a time."""


@dataclass(frozen=True)
class Exporter:
    """How weights become files.

    Args:
        network: what is exported, and how it is called.
        data_info: what the files say of the data: class names, normalisation.
        metric: see :func:`lit_xai.export.export_model`.
        int8: whether to quantise what was not trained for it.
        calibrate: on how many training samples.
        cpu: that the integers are for.
        threads: of ONNX Runtime.
        program: whether to write a ``torch.export`` program too.
    """

    network: Network = field(default_factory=Network)
    data_info: DataInfo = field(default_factory=DataInfo)
    metric: Any = None
    int8: bool = False
    calibrate: int = 512
    cpu: str = "any"
    threads: int = 1
    program: bool = True

    def export(
        self, trainer: Trainer, weights: Weights, before: Weights | None, folder: Path, overwrite: bool
    ) -> "ExportReport":
        """Write the files, and return what came of it; nothing else is changed, random generators included.

        Args:
            trainer: whose data they are compared on.
            weights: the final ones.
            before: those just before they were trained in integers, if they were.
            folder: where the files are to lie.
            overwrite: whether some may lie there.

        Raises:
            ValueError: the network cannot be exported, or there are no data; says why.
        """
        from lit_xai.export import export_model

        with fork_rng(0, {trainer.strategy.root_device}), without_log(weights.pl_module):
            variants, source = self._variants(trainer, weights, before)
            batches = evaluation_batches(trainer)
            on = {"val": "validation", "test": "test", "train": "training"}[batches.name]
            data_info = self._data_info(trainer)
            return export_model(
                variants.pop("network"),
                batches,
                folder.absolute(),
                **variants,
                metric=self.metric,
                classes=data_info.class_names,
                mean=data_info.mean,
                std=data_info.std,
                recipe=weights.recipe.to_dict(),
                source=f"{source}; compared on the {on} data",
                batch_to_inputs=self.network.batch_to_inputs,
                output=self.network.output,
                overwrite=overwrite,
                threads=self.threads,
                program=self.program,
                progress=end_progress(trainer),
            )

    def _variants(self, trainer: Trainer, weights: Weights, before: Weights | None) -> tuple[dict[str, Any], str]:
        """Return the networks of an export by their arguments' names, and where their weights come from."""
        network = self._network(weights)
        if not is_quantized(network):
            ptq = {"ptq": self._quantized(trainer, weights)} if self.int8 else {}
            return {"network": network, **ptq}, weights.source
        variants: dict[str, Any] = {"quantized": network}
        if before is None:
            before, said = weights.as_before(Quantize.name), "the same weights, not rounded"
        else:  # only then it says what training was good for
            said = variants["float_source"] = before.source
            variants["ptq"] = self._quantized(trainer, before, weights.recipe.steps[-1])
        return {"network": self._network(before), **variants}, f"{weights.source}; in float: {said}"

    def _network(self, weights: Weights) -> nn.Module:
        """Return the network in a copy of the module, and the parts of it that were compiled as they are without."""
        return uncompiled_(self.network.of(weights.pl_module))

    def _quantized(self, trainer: Trainer, weights: Weights, step: dict[str, Any] | None = None) -> nn.Module:
        """Quantise after training, by the scheme that a step was taken with."""
        network = self._network(weights)
        scheme = {"cpu": self.cpu} if step is None else _scheme(step, self.network.prefix(weights.pl_module))
        batches = calibration_batches(trainer, network, self.network, self.calibrate)
        return quantize(
            network,
            batches,
            batches=len(batches),
            batch_to_inputs=self.network.batch_to_inputs,
            output=self.network.output,
            progress=False,
            **scheme,
        )

    def _data_info(self, trainer: Trainer) -> DataInfo:
        data_info = self.data_info.completed_by(getattr(trainer, "datamodule", None))
        names = getattr(trainer.lightning_module, "class_names", None)
        # Not its mean and std: a module that has them normalises by itself.
        if data_info.class_names is None and isinstance(names, (list, tuple)):
            return replace(data_info, class_names=list(names))
        return data_info


def _scheme(step: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the arguments of :func:`quantize` that a step was planned with, for a network of another name."""
    plan = step["plan"]
    inside = f"{step['module']}.".removeprefix(prefix) if step["module"] else ""
    scheme = dict(plan["scheme"])
    if isinstance(scheme["bits"], dict):
        scheme["bits"] = {inside + pattern: bits for pattern, bits in scheme["bits"].items()}
    return scheme | {"ignored_layers": [inside + name for name in plan["float_layers"]]}


def end_progress(trainer: Trainer) -> bool:
    """Whether an export may draw a bar of its own; ends Lightning's first, where that holds on to the terminal.

    That of rich puts every line that others write above its own, where none can be drawn over.
    """
    bar: Any = trainer.progress_bar_callback
    if is_a(bar, "RichProgressBar"):
        bar.teardown(trainer, trainer.lightning_module, "fit")  # as Lightning is about to; once more does no harm
    return bar is not None


def check_asked(
    asked: Mapping[str, Any], scheme: Mapping[str, Any] | None, is_kept: bool, spelled: Callable[[str], str] = str
) -> str:
    """Refuse what was asked of integers where others are written, or none; return a sentence on what changes nothing.

    Args:
        asked: ``int8``, ``cpu`` and ``calibrate``, those that were asked for.
        scheme: that the network was trained for, ``None`` where it was not.
        is_kept: whether the weights of before that training are there, and are quantised for comparison.
        spelled: how an argument is written.

    Returns:
        Empty where everything asked for is done.

    Raises:
        ValueError: ``cpu`` is another than the network was trained for, or nothing is quantised for it.

    Example:
        >>> check_asked({"calibrate": 64}, None, False)
        'calibrate changes nothing: without int8 nothing is quantised.'
        >>> check_asked({"int8": True, "cpu": "vnni"}, {"cpu": "any"}, False)
        Traceback (most recent call last):
        ...
        ValueError: cpu expected 'any', which the network was trained for, but got 'vnni': leave it out, or ...
    """
    cpu, int8, given = spelled("cpu"), spelled("int8"), asked.get("cpu")
    if scheme is None and asked.get("int8"):
        return ""
    if scheme is None and given not in (None, "any"):
        raise ValueError(f"{cpu} expected {int8} beside it, as nothing is quantised without, but got {given!r} alone.")
    if scheme is not None and given not in (None, scheme["cpu"]):
        raise ValueError(
            f"{cpu} expected {scheme['cpu']!r}, which the network was trained for, but got {given!r}: leave it out, or"
            f" train with QuantizationAwareTraining(cpu={given!r})."
        )
    why = f"without {int8} nothing is quantised"
    if scheme is not None:
        why = f"the integers, for cpu {scheme['cpu']!r}, are those that the network was trained in"
    idle = [spelled(name) for name in asked if not (name == "calibrate" and is_kept and scheme is not None)]
    return f"{' and '.join(idle)} change{'s' if len(idle) == 1 else ''} nothing: {why}." if idle else ""
