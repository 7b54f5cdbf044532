"""Latencies of several files that can be compared: measured in turn."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lit_xai.network.calling import Inputs
from lit_xai.runtime.latency import Latency, measure_latency

SECONDS = 0.5
"""How long a file is measured at a batch size, in all."""


def alternate_latencies(
    paths: Mapping[str, Path],
    inputs: Inputs,
    batch_sizes: Sequence[int] = (1, 64),
    threads: int = 1,
    rounds: int = 5,
    seconds: float | None = None,
) -> dict[str, dict[int, Latency]]:
    """Measure each file at each batch size, one file after the other and again, so that a drift hits all alike.

    Args:
        paths: ONNX files by name.
        inputs: what they are called with, of any number of samples.
        batch_sizes: how many samples a call has.
        threads: how many ONNX Runtime may use.
        rounds: how often each is measured; the median counts, and the spread is half of the range.
        seconds: how long that takes in all, for one file and batch size; default half a second.

    Raises:
        ValueError: a file does not take the inputs.

    Example:
        >>> import torch
        >>> alternate_latencies({}, torch.zeros(1, 4))
        {}
    """
    found: dict[str, dict[int, list[Latency]]] = {name: {size: [] for size in batch_sizes} for name in paths}
    each = (SECONDS if seconds is None else seconds) / rounds
    for size in batch_sizes:
        for _ in range(rounds):
            for name, path in paths.items():
                found[name][size].append(measure_latency(path, inputs, threads, size, seconds=each))
    return {name: {size: _middle(all_) for size, all_ in by_size.items()} for name, by_size in found.items()}


def _middle(found: Sequence[Latency]) -> Latency:
    times = [one.milliseconds for one in found]
    return replace(found[0], milliseconds=statistics.median(times), spread=(max(times) - min(times)) / 2)
