"""The arithmetic of retention: what it is, and how sure one can be of it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST = 30
"""Samples below which no interval is given."""


class Interval(NamedTuple):
    """An interval of 95%.

    Args:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


def retention(similarity: float, null: float) -> float:
    """Return the retention of a similarity: 1 for the same explanations, 0 for those of an untrained model.

    Args:
        similarity: the mean over samples.
        null: the mean similarity of untrained models, below 1.

    Example:
        >>> round(retention(0.6, 0.2), 6)
        0.5
    """
    return (similarity - null) / (1 - null) if null < 1 else math.nan


def prediction_band(means: Tensor) -> Interval | None:
    """Return where the mean similarity of one more untrained model lies in 95 of 100 cases.

    An interval of the mean of these models would be too narrow: it says where their average lies, not the next one.

    Args:
        means: of each untrained model, ``(R,)``; their similarities are taken as normally distributed.

    Returns:
        Mean plus and minus t(R - 1) standard deviations times the root of 1 + 1 / R; ``None`` for a single model.

    Example:
        >>> band = prediction_band(torch.tensor([-0.1, 0.0, 0.1]))
        >>> round(band.high, 3)
        0.497
    """
    if len(means) < 2:
        return None
    from scipy.stats import t  # imported here: slow to import

    half = float(t.ppf(0.975, len(means) - 1)) * float(means.double().std()) * math.sqrt(1 + 1 / len(means))
    center = float(means.double().mean())
    return Interval(center - half, center + half)


def bootstrap(similarity: Tensor, null: Tensor, seed: int = 0, n: int = 2000) -> Interval | None:
    """Return the interval of retention by the percentiles of a bootstrap.

    Samples and untrained models are drawn together, as both are a choice; it is the retention of the means that is
    drawn, never a mean of ratios. It covers the choice of the probe, not the seed of a training.

    Args:
        similarity: of each sample, ``(N,)``.
        null: of each untrained model and sample, ``(R, N)``.
        seed: of the draws.
        n: number of draws.

    Returns:
        ``None`` with fewer than 30 samples.

    Example:
        >>> interval = bootstrap(torch.full((40,), 0.5), torch.zeros(10, 40))
        >>> round(interval.low, 6), round(interval.high, 6)
        (0.5, 0.5)
    """
    draws = _draws(similarity, null, seed, n)
    return None if draws is None else _percentiles(draws)


def bootstrap_gain(one: Tensor, other: Tensor, null: Tensor, seed: int = 0, n: int = 2000) -> Interval | None:
    """Return the interval of the retention that one model has above another, on the same samples.

    Args:
        one: similarity of each sample, ``(N,)``.
        other: likewise.
        null: as for :func:`bootstrap`.
        seed: of the draws.
        n: number of draws.

    Example:
        >>> bootstrap_gain(torch.full((40,), 0.5), torch.full((40,), 0.4), torch.zeros(10, 40)).low > 0.09
        True
    """
    first, second = _draws(one, null, seed, n), _draws(other, null, seed, n)
    return None if first is None or second is None else _percentiles(first - second)


def mean_interval(values: Tensor) -> Interval | None:
    """Return the interval of a mean over samples; ``None`` with fewer than 30.

    Args:
        values: ``(N,)``.

    Example:
        >>> mean_interval(torch.ones(40))
        Interval(low=1.0, high=1.0)
    """
    if len(values) < FEWEST:
        return None
    values = values.double()
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    return Interval(float(values.mean()) - half, float(values.mean()) + half)


def _draws(similarity: Tensor, null: Tensor, seed: int, n: int) -> Tensor | None:
    samples, models = len(similarity), len(null)
    if samples < FEWEST or not models:
        return None
    generator = torch.Generator().manual_seed(seed)
    weights = _counts(n, samples, generator) / samples
    of_models = weights @ null.double().T  # (n, R): the mean of each untrained model over the drawn samples
    null_means = (of_models * _counts(n, models, generator) / models).sum(1)
    return (weights @ similarity.double() - null_means) / (1 - null_means).clamp(min=1e-12)


def _counts(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Return how often each of ``size`` elements is drawn in each of ``n`` draws with replacement, ``(n, size)``."""
    drawn = torch.randint(size, (n, size), generator=generator)
    return torch.zeros(n, size, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(n, size, dtype=torch.float64))


def _percentiles(draws: Tensor) -> Interval:
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return Interval(low, high)
