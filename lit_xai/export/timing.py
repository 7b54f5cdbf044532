"""Latencies of several files, measured in turn so that they compare."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lit_xai.network.calling import Inputs
from lit_xai.runtime.latency import Latency, measure_latency

SECONDS = 0.5
"""The total time for which a file is measured at one batch size."""


def alternate_latencies(
    paths: Mapping[str, Path],
    inputs: Inputs,
    batch_sizes: Sequence[int] | None = (1, 64),
    threads: int = 1,
    rounds: int = 5,
    seconds: float | None = None,
) -> dict[str, dict[int, Latency]]:
    """Measure each file at each batch size, one file after the other and again, so that drift affects all equally.

    A CPU that warms up or gets other work in between would otherwise favor the file that was measured first.

    Args:
        paths: ONNX files by name.
        inputs: what they are called with, of any batch size.
        batch_sizes: the batch sizes to measure; ``None`` for the inputs as they are, which count as one sample.
        threads: the number of threads for ONNX Runtime.
        rounds: how often each is measured; reported are the median, and half the interquartile range as the spread.
        seconds: the total time for one file and batch size; default half a second.

    Raises:
        ValueError: a file does not take the inputs.

    Example:
        >>> import torch
        >>> alternate_latencies({}, torch.zeros(1, 4))
        {}
    """
    sizes = (1,) if batch_sizes is None else batch_sizes
    latencies: dict[str, dict[int, list[Latency]]] = {name: {size: [] for size in sizes} for name in paths}
    each = (SECONDS if seconds is None else seconds) / rounds
    for size in sizes:
        for _ in range(rounds):
            for name, path in paths.items():
                # Short measurements in turn: each file gets its share of a slow moment.
                measured = measure_latency(path, inputs, threads, None if batch_sizes is None else size, seconds=each)
                latencies[name][size].append(replace(measured, batch_size=size))
    return {
        name: {size: _median(measured) for size, measured in by_size.items()} for name, by_size in latencies.items()
    }


def _median(latencies: Sequence[Latency]) -> Latency:
    times = [latency.milliseconds for latency in latencies]
    # Median and quartiles: one round that another process disturbs does not count.
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return replace(latencies[0], milliseconds=middle, spread=(high - low) / 2)
