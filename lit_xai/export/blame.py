"""The layers of an int8 file that cost most: how noisy each is in the runtime, and what each alone in float gains."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_xai.export.layer_blame import SECONDS, BlamedLayer, LayerBlame
from lit_xai.export.layer_noise import layer_noise, signal_to_noise, unrounded_weights
from lit_xai.export.parity import Parity, ParityResult, Predictor, in_float, network_predictor
from lit_xai.export.variants import FLOAT_ROW, INT8, INT8_ROW, Variants
from lit_xai.network.calling import BatchToInputs, Inputs, OutputSpec, call_network, find_inputs
from lit_xai.network.metric import resolve_direction, same_order
from lit_xai.network.profiling import batch_size, count_samples
from lit_xai.network.rows import take
from lit_xai.network.trees import to_device
from lit_xai.network.untouched import fork_rng, untouched
from lit_xai.quantization.fake_quantizers import NAME
from lit_xai.quantization.float_layers import FloatSearch, ranking_inputs
from lit_xai.quantization.partly import Calls, PartlyQuantized
from lit_xai.render.blame import NoiseRow, blame_figure
from lit_xai.render.png import save_png
from lit_xai.runtime.errors import describe_cause

WORST = 5
"""The number of layers whose metric alone in float is measured."""

SMALL = 1e-3
"""A relative difference of a metric that is none, where nothing is known about chance."""

BATCHES = 4
"""The number of batches that tensors are observed on that need a range of their own once a layer is in float."""

ROWS = 8
"""The number of samples in one call: the outputs of all layers are held at once."""


def chance_of(parity: Parity) -> float:
    """Return the largest difference of two accuracies that may be chance: two standard errors.

    Of two networks that predict alike but for a few samples only these count, each right or wrong by chance.

    Args:
        parity: of the two networks.

    Example:
        >>> chance_of(Parity(400, 400, 400, 0.0, 0.0)), chance_of(Parity(400, 400, 396, 0.0, 0.0))
        (0.0, 0.01)
    """
    return 2 * math.sqrt(parity.predictions - parity.equal) / parity.predictions if parity.predictions else 0.0


def first_calls(loader: Iterable[Any], network: nn.Module, batch_to_inputs: BatchToInputs = None) -> Calls:
    """Return a function that yields the inputs of a loader's first batches, on the CPU and in float32."""

    def calls() -> list[Inputs]:
        with fork_rng(0), same_order(loader):
            batches = [to_device(batch, torch.device("cpu")) for batch in itertools.islice(loader, BATCHES)]
        return [in_float(find_inputs(batch, network, batch_to_inputs)) for batch in batches]

    return calls


def write_blame(blame: LayerBlame, folder: Path) -> None:
    """Write ``layers.md`` and ``layers.png``."""
    text = f"# Layers in integers\n\n{blame}\n\n{blame.table()}\n"
    note = f"Noise is measured on {blame.samples} samples, in ONNX Runtime and, of one layer alone, in torch."
    (folder / "layers.md").write_text(f"{text}\n{note}\n", encoding="utf-8")
    rows = [
        NoiseRow(one.name, one.alone, one.snr, "" if one.value is None else f"{one.value:.4f}") for one in blame.layers
    ]
    title = "Noise of each layer in integers"
    if blame.reference is not None and blame.quantized is not None:
        title += f"\n{blame.metric} {blame.quantized:.4g} in int8, {blame.reference:.4g} in float"
    save_png(blame_figure(rows, title, f"{blame.metric}, the layer alone in float"), folder / "layers.png")


def blame_layers(
    quantized: nn.Module,
    path: Path,
    calls: Calls,
    *,
    measure: Callable[[nn.Module], float | None] | None = None,
    metric: Any = None,
    metric_name: str = "accuracy",
    reference: float | None = None,
    value: float | None = None,
    chance: float | None = None,
    output: OutputSpec = None,
    threads: int = 1,
    seconds: float = SECONDS,
    progress: bool = True,
) -> LayerBlame:
    """Find which layers of a quantized network cost most of its accuracy.

    The output of every layer is read in ONNX Runtime. Each layer alone is quantized in torch, for the noise that it
    adds to the logits. If some of the metric is lost, it is measured with each of the five worst layers alone in float,
    and the fewest layers are searched with which it is lost no more, for as long as there is time.

    Args:
        quantized: the calibrated network that the file was written from, its BatchNorms folded.
        path: of the int8 file.
        calls: yields the inputs of a few calls, the same ones each time.
        measure: returns the metric of a network; default none is measured.
        metric: what it measures, for which direction is better; ``None`` for accuracy.
        metric_name: its name.
        reference: its value in float.
        value: its value for the quantized network.
        chance: the largest difference of the two that may be chance; default 0.1% of the value in float.
        output: the logits in the network's output.
        threads: the number of threads for ONNX Runtime.
        seconds: see :data:`SECONDS`.
        progress: whether to show a progress bar.
    """
    some, ratios = _in_runtime(quantized, path, calls, output, threads, seconds)
    blame = LayerBlame(
        tuple(BlamedLayer(name, ratio) for name, ratio in ratios.items()),
        metric_name,
        reference,
        value,
        SMALL * abs(reference or 0.0) if chance is None else chance,
        sum(batch_size(one) for one in some),
        higher_is_better=_direction(metric),
        seconds=seconds,
    )
    if not hasattr(quantized, NAME):  # the network of the file holds the quantized one
        return blame
    parts, upwards = PartlyQuantized(quantized, calls, output), bool(blame.higher_is_better)
    search = FloatSearch(parts, lambda network, _: _measured(measure, network), some, output, upwards)
    noise = search.noise(search.whole)
    alone = {name: signal_to_noise(1.0, noise[name]) for name in search.whole.layers}
    layers = tuple(BlamedLayer(name, ratios.get(name or "network"), alone[name]) for name in alone)
    blame = replace(blame, layers=layers)
    if measure is None or value is None or blame.reference is None or blame.higher_is_better is None:
        return blame
    if blame.is_lossless:
        return blame
    search.values[()] = value
    return _with_remedy(search, blame, progress)


