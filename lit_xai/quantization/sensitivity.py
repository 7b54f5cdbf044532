"""The drop of a metric when a single layer computes in integers, for several numbers of bits in its weights."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lit_xai.network.calling import BatchToInputs, OutputSpec
from lit_xai.network.check import check_integer
from lit_xai.network.metric import LoaderMetric, Metric, metric_name, resolve_direction, same_order
from lit_xai.network.sensitivity import SensitivityTable, select_rows
from lit_xai.network.untouched import fork_rng
from lit_xai.quantization.fake_quantizers import FakeQuantizers, find_fake_quantizers
from lit_xai.quantization.quantization import quantize


class QuantizationSensitivity(SensitivityTable):
    """The result of :func:`quantization_sensitivity`: each row is one layer, ``dense`` the metric in float."""

    columns_title = "bits of the layer's weights"
    reference = "float"

    @property
    def bits(self) -> tuple[int, ...]:
        """The bits of weights in each column."""
        return self.columns

    def to_bits(self, max_drop: float) -> dict[str, int | None]:
        """Return for each layer the fewest bits that cost at most ``max_drop``, ``None`` if all cost more.

        The costs of single layers do not add up: quantized together they cost more. Pass layers with a number as
        ``bits=`` to :func:`~lit_xai.quantization.quantization.quantize`, those with ``None`` as ``ignored_layers=``.

        Args:
            max_drop: in the metric's own unit.

        Raises:
            ValueError: ``max_drop`` is negative or no number.

        Example:
            >>> values = torch.tensor([[0.90, 0.80], [0.89, 0.89], [0.5, 0.4]])
            >>> QuantizationSensitivity((("a",), ("b",), ("c",)), (8, 4), values, 0.9).to_bits(0.02)
            {'a': 8, 'b': 4, 'c': None}
        """
        return {name: min(bits, default=None) for name, bits in self.affordable_columns(max_drop)}


def quantization_sensitivity(
    network: nn.Module,
    loader: Iterable[Any],
    metric: Metric,
    bits: int | Sequence[int] = (8, 4, 2),
    *,
    layers: Iterable[str] | None = None,
    batches: int = 16,
    activations: str = "unsigned",
    ignored_layers: Iterable[str | type] = (),
    higher_is_better: bool | None = None,
    batch_to_inputs: BatchToInputs = None,
    output: OutputSpec = None,
    progress: bool = True,
) -> QuantizationSensitivity:
    """Measure a metric with each layer alone quantized: its weights to each number of bits, its inputs to 8.

    Nothing is trained: BatchNorms are folded, and ranges are observed once, for all cells, on the first batches. The
    network, the metric and every random generator are left unchanged; each measurement uses the same batches. It takes
    ``rows * bits + 1`` passes over the loader, and a few batches for calibration: a loader of a few hundred samples is
    enough.

    Args:
        network: the module to measure.
        loader: yields batches, in the same order each time, on any device.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function that takes a network and
            returns a number.
        bits: of weights, each from 2 to 8; 8 are 8 here, also for CPUs whose runtimes use 7.
        layers: names of the layers to measure; default all that can be quantized.
        batches: how many to observe ranges on.
        activations: see :func:`~lit_xai.quantization.quantization.plan_quantization`.
        ignored_layers: see :func:`~lit_xai.quantization.quantization.plan_quantization`.
        higher_is_better: for metrics without an attribute of that name.
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.
        output: see :func:`~lit_xai.network.calling.find_logits`.
        progress: whether to show a progress bar.

    Raises:
        ValueError: the loader is empty, can be read only once or has no labels, there are no bits or some outside 2 to
            8, a name is no layer that can be quantized, or the metric is not one finite number.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x = torch.randn(16, 4)
        >>> error = lambda changed: (changed(x) - network(x)).abs().mean().item()
        >>> sensitivity = quantization_sensitivity(network, [x], error, (8, 2), higher_is_better=False, progress=False)
        >>> sensitivity.layers, sensitivity.dense < 1e-6
        ((('0',), ('2',)), True)
        >>> (sensitivity.values[:, 0] < sensitivity.values[:, 1]).tolist()  # 8 bits cost less than 2
        [True, True]
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

    bits = _checked_bits(bits)
    upwards = resolve_direction(metric, higher_is_better)
    run = LoaderMetric(loader, metric, batch_to_inputs, "forward", output)
    # All 8 bits of weights; a column of fewer bits sets its own limits below.
    scheme: dict[str, Any] = {"cpu": "vnni", "activations": activations, "ignored_layers": ignored_layers}
    with fork_rng(0), same_order(loader):
        quantized = quantize(
            network, loader, batches=batches, batch_to_inputs=batch_to_inputs, output=output, progress=False, **scheme
        )
    fake_quantizers = find_fake_quantizers(quantized)
    assert fake_quantizers is not None  # quantize() inserts them
    rows = select_rows(_sites_by_layer(fake_quantizers), layers, type(network).__name__, "quantized")
    values = torch.empty(len(rows), len(bits), dtype=torch.float64)
    with tqdm(total=values.numel() + 1, desc="layer sensitivity", disable=not progress, leave=False) as bar:
        # The same copy with its BatchNorms folded, so that cells differ from the reference by quantization alone.
        fake_quantizers.enable_fake_quant_(False)
        dense = run(quantized, "the network in float")
        bar.update()
        for i, ((name,), sites) in enumerate(rows.items()):
            bar.set_postfix_str(name)
            for j, n in enumerate(bits):
                # Ranges stay; only the limits of the integers change, so no new calibration is needed.
                fake_quantizers.enable_fake_quant_only_(sites, n)
                values[i, j] = run(quantized, f"{name} in {n} bits")
                bar.update()
    return QuantizationSensitivity(tuple(rows), bits, values, dense, upwards, metric_name(metric))


def _checked_bits(bits: int | Sequence[int]) -> tuple[int, ...]:
    bits = (bits,) if isinstance(bits, int) else bits
    if not len(bits):
        raise ValueError("bits expected one or more numbers from 2 to 8, but got none.")
    return tuple(check_integer("bits", n, 2, 8) for n in bits)


def _sites_by_layer(fake_quantizers: FakeQuantizers) -> dict[tuple[str, ...], set[str]]:
    """Return for each layer the sites of its weights and of their inputs."""
    by_layer: dict[tuple[str, ...], set[str]] = {}
    for name, site in fake_quantizers.sites.items():
        if site["channels"]:
            by_layer.setdefault((site["layer"],), set()).update({name, site.get("inputs")} & set(fake_quantizers.sites))
    return by_layer
