"""How long calls take, in any runtime: medians of short blocks, and several candidates in turn so that they compare."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Blocks = list[list[float]]
"""Milliseconds of each call, by block."""


@dataclass(frozen=True)
class Timing:
    """The times of many calls.

    Args:
        milliseconds: the median of the medians of blocks, or of rounds.
        spread: half their interquartile range.
        p95: the time that 95% of the calls do not exceed.
    """

    milliseconds: float
    spread: float
    p95: float


def time_calls(run: Callable[[], object], repeats: int, seconds: float) -> Blocks:
    """Call a function for about this long, after a fifth of it to warm up.

    Where one call takes longer than its share of the time, there are fewer blocks, at least three.

    Args:
        run: is called.
        repeats: the largest number of blocks.
        seconds: for which it is called.

    Example:
        >>> [len(block) for block in time_calls(lambda: None, repeats=2, seconds=0.0)]
        [1, 1]
    """
    start = time.perf_counter()
    run()
    # A call that takes longer than the warm-up has warmed up already.
    if time.perf_counter() - start < seconds / 5:
        _block(run, seconds / 5)
    blocks: Blocks = []
    end = time.perf_counter() + seconds
    while len(blocks) < repeats and (len(blocks) < 3 or time.perf_counter() < end):
        blocks.append(_block(run, seconds / repeats))
    return blocks


def summarize(blocks: Blocks) -> Timing:
    """Return the median of the blocks' medians, and how far they are apart.

    A disturbance of a few calls changes neither; other processes delay a few by far more than the rest.

    Example:
        >>> summarize([[1.0, 1.0, 50.0], [2.0], [3.0]])
        Timing(milliseconds=2.0, spread=0.5, p95=40.6...)
    """
    low, middle, high = _quartiles([statistics.median(block) for block in blocks])
    calls = [one for block in blocks for one in block]
    p95 = statistics.quantiles(calls, n=20, method="inclusive")[-1] if len(calls) > 1 else calls[0]
    return Timing(middle, (high - low) / 2, p95)


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int = 5, seconds: float = 0.5) -> dict[str, Timing]:
    """Time functions one after the other and again, so that drift affects all equally.

    A CPU that warms up or gets other work in between would otherwise favor the one that was timed first.

    Args:
        runs: by name.
        rounds: how often each is timed; reported are the median of the rounds, and half their interquartile range.
        seconds: the total time for each.

    Example:
        >>> [*alternate({"nothing": lambda: None}, rounds=2, seconds=0.01)]
        ['nothing']
    """
    calls: dict[str, Blocks] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            # Short measurements in turn: each gets its share of a slow moment. A round counts as one block, so that
            # one that another process disturbs does not count.
            blocks = time_calls(run, repeats=10, seconds=seconds / rounds)
            calls[name].append([one for block in blocks for one in block])
    return {name: summarize(each) for name, each in calls.items()}


def _block(run: Callable[[], object], seconds: float) -> list[float]:
    """Return the milliseconds of as many calls as fit into the time."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _quartiles(values: list[float]) -> list[float]:
    # One value has no spread, and quantiles needs two.
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