def _in_runtime(
    quantized: nn.Module, path: Path, calls: Calls, output: OutputSpec, threads: int, seconds: float
) -> tuple[list[Inputs], dict[str, float]]:
    """Return the inputs that noise is measured on, and the ratio of each layer in the runtime."""
    some = list(_in_rows(ranking_inputs(calls, quantized, output), quantized, output))

    def run() -> object:
        with untouched(quantized), torch.no_grad():
            return call_network(quantized, some[0], output=output)

    weights = unrounded_weights(quantized, run)
    start = time.monotonic()
    run()
    # Each layer alone costs a call of the network: of a large one on fewer samples.
    affordable = seconds / max(time.monotonic() - start, 1e-9) / max(len(weights), 1)
    some = some[: max(int(affordable), 1)]
    return some, layer_noise(path, weights, some, threads)


def _with_remedy(search: FloatSearch, blame: LayerBlame, progress: bool) -> LayerBlame:
    """Measure the metric with each of a few layers alone in float, and search the fewest to leave there."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

    assert blame.reference is not None
    end = time.monotonic() + blame.seconds
    # The search first: it names what helps. What is left of the time shows what each layer alone does.
    fewest = search.run(blame.chance, blame.reference, blame.metric, progress, blame.seconds)
    worst = [one.name for one in blame.ranked if one.name][:WORST]
    with tqdm(total=len(worst), desc="layers alone in float", disable=None if progress else True, leave=False) as bar:
        for name in worst:
            if time.monotonic() >= end:
                break
            bar.set_postfix_str(name)
            search.value((name,))
            bar.update()
    # A layer that was measured just now may gain more than the one that the search ended with.
    chosen = search.best(len(fewest.layers))
    fewest = replace(fewest, layers=chosen, value=search.value(chosen))
    values = {names[0]: one for names, one in search.values.items() if len(names) == 1}
    layers = tuple(replace(one, value=values.get(one.name)) for one in blame.layers)
    return replace(blame, layers=layers, fewest=fewest)


def _measured(measure: Callable[[nn.Module], float | None] | None, network: nn.Module) -> float:
    value = None if measure is None else measure(network)
    assert value is not None  # the same data gave one before
    return value


def _direction(metric: Any) -> bool | None:
    """Return whether a higher value is better, ``None`` where that is unknown."""
    if metric is None:
        return True
    try:
        return resolve_direction(metric)
    except ValueError:
        return None


def _in_rows(calls: Iterable[Inputs], network: nn.Module, output: OutputSpec) -> Iterable[Inputs]:
    """Yield inputs in smaller calls, where they have a row for each sample."""
    for inputs in calls:
        n = batch_size(inputs)
        with untouched(network), torch.no_grad():
            is_whole = n <= ROWS or count_samples(network, inputs, output=output) is None
        starts = [0] if is_whole else range(0, n, ROWS)
        yield from (inputs if is_whole else take(inputs, range(i, min(i + ROWS, n)), n) for i in starts)


def blame_export(
    folder: Path,
    variants: Variants,
    result: ParityResult,
    measure: Callable[[Mapping[str, Predictor], Iterable[tuple[str, str]], Any], ParityResult],
    calls: Calls,
    metric: Any,
    output: OutputSpec,
    threads: int,
    progress: bool,
) -> tuple[LayerBlame | None, list[str]]:
    """Return which layers of the int8 file cost most and write them down, or a warning why that is unknown.

    Args:
        folder: of the files.
        variants: the networks that they were written from.
        result: of the comparison of the files.
        measure: compares predictors on all data.
        calls: yields the inputs of a few batches.
        metric: see :func:`~lit_xai.export.model.export_model`.
        output: the logits in the networks' output.
        threads: the number of threads for ONNX Runtime.
        progress: whether to show a progress bar.
    """

    def of(network: nn.Module) -> float | None:
        return measure({"network": network_predictor(network, output)}, [], metric).metrics.get("network")

    assert variants.quantized is not None
    try:
        with variants.untouched():
            blamed = blame_layers(
                variants.quantized,
                folder / INT8,
                calls,
                measure=of,
                metric=metric,
                metric_name=result.metric,
                reference=result.metrics.get(FLOAT_ROW),
                value=result.metrics.get(variants.row),
                chance=chance_of(result.parities[INT8_ROW, FLOAT_ROW]) if metric is None else None,
                output=output,
                threads=threads,
                progress=progress,
            )
        write_blame(blamed, folder)
    except Exception as error:  # of any kind: what only looks at the files must not keep them from being written
        return None, [f"Which layer costs most is unknown ({describe_cause(error)})."]
    return blamed, []
