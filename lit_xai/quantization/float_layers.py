"""The fewest layers to leave in float for a quantized network to lose no more of a metric than it may."""

import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lit_xai.network.calling import BatchToInputs, Inputs, OutputSpec, call_network, find_inputs, find_labels
from lit_xai.network.check import is_number, refusal
from lit_xai.network.copying import copy_network
from lit_xai.network.describing import describe
from lit_xai.network.metric import (
    LoaderMetric,
    Metric,
    check_rereadable,
    first_batch,
    metric_name,
    resolve_direction,
    same_order,
)
from lit_xai.network.profiling import batch_size, count_samples
from lit_xai.network.rows import take
from lit_xai.network.trees import to_device
from lit_xai.network.untouched import fork_rng, untouched
from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.partly import Calls, Part, PartlyQuantized, noise_alone
from lit_xai.quantization.quantization import quantize

RANKING_SAMPLES = 64
"""The number of samples on which the noise of each layer alone is measured."""

Measure = Callable[[nn.Module, str], float]
"""From a network and its description to its metric."""


@dataclass(frozen=True)
class FloatLayers:
    """The layers that were left in float, and what that gained.

    Args:
        layers: their names, as ``ignored_layers`` takes them.
        value: the metric with these in float and all others in integers.
        reference: the metric with all in float.
        quantized: the metric with none of them in float.
        max_drop: how much of the metric may be lost; in the metric's own unit.
        metric: its name.
        higher_is_better: whether a higher value is a better one.
        measured: each set of layers that was measured, and the metric with it in float.
        is_complete: whether the search ended by itself, rather than at the end of its time.
    """

    layers: tuple[str, ...]
    value: float
    reference: float
    quantized: float
    max_drop: float
    metric: str = "metric"
    higher_is_better: bool = True
    measured: tuple[tuple[tuple[str, ...], float], ...] = ()
    is_complete: bool = True

    @property
    def drop(self) -> float:
        """How much of the metric is lost against float."""
        return _drop(self.value, self.reference, self.higher_is_better)

    @property
    def is_reached(self) -> bool:
        """Whether that is no more than may be lost."""
        return is_within(self.value, self.reference, self.max_drop, self.higher_is_better)

    def __str__(self) -> str:
        values = f"{self.metric} {self.value:.4g} (float {self.reference:.4g}, all in integers {self.quantized:.4g})"
        if not self.layers:
            what = "No layer is left in float"
        else:
            what = f"{len(self.layers)} layer{'s' * (len(self.layers) > 1)} left in float, {ignored_line(self.layers)}"
        if self.is_reached:
            return f"{what}: {values}."
        return (
            f"{what}: {values}. That is a drop of {self.drop:.4g}, more than max_drop={self.max_drop:g}: no set of"
            " layers that was tried loses less."
        )


def ignored_line(layers: Iterable[str]) -> str:
    """Return the argument that leaves layers in float; its list is valid in Python and in YAML.

    Example:
        >>> ignored_line(["stem", "blocks.0.conv"])
        'ignored_layers=["stem", "blocks.0.conv"]'
    """
    return f"ignored_layers={json.dumps([*layers], ensure_ascii=False)}"


def check_max_drop(max_drop: Any) -> float | None:
    """Return ``max_drop`` if it is ``None`` or a number of at least 0.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_max_drop(-1)
        Traceback (most recent call last):
        ...
        ValueError: max_drop expected a number of at least 0, or None, but got -1.
    """
    if max_drop is not None and (not is_number(max_drop) or not max_drop >= 0):  # also refuses NaN
        raise refusal("max_drop", "a number of at least 0, or None", max_drop)
    return None if max_drop is None else float(max_drop)


def is_within(value: float, reference: float, max_drop: float, upwards: bool = True) -> bool:
    """Return whether a metric lost no more than it may.

    Example:
        >>> is_within(0.88, 0.90, 0.02), is_within(0.88, 0.90, 0.01), is_within(0.88, 0.90, 0.0, upwards=False)
        (True, False, True)
    """
    # 0.90 - 0.88 is a little more than 0.02 in floating point.
    return _drop(value, reference, upwards) <= max_drop + 1e-9 * max(1.0, abs(reference))


def _drop(value: float, reference: float, upwards: bool) -> float:
    return reference - value if upwards else value - reference


