"""Agreement of exported files with the network, and the metric of each, in one pass over a loader."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lit_xai.attribution.elements import is_dense, read_form
from lit_xai.network.calling import (
    BatchToInputs,
    BatchToTarget,
    Inputs,
    OutputSpec,
    call_network,
    find_inputs,
    find_labels,
    find_targets,
)
from lit_xai.network.describing import describe
from lit_xai.network.draws import MeanDraws
from lit_xai.network.metric import metric_name, metric_value, same_order
from lit_xai.network.outputs import Found
from lit_xai.network.trees import to_device, with_tensors
from lit_xai.runtime.errors import one_line
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.loaded import caller_of
from lit_xai.runtime.runtimes import load_model

Predictor: TypeAlias = Callable[[Inputs], Tensor]
"""From inputs to logits."""

LEAST_AGREEMENT = 0.99
"""The share of predictions in which an int8 file has to agree with the quantized network it was written from."""

ENOUGH_SAMPLES = 100
"""The number of predictions from which on their share decides."""

ROUNDING = 1.2
"""How far from the network that nothing is rounded in an int8 file may be, relative to how far the quantized network
is: two roundings of one network are equally far from it, but for chance."""

LARGEST_MEAN = 0.02
"""The largest mean difference between the outputs of an int8 file and the network's, relative to the largest output."""


@dataclass(frozen=True)
class Parity:
    """The difference between two predictors.

    Args:
        samples: the number of samples compared.
        predictions: the number of predictions compared: of samples, or of pixels; 0 where nothing is predicted.
        equal: the number of equal predictions.
        largest: the largest difference of two outputs, relative to the largest output.
        mean: the mean difference, relative to the largest output.
    """

    samples: int
    predictions: int
    equal: int
    largest: float
    mean: float

    @property
    def agreement(self) -> float | None:
        """The share of equal predictions."""
        return self.equal / self.predictions if self.predictions else None

    def __str__(self) -> str:
        agreed = "" if self.agreement is None else f", {self.agreement:.2%} of {self.predictions} predictions equal"
        return f"outputs differ by at most {self.largest:.2g} of the largest one, by {self.mean:.2g} on average{agreed}"


@dataclass(frozen=True)
class ParityResult:
    """The result of one pass over a loader.

    Args:
        metrics: of each predictor; empty where there are no labels to compute them with.
        parities: of each pair of predictors that was compared.
        metric: the metric's name.
        classification: whether outputs are scores of classes.
        outputs: the number of outputs per sample (or pixel).
        without_metric: why there are no metrics, in a sentence that names the argument to set; empty where there are.
    """

    metrics: dict[str, float]
    parities: dict[tuple[str, str], Parity]
    metric: str
    classification: bool
    outputs: int
    without_metric: str = ""


class FilePredictor:
    """Runs a file in a runtime on the CPU.

    Args:
        path: of the file.
        threads: the number of threads for the runtime.
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        precision: of floats.

    Raises:
        ModuleNotFoundError: the runtime is not installed.
        ValueError: it does not run the file; or, when called, the file does not take the inputs.
    """

    def __init__(self, path: Path, threads: int = 1, runtime: str = "onnxruntime", precision: str = "f32") -> None:
        self._path, self._model = path, load_model(path, runtime, threads, precision)

    @property
    def sizes(self) -> dict[str, list[int | None]]:
        """The shapes that the file takes by name; ``None`` for a dimension of any size."""
        return {name: [*spec.shape] for name, spec in self._model.inputs.items()}

    def __call__(self, inputs: Inputs) -> Tensor:
        """Return the logits."""
        (logits,) = caller_of(self._model, self._path.name, inputs)()
        return torch.from_numpy(logits)


OnnxPredictor = FilePredictor
"""The former name, of when there was one runtime."""


def in_float(inputs: Inputs) -> Inputs:
    """Return inputs on the CPU with floats in float32, as the files take them.

    Example:
        >>> in_float({"image": torch.zeros(1, dtype=torch.bfloat16), "flip": True})
        {'image': tensor([0.]), 'flip': True}
    """
    converted: Inputs = with_tensors(inputs, named_tensors(inputs).values())
    return converted


