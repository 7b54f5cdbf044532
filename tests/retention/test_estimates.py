"""Intervals: SciPy's, and how often they hold the truth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lit_xai.retention.estimates import Mean, Paired, Share


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_share_is_wilsons(data):
    n = data.draw(st.integers(1, 3000))
    count = data.draw(st.integers(0, n))
    share = Share.of(torch.arange(n) < count)
    expected = stats.binomtest(count, n).proportion_ci(method="wilson")
    assert (share.count, share.n, share.value) == (count, n, count / n)
    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= share.low <= share.value <= share.high <= 1


@given(seed=st.integers(0, 999), n=st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_paired_is_students(seed, n):
    reference, candidate = np.random.default_rng(seed).standard_normal((2, n))
    paired = Paired.of(torch.from_numpy(reference), torch.from_numpy(candidate))
    expected = stats.ttest_rel(candidate, reference).confidence_interval(0.95)
    assert (paired.reference, paired.candidate) == pytest.approx((reference.mean(), candidate.mean()))
    assert (paired.change.low, paired.change.high) == pytest.approx((expected.low, expected.high))
    assert paired.change.value == pytest.approx((candidate - reference).mean())


def test_a_single_sample_has_no_interval():
    assert Mean.of(torch.tensor([3.0])) == Mean(3.0, None, None)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    means = [Mean.of(torch.from_numpy(rng.exponential(size=40))) for _ in range(600)]
    shares = [Share.of(torch.from_numpy(rng.random(40) < 0.1)) for _ in range(600)]
    assert np.mean([one.low <= 1 <= one.high for one in means]) == pytest.approx(0.93, abs=0.03)  # of skewed values
    assert np.mean([one.low <= 0.1 <= one.high for one in shares]) == pytest.approx(0.95, abs=0.03)