class FloatSearch:
    """Leaves one layer after the other in float, that which adds most noise first, until a metric loses little enough.

    After each the noise is measured anew, as the next layer may now be the one that a bad tensor is quantized for. In
    the end each layer without which the metric is still within the limit goes back to integers.

    Args:
        parts: the quantized network.
        measure: the metric of a network.
        inputs: what the noise of each layer is measured on.
        output: the logits in the network's output.
        higher_is_better: whether a higher value of the metric is a better one.
    """

    def __init__(
        self,
        parts: PartlyQuantized,
        measure: Measure,
        inputs: Sequence[Inputs],
        output: OutputSpec = None,
        higher_is_better: bool = True,
    ) -> None:
        self._parts, self._measure, self._inputs, self._output = parts, measure, inputs, output
        self._upwards = higher_is_better
        self._noise: dict[Any, float] = {}
        self.whole = parts.without()
        self.values: dict[tuple[str, ...], float] = {}

    def noise(self, part: Part) -> dict[str, float]:
        """Return the noise in the logits of each layer alone, the worst first."""
        noise = noise_alone(part, self._inputs, self._output, self._noise)
        # Layers of equal noise in the order of the network: sorted() keeps it.
        return dict(sorted(noise.items(), key=lambda entry: -entry[1]))

    def value(self, layers: tuple[str, ...], part: Part | None = None) -> float:
        """Return the metric with some layers in float, which is measured once."""
        if layers not in self.values:
            network = (part or self._parts.without(layers)).network
            self.values[layers] = self._measure(network, f"the quantized network with {list(layers)} in float")
        return self.values[layers]

    def reference(self) -> float:
        """Return the metric with all layers in float."""
        network = copy_network(self.whole.network)
        fake_quantizers = find_fake_quantizers(network)
        assert fake_quantizers is not None
        fake_quantizers.enable_fake_quant_(False)
        return self._measure(network, "the network in float")

    def run(
        self, max_drop: float, reference: float, metric: str, progress: bool = True, seconds: float | None = None
    ) -> FloatLayers:
        """Return the fewest layers that this order finds.

        Args:
            max_drop: how much of the metric may be lost; in the metric's own unit.
            reference: the metric in float.
            metric: its name.
            progress: whether to show a progress bar.
            seconds: when to stop with the best that was found; default when all has been tried.
        """
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

        end = None if seconds is None else time.monotonic() + seconds
        total = len(self.whole.layers)
        with tqdm(total=total, desc="layers in float", disable=None if progress else True, leave=False) as bar:
            chosen = self._grow(self.whole, max_drop, reference, end, bar)
            if self._is_within(chosen, max_drop, reference):
                chosen = self._shrink(chosen, max_drop, reference, end, bar)
            is_complete = end is None or time.monotonic() < end
        if not self._is_within(chosen, max_drop, reference):
            chosen = self.best()
        return FloatLayers(
            chosen,
            self.value(chosen),
            reference,
            self.value(()),
            max_drop,
            metric,
            self._upwards,
            tuple(self.values.items()),
            is_complete,
        )

    def _grow(self, part: Part, max_drop: float, reference: float, end: float | None, bar: Any) -> tuple[str, ...]:
        layers: tuple[str, ...] = ()
        self.value(layers, part)
        while not self._is_within(layers, max_drop, reference) and (end is None or time.monotonic() < end):
            # The network's own weights have no layer that could be named.
            worst = next((layer for layer in self.noise(part) if layer), None)
            if worst is None or len(part.layers) < 2:  # something has to be left in integers
                break
            more = (*layers, worst)
            try:
                part = self._parts.without(more)
            except ValueError:
                break
            if not part.layers:
                break
            layers = more
            self.value(layers, part)
            bar.set_postfix_str(f"{worst}: {self.values[layers]:.4g}")
            bar.update()
        return layers

    def _shrink(
        self, layers: tuple[str, ...], max_drop: float, reference: float, end: float | None, bar: Any
    ) -> tuple[str, ...]:
        # Not the last one, without which the metric was measured before.
        for layer in layers[:-1]:
            if end is not None and time.monotonic() >= end:
                break
            fewer = tuple(one for one in layers if one != layer)
            bar.set_postfix_str(f"without {layer}")
            self.value(fewer)
            if self._is_within(fewer, max_drop, reference):
                layers = fewer
        return layers

    def _is_within(self, layers: tuple[str, ...], max_drop: float, reference: float) -> bool:
        return is_within(self.value(layers), reference, max_drop, self._upwards)

    def best(self, most: int | None = None) -> tuple[str, ...]:
        """Return the best set that was measured, of equal ones the smallest; of at most so many layers."""
        sign = -1 if self._upwards else 1
        few = [layers for layers in self.values if most is None or len(layers) <= most]
        return min(few, key=lambda layers: (sign * self.values[layers], len(layers)))