def network_predictor(network: nn.Module, output: OutputSpec = None) -> Predictor:
    """Return a network in eval mode as a predictor; random numbers that it draws are at their means, as in files."""

    def predict(inputs: Inputs) -> Tensor:
        with MeanDraws():
            return call_network(network, inputs, output=output)

    return predict


def measure_parity(
    predictors: Mapping[str, Predictor],
    pairs: Iterable[tuple[str, str]],
    loader: Iterable[Any],
    network: nn.Module,
    metric: Any = None,
    batch_to_inputs: BatchToInputs = None,
    progress: bool = True,
    batch_to_target: BatchToTarget = None,
) -> ParityResult:
    """Run every predictor on every batch, compute a metric of each, and compare pairs of them.

    Integer labels with one score per class make it a classification: predictions are the largest scores, at each place
    where there are several, and the default metric is accuracy. Labels of the outputs' own shape, if integers, are
    predicted by the outputs' signs. Without labels predictions are the largest scores and there is no metric; with
    labels in float there are none.

    Args:
        predictors: by name.
        pairs: names of predictors to compare, the reference second.
        loader: yields batches; read once.
        network: finds inputs and labels in a batch.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function of all logits and labels
            that returns a number.
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.
        progress: whether to show a progress bar, on a terminal.
        batch_to_target: see :func:`~lit_xai.network.calling.find_labels`.

    Raises:
        ValueError: the loader is empty, an output is not finite, or the metric is no number.
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

    tallies = {pair: _Tally() for pair in pairs}
    meters = {name: _Meter(metric) for name in predictors}
    task: _Task | None = None
    total = len(loader) if isinstance(loader, Sized) else None
    # The bar does not wrap the loader: tqdm would start a second iterator of it, and its workers.
    # disable=None hides it where there is no terminal, whose log it would fill with lines.
    bar = tqdm(total=total, desc="comparing the exported files", disable=None if progress else True, leave=False)
    with bar, same_order(loader), torch.no_grad():
        for batch in loader:
            batch = to_device(batch, torch.device("cpu"))
            inputs = in_float(find_inputs(batch, network, batch_to_inputs))
            # A metric of one's own may take any labels, such as a detector's boxes.
            targets = (find_labels if metric is None else find_targets)(batch, network, "forward", batch_to_target)
            labels = targets if isinstance(targets, Tensor) else None
            logits = {name: _finite(predict(inputs), name) for name, predict in predictors.items()}
            first = next(iter(logits.values()))
            dimension = _class_dim(first, labels, network, inputs)
            task = task or _Task(first, labels, describe(batch), dimension, targets is not None)
            for name, meter in meters.items():
                meter.update(logits[name], targets, task)
            for (left, right), tally in tallies.items():
                tally.update(logits[left], logits[right], task)
            bar.update()
    if task is None:
        raise ValueError("loader expected one or more batches, but got none.")
    metrics = {name: value for name, meter in meters.items() if (value := meter.compute()) is not None}
    parities = {pair: tally.compute() for pair, tally in tallies.items()}
    name = "accuracy" if metric is None else metric_name(metric)
    why = "" if metrics else task.without(name)
    return ParityResult(metrics, parities, name, task.classification, task.outputs, why)


class _Task:
    """The kind of task, inferred from the first batch."""

    def __init__(
        self, logits: Tensor, labels: Tensor | None, batch: str, class_dim: int = 1, has_labels: bool = True
    ) -> None:
        self._has_labels, self._batch, self._class_dim = has_labels, batch, class_dim
        # With one output, integer labels are those of a binary task: the sign of the logit decides.
        whole = labels is not None and not labels.is_floating_point()
        # Tokens may be labeled by those that follow them, of which only the loss knows.
        self.has_accuracy = class_dim == 1
        self.outputs = logits.size(class_dim) if logits.dim() > 1 else 1
        self.by_sign = whole and labels is not None and (labels.shape == logits.shape or self.outputs == 1)
        self.classification = not self.by_sign and self.outputs > 1 and (labels is None or whole)

    def without(self, metric: str) -> str:
        """Return why there is no metric, and what to do about it."""
        if not self._has_labels:
            return (
                f"There is no {metric}: no labels were found in a batch of {self._batch}. Name them with"
                " batch_to_target=, as a key, an index or a function."
            )
        return (
            f"There is no {metric}: the labels are no classes of the outputs. Give metric= a torchmetrics.Metric or a"
            " function of logits and labels."
        )

    def predictions(self, logits: Tensor) -> Tensor | None:
        if self.by_sign:
            return (logits > 0).flatten(1) if logits.dim() > 1 else logits > 0
        return logits.argmax(self._class_dim) if self.classification else None


def _class_dim(logits: Tensor, labels: Tensor | None, network: nn.Module, inputs: Inputs) -> int:
    """Return the dimension of the classes: of ``(N, tokens, classes)`` the last."""
    return read_form(Found(logits), logits, network, inputs, labels).class_dim if is_dense(logits) else 1


class _Meter:
    """The metric of one predictor."""

    def __init__(self, metric: Any) -> None:
        # A copy for each predictor, so that their states stay apart and the user's metric is left unchanged.
        self._metric = copy.deepcopy(metric).cpu() if hasattr(metric, "update") else metric
        if hasattr(metric, "update"):
            self._metric.reset()
        self._correct = self._total = 0
        self._collected: list[tuple[Tensor, Any]] = []

    def update(self, logits: Tensor, labels: Any, task: _Task) -> None:
        if labels is None:
            return
        if hasattr(self._metric, "update"):
            with self._refusing(logits, labels):
                self._metric.update(logits, labels)
        # A plain function has no state to accumulate in: it gets everything at the end.
        elif self._metric is not None:
            self._collected.append((logits, labels))
        elif (
            task.has_accuracy
            and (predictions := task.predictions(logits)) is not None
            and (predictions.numel() == labels.numel())
        ):
            self._correct += int((predictions.flatten() == labels.flatten()).sum())
            self._total += labels.numel()

    def compute(self) -> float | None:
        if self._metric is None:
            return self._correct / self._total if self._total else None
        if hasattr(self._metric, "update"):
            return metric_value(self._metric.compute()) if self._metric.update_called else None
        if not self._collected:
            return None
        logits, labels = zip(*self._collected, strict=True)
        of_all = torch.cat(labels) if isinstance(labels[0], Tensor) else [one for part in labels for one in part]
        with self._refusing(logits[0], labels[0]):
            value = self._metric(torch.cat(logits), of_all)
        return metric_value(value)

    @contextlib.contextmanager
    def _refusing(self, logits: Tensor, labels: Any) -> Iterator[None]:
        """Turn what somebody's metric raises into a sentence that names it and what it was given."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"metric={metric_name(self._metric)} failed on logits {describe(logits)} and labels {describe(labels)}:"
                f" {type(error).__name__}: {one_line(error)}."
            ) from error


