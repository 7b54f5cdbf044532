"""How much a metric suffers when one layer alone computes in integers, of so many bits in its weights."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lit_xai.network.calling import BatchToInputs, OutputSpec
from lit_xai.network.metric import LoaderMetric, Metric, metric_name, resolve_direction, same_order
from lit_xai.network.sensitivity import SensitivityTable, select_rows
from lit_xai.network.untouched import fork_rng
from lit_xai.quantization.fake_quantizers import FakeQuantizers, find_fake_quantizers
from lit_xai.quantization.quantization import check_scheme, quantize


class QuantizationSensitivity(SensitivityTable):
    """What :func:`quantization_sensitivity` measured: each row is one layer, ``dense`` the metric in float."""

    columns_title = "bits of the layer's weights"
    reference = "float"

    @property
    def bits(self) -> tuple[int, ...]:
        """How many bits each column leaves in weights."""
        return self.columns

    def to_bits(self, max_drop: float) -> dict[str, int | None]:
        """Return for each layer the fewest bits that cost at most ``max_drop``, ``None`` if all cost more.

        What layers cost one by one does not add up: quantised together they cost more. Layers with a number are for
        ``bits=`` of :func:`~lit_xai.quantization.quantization.quantize`, those with none for its ``ignored_layers=``.

        Args:
            max_drop: in the metric's own unit.

        Raises:
            ValueError: it is negative or no number.

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
    """Round the weights of each layer alone to each number of bits, and what it takes to 8; measure a metric.

    Nothing is trained: BatchNorms are folded, and ranges are seen once, for all cells, on the first batches. The
    network, the metric and every random generator are left as they were; each measurement sees the same batches. It
    takes ``rows * bits + 1`` passes over the loader, and a few batches to calibrate: give a loader of a few hundred
    samples.

    Args:
        network: the module to look at.
        loader: yields batches, in the same order each time, on any device.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function that takes a network and
            returns a number.
        bits: of weights, each from 2 to 8; just as many, also where a runtime takes 7 for 8.
        layers: which layers to look at, by name; default all that can be quantised.
        batches: how many to see ranges on.
        activations: see :func:`~lit_xai.quantization.quantization.plan_quantization`.
        ignored_layers: likewise.
        higher_is_better: what the metric does not say itself (its ``higher_is_better``).
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.
        output: see :func:`~lit_xai.network.calling.find_logits`.
        progress: whether to show a progress bar.

    Raises:
        ValueError: the loader is empty, can be read only once or has no labels, there are no bits or some outside 2 to
            8, a name is no layer that can be quantised, or the metric is not one finite number.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x = torch.randn(16, 4)
        >>> error = lambda changed: (changed(x) - network(x)).abs().mean().item()
        >>> found = quantization_sensitivity(network, [x], error, (8, 2), higher_is_better=False, progress=False)
        >>> found.layers, found.dense < 1e-6, (found.values[:, 0] < found.values[:, 1]).tolist()
        ((('0',), ('2',)), True, [True, True])
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

    bits = _checked(bits)
    upwards = resolve_direction(metric, higher_is_better)
    run = LoaderMetric(loader, metric, batch_to_inputs, "forward", output)
    scheme: dict[str, Any] = {"cpu": "vnni", "activations": activations, "ignored_layers": ignored_layers}
    with fork_rng(0), same_order(loader):
        quantized = quantize(
            network, loader, batches=batches, batch_to_inputs=batch_to_inputs, output=output, progress=False, **scheme
        )
    fake_quantizers = find_fake_quantizers(quantized)
    assert fake_quantizers is not None  # of what quantize returns
    rows = select_rows(_rows(fake_quantizers), layers, type(network).__name__, "quantised")
    values = torch.empty(len(rows), len(bits), dtype=torch.float64)
    with tqdm(total=values.numel() + 1, desc="layer sensitivity", disable=not progress, leave=False) as bar:
        fake_quantizers.enable_fake_quant_(False)
        dense = run(quantized, "the network in float")
        bar.update()
        for i, ((name,), sites) in enumerate(rows.items()):
            bar.set_postfix_str(name)
            for j, n in enumerate(bits):
                fake_quantizers.enable_fake_quant_only_(sites, n)
                values[i, j] = run(quantized, f"{name} in {n} bits")
                bar.update()
    return QuantizationSensitivity(tuple(rows), bits, values, dense, upwards, metric_name(metric))


def _checked(bits: int | Sequence[int]) -> tuple[int, ...]:
    bits = (bits,) if isinstance(bits, int) else bits
    if not len(bits):
        raise ValueError("bits expected one or more numbers from 2 to 8, but got none.")
    for n in bits:
        check_scheme(n, "any", "unsigned")
    return tuple(bits)


def _rows(fake_quantizers: FakeQuantizers) -> dict[tuple[str, ...], set[str]]:
    """Return for each layer the sites of its weights and of what they are multiplied with."""
    found: dict[tuple[str, ...], set[str]] = {}
    for name, site in fake_quantizers.sites.items():
        if site["channels"]:
            found.setdefault((site["layer"],), set()).update({name, site["inputs"]} & set(fake_quantizers.sites))
    return found
