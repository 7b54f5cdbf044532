"""Tests of evidence: their level at the margin, by exact sums or many draws; bounds and p-values that agree."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lit_xai.report.evidence import LEVEL, Mean, MedianRatio, Share, ShareDrop, retained, samples_needed, weighted


def passes_at_margin(n, changed, margin):
    """The probability that a drop of exactly the margin passes, by summing over all outcomes."""
    lost, gained = (changed + margin) / 2, (changed - margin) / 2
    found = 0.0
    for b in range(int(stats.binom.ppf(1 - 1e-9, n, lost)) + 1):
        for c in range(int(stats.binom.ppf(1 - 1e-9, n, gained)) + 1):
            if ShareDrop(b, c, n).below(margin) <= LEVEL:
                found += stats.multinomial.pmf([b, c, n - b - c], n, [lost, gained, 1 - changed])
    return found


@pytest.mark.parametrize("n", [100, 360])
@pytest.mark.parametrize("changed", [0.012, 0.03])
def test_a_drop_at_the_margin_passes_in_one_of_twenty_cases(n, changed):
    assert passes_at_margin(n, changed, 0.01) <= 0.0505


@given(st.integers(0, 200), st.integers(0, 200), st.integers(400, 5000))
@settings(max_examples=25, deadline=None)
def test_bounds_of_a_drop_are_where_its_tests_turn(lost, gained, n):
    one = ShareDrop(lost, gained, n)
    low, high = one.bounds()
    assert low <= one.value <= high
    assert one.below(high) == pytest.approx(LEVEL, abs=1e-6)
    assert one.above(low) == pytest.approx(LEVEL, abs=1e-6)
    mirrored = ShareDrop(gained, lost, n)
    assert mirrored.bounds() == (pytest.approx(-high, abs=1e-9), pytest.approx(-low, abs=1e-9))


def test_the_score_at_no_drop_is_mcnemars():
    one = ShareDrop(30, 12, 1000)
    assert one.above(0.0) == pytest.approx(stats.norm.sf((30 - 12) / math.sqrt(42)))


@given(st.integers(1, 300), st.data())
@settings(max_examples=25, deadline=None)
def test_a_share_is_exact(n, data):
    count = data.draw(st.integers(0, n))
    margin = data.draw(st.floats(0.001, 0.999))
    one = Share(count, n)
    assert one.below(margin) == pytest.approx(stats.binomtest(count, n, margin, alternative="less").pvalue)
    assert one.above(margin) == pytest.approx(stats.binomtest(count, n, margin, alternative="greater").pvalue)
    interval = stats.binomtest(count, n).proportion_ci(0.9, "exact")
    assert one.bounds() == (pytest.approx(interval.low), pytest.approx(interval.high))


SKEWED = {
    "similarities": lambda rng, size: 1 - rng.beta(2, 5, size),
    "losses": lambda rng, size: rng.exponential(1.0, size),
    "rare": lambda rng, size: (rng.random(size) < 0.1) * rng.exponential(1.0, size),
}
MEANS = {"similarities": 1 - 2 / 7, "losses": 1.0, "rare": 0.1}


@pytest.mark.parametrize("name", SKEWED)
@pytest.mark.parametrize("n", [100, 1000])
def test_means_at_the_margin_pass_in_one_of_twenty_cases(name, n):
    rng = np.random.default_rng(0)
    draws = [Mean.of(SKEWED[name](rng, n)) for _ in range(800)]
    for side in ("above", "below"):
        level = np.mean([getattr(one, side)(MEANS[name]) <= LEVEL for one in draws])
        assert level < 0.073  # three standard errors of 800 draws above 5%


def test_retention_at_the_margin_passes_in_one_of_twenty_cases():
    rng, passed = np.random.default_rng(1), 0
    for _ in range(800):
        null = rng.normal(0.1, 0.02, (10, 1)) + rng.normal(0, 0.1, (10, 200))
        passed += retained(1 - rng.beta(2, 5, 200), null).above((1 - 2 / 7 - 0.1) / 0.9) <= LEVEL
    assert passed / 800 < 0.073


def test_bounds_of_a_mean_are_where_its_tests_turn():
    one = Mean.of(np.random.default_rng(0).exponential(1.0, 50))
    low, high = one.bounds()
    assert low < one.value < high
    assert one.above(low) == pytest.approx(LEVEL)
    assert one.below(high) == pytest.approx(LEVEL)


def test_without_skewness_it_is_students():
    values = np.concatenate([np.arange(20.0), -np.arange(20.0)])
    one = Mean.of(values)
    assert one.above(-1.0) == pytest.approx(stats.ttest_1samp(values, -1.0, alternative="greater").pvalue)


def test_samples_of_a_cluster_count_as_one():
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=30), np.arange(30)
    once = Mean.of(values, clusters)
    thrice = Mean.of(np.repeat(values, 3), np.repeat(clusters, 3))
    assert (thrice.value, thrice.n) == (pytest.approx(once.value), 30)
    assert thrice.error == pytest.approx(once.error)
    null = rng.normal(size=(5, 30))
    one = retained(values, null)
    repeated = retained(np.repeat(values, 3), np.repeat(null, 3, 1), np.repeat(clusters, 3))
    assert (repeated.value, repeated.error) == (pytest.approx(one.value), pytest.approx(one.error))


def test_the_median_of_ratios_is_exact():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(500):
        one = MedianRatio(np.exp(rng.standard_t(1.5, 21)))
        low, high = one.bounds()
        inside += low <= 1 <= high
        assert (one.below(1.0) <= LEVEL) == (high < 1.0)
    assert inside / 500 > 0.88
    assert MedianRatio(np.array([0.1, 0.2])).bounds() == (-math.inf, math.inf)


@pytest.mark.parametrize("drop", [0.0, 0.005])
def test_as_many_samples_as_are_asked_for_decide_in_four_of_five_cases(drop):
    changed, rng = 0.04, np.random.default_rng(0)
    n = ShareDrop(round(10_000 * (changed + drop) / 2), round(10_000 * (changed - drop) / 2), 10_000).needed(0.01)
    lost, gained, _ = rng.multinomial(n, [(changed + drop) / 2, (changed - drop) / 2, 1 - changed], 2000).T
    passed = np.mean([ShareDrop(b, c, n).below(0.01) <= LEVEL for b, c in zip(lost, gained, strict=True)])
    assert 0.76 < passed < 0.86
    assert samples_needed(0.0, 1.0, 1.0) is None


def test_a_weighted_mean_is_that_of_a_ratio():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(0.3, 1, 200), rng.uniform(0.05, 1, 200)
    clusters = np.arange(200) // 4
    for belongs in (None, clusters):
        found, ratio = weighted([(values, weights)], belongs), Mean.of_ratio(values * weights, weights, belongs)
        assert found.value == pytest.approx(ratio.value)
        assert found.bounds() == pytest.approx(ratio.bounds())
        assert found.n == ratio.n


def test_a_difference_of_weighted_means_is_paired():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(0, 1, 300), rng.uniform(0.05, 1, 300)
    moved = weighted([(values + 0.1, weights), (values, weights)])
    assert moved.value == pytest.approx(0.1)
    assert moved.bounds() == pytest.approx((0.1, 0.1))
    other, own = rng.normal(0, 1, 300), rng.uniform(0.05, 1, 300)
    found = weighted([(values, weights), (other, own)])
    drawn = [rng.integers(300, size=300) for _ in range(4000)]
    bootstrap = [np.average(values[i], weights=weights[i]) - np.average(other[i], weights=own[i]) for i in drawn]
    assert found.error == pytest.approx(np.std(bootstrap), rel=0.06)
