"""Times of calls, with a clock that the test sets."""

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_xai.runtime import timing
from lit_xai.runtime.timing import alternate, summarize, time_calls

TIMES = st.lists(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), min_size=1, max_size=8)


@given(TIMES)
def test_the_median_the_spread_and_the_95th_percentile(blocks):
    found = summarize(blocks)
    medians = [statistics.median(block) for block in blocks]
    assert found.milliseconds == pytest.approx(np.median(medians))
    assert found.spread == pytest.approx((np.percentile(medians, 75) - np.percentile(medians, 25)) / 2, abs=1e-9)
    assert found.p95 == pytest.approx(np.percentile([one for block in blocks for one in block], 95))


class Clock:
    """A clock that a call moves on."""

    def __init__(self, *milliseconds: float) -> None:
        self.now, self.calls, self._each = 0.0, 0, itertools.cycle(milliseconds)

    def perf_counter(self) -> float:
        return self.now

    def call(self) -> None:
        self.calls += 1
        self.now += next(self._each) / 1e3


@pytest.mark.parametrize(("each", "calls"), [(1.0, 1 + 20 + 100), (50.0, 1 + 3), (30.0, 1 + 4)])
def test_calls_fill_the_time(each, calls, monkeypatch):
    clock = Clock(each)
    monkeypatch.setattr(timing, "time", clock)
    blocks = time_calls(clock.call, repeats=10, seconds=0.1)
    assert clock.calls == pytest.approx(calls, abs=10)
    assert summarize(blocks).milliseconds == pytest.approx(each)


def test_a_disturbed_round_does_not_count(monkeypatch):
    clock, rounds = Clock(1.0), itertools.count()

    def disturbed() -> None:
        clock.call()
        clock.now += 1.0 if next(rounds) == 3 else 0.0

    monkeypatch.setattr(timing, "time", clock)
    found = alternate({"a": clock.call, "b": disturbed}, rounds=5, seconds=0.1)
    assert {name: one.milliseconds for name, one in found.items()} == pytest.approx({"a": 1.0, "b": 1.0})
    assert found["b"].spread == pytest.approx(0.0, abs=1e-9)