class _Tally:
    """Accumulates the difference between two predictors."""

    def __init__(self) -> None:
        self.samples = self.predictions = self.equal = self.numbers = 0
        self.largest = self.total = self.scale = 0.0

    def update(self, logits: Tensor, reference: Tensor, task: _Task) -> None:
        if logits.shape != reference.shape:
            raise ValueError(f"The files' outputs differ in shape: {[*logits.shape]} and {[*reference.shape]}.")
        # In float64, so that the difference itself is not rounded.
        apart = (logits.double() - reference.double()).abs()
        self.largest = max(self.largest, float(apart.max()))
        self.scale = max(self.scale, float(reference.abs().max()))
        self.total += float(apart.sum())
        self.numbers += apart.numel()
        self.samples += len(logits)
        predictions, expected = task.predictions(logits), task.predictions(reference)
        if predictions is not None and expected is not None:
            self.equal += int((predictions == expected).sum())
            self.predictions += predictions.numel()

    def compute(self) -> Parity:
        # Relative to the largest output of the whole loader, which no single small output can inflate.
        scale = self.scale or 1.0
        mean = self.total / self.numbers / scale
        return Parity(self.samples, self.predictions, self.equal, self.largest / scale, mean)


def _finite(logits: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"Outputs expected finite numbers, but got NaN or infinity from {name}.")
    return logits.detach()