def ranking_inputs(calls: Calls, network: nn.Module, output: OutputSpec = None) -> list[Inputs]:
    """Return the inputs of a few samples, for :func:`~lit_xai.quantization.partly.noise_alone`.

    Example:
        >>> [len(one) for one in ranking_inputs(lambda: [torch.zeros(48, 4)] * 3, nn.Linear(4, 2))]
        [48, 16]
    """
    some, left = [], RANKING_SAMPLES
    for inputs in calls():
        n = batch_size(inputs)
        with untouched(network), torch.no_grad():
            is_cut = n > left and count_samples(network, inputs, output=output) is not None
        some.append(take(inputs, range(left), n) if is_cut else inputs)
        left -= max(n, 1)
        if left <= 0:
            break
    return some


def accuracy_of(
    network: nn.Module, batch: Any, batch_to_inputs: BatchToInputs = None, output: OutputSpec = None
) -> Any:
    """Return the accuracy as a ``torchmetrics.Metric``, for a network whose logits and labels are those of classes.

    Raises:
        ValueError: the batch has no such labels.
    """
    from torchmetrics.classification import MulticlassAccuracy

    inputs, labels = find_inputs(batch, network, batch_to_inputs), find_labels(batch, network)
    with untouched(network), torch.no_grad():
        logits = call_network(network, inputs, output=output)
    classes = logits.size(1) if logits.dim() > 1 else 1
    if labels is None or labels.is_floating_point() or classes < 2 or labels.shape != logits[:, 0].shape:
        raise ValueError(
            "metric expected a torchmetrics.Metric or a function of the network, as there are no labels of classes in"
            f" {describe(batch)}, but got None."
        )
    metric: Any = MulticlassAccuracy(classes, average="micro")
    return metric


def quantize_within(
    network: nn.Module,
    loader: Iterable[Any],
    max_drop: float,
    *,
    metric: Metric | None = None,
    higher_is_better: bool | None = None,
    batches: int = 16,
    batch_to_inputs: BatchToInputs = None,
    output: OutputSpec = None,
    progress: bool = True,
    **scheme: Any,
) -> tuple[nn.Module, FloatLayers]:
    """Quantize with as few layers in float as it takes for a metric to drop by no more than it may.

    Args:
        network: the module to copy.
        loader: yields batches, the same each time: ranges are observed on the first, the metric is measured on all.
        max_drop: how much the metric may be worse than in float; in its own unit.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function that takes a network and
            returns a number; default the accuracy.
        higher_is_better: for metrics without an attribute of that name.
        batches: how many batches to observe ranges on.
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.
        output: see :func:`~lit_xai.network.calling.find_logits`.
        progress: whether to show progress bars.
        scheme: further arguments of :func:`~lit_xai.quantization.quantization.quantize`.

    Returns:
        The network, and what was left in float.

    Warns:
        UserWarning: no set of layers that was tried is within the limit; the best one is left in float.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> loader = [(torch.randn(16, 4), torch.randint(3, (16,)))]
        >>> quantize_within(network, loader, max_drop=1.0, progress=False)[1].layers
        ()
    """
    limit = check_max_drop(max_drop)
    assert limit is not None
    check_rereadable(loader)
    with fork_rng(0), same_order(loader):
        quantized = quantize(
            network,
            loader,
            batches=batches,
            batch_to_inputs=batch_to_inputs,
            output=output,
            progress=progress,
            **scheme,
        )
    device = next((t.device for t in (*quantized.parameters(), *quantized.buffers())), torch.device("cpu"))

    def calls() -> Iterable[Inputs]:
        with fork_rng(0), same_order(loader):
            some = [to_device(batch, device) for batch in itertools.islice(loader, batches)]
        return [find_inputs(batch, quantized, batch_to_inputs) for batch in some]

    if metric is None:
        metric = accuracy_of(quantized, first_batch(loader, device), batch_to_inputs, output)
        name = "accuracy"
    else:
        name = metric_name(metric)
    upwards = resolve_direction(metric, higher_is_better)
    measure = LoaderMetric(loader, metric, batch_to_inputs, "forward", output)
    parts = PartlyQuantized(quantized, calls, output)
    search = FloatSearch(parts, measure, ranking_inputs(calls, quantized, output), output, upwards)
    found = search.run(limit, search.reference(), name, progress)
    if not found.is_reached:
        warnings.warn(f"quantize: {found}", UserWarning, stacklevel=3)
    return parts.without(found.layers).network, found
