"""Latencies of several files, measured in turn so that they compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_xai.network.calling import Inputs
from lit_xai.network.check import check_integer, refusal
from lit_xai.network.profiling import with_batch_size
from lit_xai.runtime.latency import Latency, cpu_name
from lit_xai.runtime.loaded import LoadedModel, caller_of
from lit_xai.runtime.runtimes import load_model
from lit_xai.runtime.timing import alternate

SECONDS = 0.5
"""The total time for which a file is measured at one batch size."""


@dataclass(frozen=True)
class Candidate:
    """A file and what runs it.

    Args:
        path: of the file.
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        precision: of floats.
        threads: the number of threads for the runtime.
    """

    path: Path
    runtime: str = "onnxruntime"
    precision: str = "f32"
    threads: int = 1

    def load(self) -> LoadedModel:
        """Load the file."""
        return load_model(self.path, self.runtime, self.threads, self.precision)


def check_batch_sizes(sizes: Sequence[int], name: str = "batch_sizes") -> Sequence[int]:
    """Refuse anything but a list of positive integers.

    Raises:
        ValueError: names the argument.

    Example:
        >>> check_batch_sizes(64)
        Traceback (most recent call last):
        ...
        ValueError: batch_sizes expected a list of positive integers, but got 64.
    """
    if not isinstance(sizes, (list, tuple)) or not sizes:
        raise refusal(name, "a list of positive integers", sizes)
    for i, size in enumerate(sizes):
        check_integer(f"{name}[{i}]", size)
    return sizes


def alternate_latencies(
    candidates: Mapping[str, Path | Candidate],
    inputs: Inputs,
    batch_sizes: Sequence[int] | None = (1, 64),
    threads: int = 1,
    rounds: int = 5,
    seconds: float | None = None,
) -> dict[str, dict[int, Latency]]:
    """Measure each file at each batch size, one file after the other and again, so that drift affects all equally.

    A CPU that warms up or gets other work in between would otherwise favor the file that was measured first.

    Args:
        candidates: files by name, with what runs them; a path alone is run in ONNX Runtime.
        inputs: what they are called with, of any batch size.
        batch_sizes: the batch sizes to measure; ``None`` for the inputs as they are, which count as one sample.
        threads: the number of threads for ONNX Runtime, where a path alone is given.
        rounds: how often each is measured; reported are the median, and half the interquartile range as the spread.
        seconds: the total time for one file and batch size; default half a second.

    Raises:
        ValueError: a file does not take the inputs.

    Example:
        >>> import torch
        >>> alternate_latencies({}, torch.zeros(1, 4))
        {}
    """
    given = {
        name: one if isinstance(one, Candidate) else Candidate(one, threads=threads) for name, one in candidates.items()
    }
    models = {name: one.load() for name, one in given.items()}
    latencies: dict[str, dict[int, Latency]] = {name: {} for name in given}
    for size in (1,) if batch_sizes is None else batch_sizes:
        some = inputs if batch_sizes is None else with_batch_size(inputs, size)
        runs = {name: caller_of(model, str(given[name].path), some) for name, model in models.items()}
        for name, timing in alternate(runs, rounds, SECONDS if seconds is None else seconds).items():
            latencies[name][size] = Latency(
                timing.milliseconds,
                timing.spread,
                models[name].label,
                cpu_name(),
                given[name].threads,
                size,
                timing.p95,
            )
    return latencies