def check_float(parity: Parity, tolerance: float, name: str = "model.onnx") -> None:
    """Refuse a float file whose outputs differ from the network's by more than ``tolerance`` of the largest one.

    Args:
        parity: of the file and the network.
        tolerance: relative to the largest output.
        name: of the file, and of the runtime where it is not ONNX Runtime.

    Raises:
        ValueError: the outputs differ by more.

    Example:
        >>> check_float(Parity(100, 100, 100, 2e-7, 1e-8), 1e-3)
    """
    # `not <=` rather than `>`, so that NaN is refused too.
    if not parity.largest <= tolerance:
        raise ValueError(f"{name} expected what the network computes, within {tolerance:g}, but {parity}.")


def check_bfloat16(parity: Parity, name: str) -> str | None:
    """Return a warning where floats in bfloat16 predict something else than the network in more than 1% of the cases.

    Example:
        >>> check_bfloat16(Parity(1000, 1000, 996, 0.011, 0.001), "model.onnx in OpenVINO in bf16")
        >>> check_bfloat16(Parity(1000, 1000, 970, 0.11, 0.01), "model.onnx in OpenVINO in bf16")
        'model.onnx in OpenVINO in bf16 and the network: outputs differ by at most 0.11 of the largest one, by 0.01 on
        average, 97.00% of 1000 predictions equal.'
    """
    agreed = parity.agreement
    return f"{name} and the network: {parity}." if agreed is not None and agreed < LEAST_AGREEMENT else None


@dataclass(frozen=True)
class Rounding:
    """How far rounding takes a network and its int8 file from the same weights without any.

    Args:
        network: the difference between the quantized network and itself without rounding.
        file: the difference between the int8 file and that.
    """

    network: Parity
    file: Parity

    @property
    def explains(self) -> bool:
        """Whether the file is as near to what is not rounded as the quantized network is.

        A rounded value that differs by a step makes others differ behind it: after some thirty layers the file and the
        network may be two independent roundings, whose predictions differ wherever the network is undecided. An error
        in the file comes on top of what rounding does.
        """
        wrong = [0 if one.agreement is None else 1 - one.agreement for one in (self.network, self.file)]
        return self.file.mean <= ROUNDING * self.network.mean and wrong[1] <= ROUNDING * wrong[0]


def check_int8(
    parity: Parity, rounding: Callable[[], Rounding] | None = None, name: str = "model.int8.onnx"
) -> str | None:
    """Refuse an int8 file that does not predict what the fake-quantized network does; return a warning if in doubt.

    Single outputs may differ by a quantization step, since an activation halfway between two integers is rounded to
    either side. So the limit is 99% equal predictions, if there are 100 or more; with fewer, and where nothing is
    predicted, a mean difference of 2% of the largest output. Beyond it, a file passes with a warning if it is as near
    to the network without rounding as the quantized one is, :attr:`Rounding.explains`: one hardly trained, or that
    quantizes badly.

    Args:
        parity: of the file and the network.
        rounding: measures what rounding does; called beyond the limit.
        name: of the file, and of the runtime where it is not ONNX Runtime.

    Returns:
        A warning where less than 99% of the predictions are equal.

    Raises:
        ValueError: the difference is beyond the limit, and rounding does not explain it.

    Example:
        >>> check_int8(Parity(1000, 1000, 996, 0.011, 0.001))
    """
    agreed, enough = parity.agreement, parity.predictions >= ENOUGH_SAMPLES
    wrong = agreed is not None and agreed < LEAST_AGREEMENT
    told = f"{name} and the quantized network: {parity}"
    if (wrong and enough) or (not enough and not parity.mean <= LARGEST_MEAN):
        measured = None if rounding is None else rounding()
        if measured is not None and measured.explains:
            return f"{told}. Quantization itself changes as much: {measured.network}."
        limit = f"{LEAST_AGREEMENT:.0%} equal predictions" if enough else f"a mean difference of {LARGEST_MEAN:g}"
        raise ValueError(f"{name} expected what the quantized network computes, within {limit}, but {parity}.")
    return f"{told}." if wrong else None
