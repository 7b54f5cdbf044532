"""Numbers of a report with their bounds, each end a one-sided bound of 95% as in the verdict."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from lit_xai.report.evidence import Evidence, Mean, Share, ShareDrop, retained, weighted

Array = NDArray[np.float64]

FEWEST = 30
"""Samples below which nothing is said about retention."""


class Estimate(TypedDict):
    """A number, its lower and upper bound (``None`` where there is none), and its samples."""

    value: float
    low: float | None
    high: float | None
    n: int


def estimate(evidence: Evidence) -> Estimate:
    """Return what evidence says of a number.

    Example:
        >>> estimate(Share(5, 5))["value"]
        1.0
    """
    low, high = _bounds(evidence) if isinstance(evidence, (Share, ShareDrop)) else evidence.bounds()
    return {"value": evidence.value, "low": low, "high": high, "n": evidence.n}


def share(holds: NDArray[np.bool_], clusters: NDArray[np.int64] | None = None) -> Estimate:
    """Return the share of samples ``(n,)`` that something holds for.

    Example:
        >>> share(np.arange(10) < 3)["value"]
        0.3
    """
    if clusters is not None:
        return mean(holds.astype(np.float64), clusters, (0.0, 1.0))
    return estimate(Share(int(holds.sum()), len(holds)))


def drop(was: NDArray[np.bool_], now: NDArray[np.bool_], clusters: NDArray[np.int64] | None = None) -> Estimate:
    """Return by how much the share of right predictions ``(n,)`` fell.

    Example:
        >>> drop(np.array([True, True]), np.array([True, False]))["value"]
        0.5
    """
    if clusters is not None:
        return mean(was.astype(np.float64) - now, clusters, (-1.0, 1.0))
    return estimate(ShareDrop(int((was & ~now).sum()), int((~was & now).sum()), len(was)))


def mean(
    values: Array, clusters: NDArray[np.int64] | None = None, within: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """Return the mean of values ``(n,)``, which lies within two ends; of a single sample there are no bounds.

    Example:
        >>> mean(np.arange(5.0))["value"], mean(np.ones(1))["low"]
        (2.0, None)
    """
    n = len(values) if clusters is None else len(np.unique(clusters))
    if n < 2:
        return {"value": float(values.mean()), "low": None, "high": None, "n": n}
    return estimate(Mean.of(values, clusters, within))


def weighted_mean(series: Sequence[tuple[Array, Array]], clusters: NDArray[np.int64] | None = None) -> Estimate:
    """Return the weighted mean of values and weights ``(n,)``; of two series that of the first minus the second's.

    Example:
        >>> one = weighted_mean([(np.array([1.0, 4.0]), np.array([2.0, 1.0]))])
        >>> one["value"]
        2.0
    """
    found = weighted(series, clusters)
    return {"value": found.value, "low": None, "high": None, "n": found.n} if found.n < 2 else estimate(found)


def retention(similarity: Array, null: Array, clusters: NDArray[np.int64] | None = None) -> Estimate | None:
    """Return the retention of samples ``(n,)`` against untrained networks ``(networks, n)``; ``None`` of too few.

    Example:
        >>> retention(np.ones(3), np.zeros((2, 3))) is None
        True
    """
    n = len(similarity) if clusters is None else len(np.unique(clusters))
    # Untrained networks whose explanations are the reference's leave nothing to divide by.
    says_something = n >= FEWEST and len(null) > 1 and float(null.mean()) < 1
    return estimate(retained(similarity, null, clusters)) if says_something else None


@lru_cache(maxsize=10_000)
def _bounds(evidence: Share | ShareDrop) -> tuple[float, float]:
    """Return the bounds, of a thousand classes mostly the same few."""
    return evidence.bounds()
