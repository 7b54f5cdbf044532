"""Bands and intervals, against SciPy and by their coverage."""

import numpy as np
import pytest
import scipy.stats
import torch

from lit_xai.retention.intervals import bootstrap, bootstrap_gain, mean_interval, prediction_band, retention


def test_the_ends_of_retention():
    assert retention(0.3, 0.3) == 0
    assert retention(1.0, 0.3) == 1
    assert np.isnan(retention(1.0, 1.0))


def test_a_band_covers_the_next_untrained_network():
    """95 of 100, of a normal distribution; an interval of the mean would cover a third."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2000, 11, generator=generator, dtype=torch.float64)
    bands = [prediction_band(row[:10]) for row in drawn]
    covered = np.mean([band.low <= row[10] <= band.high for band, row in zip(bands, drawn, strict=True)])
    assert 0.935 < covered < 0.965


def test_a_band_is_scipys():
    means = torch.tensor([0.1, 0.2, 0.15, 0.3], dtype=torch.float64)
    band = prediction_band(means)
    low, high = scipy.stats.t.interval(0.95, 3, float(means.mean()), float(means.std()) * (1 + 1 / 4) ** 0.5)
    assert (band.low, band.high) == pytest.approx((low, high))
    assert prediction_band(means[:1]) is None


def test_an_interval_covers_the_truth():
    """Of samples and untrained networks that are both drawn."""
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        samples = torch.tensor(rng.normal(0.5, 0.3, 60))
        null = torch.tensor(0.2 + rng.normal(0, 0.05, (10, 1)) + rng.normal(0, 0.1, (10, 60)))
        interval = bootstrap(samples, null, seed=trial, n=400)
        covered += interval.low <= (0.5 - 0.2) / 0.8 <= interval.high
    assert 0.88 < covered / 200 < 0.99  # percentiles of 10 networks are a little narrow


def test_few_samples_have_no_interval():
    assert bootstrap(torch.rand(29), torch.zeros(10, 29)) is None
    assert mean_interval(torch.rand(29)) is None
    assert bootstrap(torch.rand(30), torch.zeros(0, 30)) is None


def test_a_gain_is_paired():
    """What two networks share cancels: the interval is far narrower than that of either."""
    common = torch.randn(100).double()
    null = torch.zeros(10, 100).double()
    gain = bootstrap_gain(common + 0.1, common, null)
    assert gain.low == pytest.approx(0.1)
    assert gain.high == pytest.approx(0.1)
    alone = bootstrap(common, null)
    assert alone.high - alone.low > 0.3


def test_the_same_seed_draws_the_same():
    values, null = torch.rand(50), torch.rand(10, 50)
    assert bootstrap(values, null, seed=3) == bootstrap(values, null, seed=3) != bootstrap(values, null, seed=4)
