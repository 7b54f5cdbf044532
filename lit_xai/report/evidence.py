"""How sure samples make one of a number: its one-sided bounds, and how likely it lies on either side of a margin.

Each kind of evidence answers the same two questions about a margin, by the test that holds its level for it: exact for
shares and medians, Tango's score for the difference of two shares of the same samples, Student's t without the
skewness of means.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.05
"""Level of each one-sided test."""

POWER = 0.8
"""How likely a sample of the size that is asked for decides."""

Array = NDArray[np.float64]


class Evidence(Protocol):
    """What samples say of a number."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def n(self) -> int:
        """Samples, clusters or rounds."""

    @property
    def unit(self) -> str:
        """What ``n`` counts."""

    def above(self, margin: float) -> float:
        """Return the p-value of "the number is the margin or less": small if it surely lies above."""

    def below(self, margin: float) -> float:
        """Return the p-value of "the number is the margin or more": small if it surely lies below."""

    def bounds(self) -> tuple[float, float]:
        """Return the lower and the upper bound, each of 95%."""

    def needed(self, margin: float, level: float = LEVEL) -> int | None:
        """Return the samples that would decide on which side of the margin it lies, if it is what it seems to be.

        Args:
            margin: of the requirement.
            level: of the test.

        Returns:
            ``None`` where the number is the margin itself.
        """


@dataclass(frozen=True)
class Share:
    """The share of samples that something holds for: exact, by the binomial distribution.

    C. J. Clopper and E. S. Pearson 1934, https://doi.org/10.1093/biomet/26.4.404.

    Args:
        count: samples that it holds for.
        n: samples, one or more.
        unit: what ``n`` counts.

    Example:
        >>> one = Share(3, 1000)
        >>> one.value, round(one.bounds()[1], 4), one.below(0.01) < 0.05
        (0.003, 0.0077, True)
    """

    count: int
    n: int
    unit: str = "samples"

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.n

    def above(self, margin: float) -> float:
        """Return the probability of so many or more, at the margin."""
        from scipy import stats  # half a second to import

        return 1.0 if margin >= 1 else 0.0 if margin < 0 else float(stats.binom.sf(self.count - 1, self.n, margin))

    def below(self, margin: float) -> float:
        """Return the probability of so many or fewer, at the margin."""
        from scipy import stats

        return 1.0 if margin <= 0 else 0.0 if margin > 1 else float(stats.binom.cdf(self.count, self.n, margin))

    def bounds(self) -> tuple[float, float]:
        """Return the shares at which so many would just not be surprising."""
        from scipy import stats

        low = stats.beta.ppf(LEVEL, self.count, self.n - self.count + 1) if self.count else 0.0
        high = stats.beta.ppf(1 - LEVEL, self.count + 1, self.n - self.count) if self.count < self.n else 1.0
        return float(low), float(high)

    def needed(self, margin: float, level: float = LEVEL) -> int | None:
        """Return the samples by the normal approximation."""
        margin = min(max(margin, 0.0), 1.0)
        return samples_needed(margin - self.value, self.value * (1 - self.value), margin * (1 - margin), level)


@dataclass(frozen=True)
class ShareDrop:
    """By how much a share of right predictions fell, on the same samples: Tango's score.

    Wald's interval of so few changed predictions passes 8 to 10% of candidates that lie at the margin, this 5%.
    T. Tango 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B.

    Args:
        lost: samples that were right and are wrong.
        gained: samples that were wrong and are right.
        n: samples, one or more.
        unit: what ``n`` counts.

    Example:
        >>> one = ShareDrop(lost=12, gained=8, n=2000)
        >>> one.value, one.below(0.01) < 0.05, round(one.bounds()[1], 4)
        (0.002, True, 0.006)
    """

    lost: int
    gained: int
    n: int
    unit: str = "samples"

    @property
    def value(self) -> float:
        """The drop; negative for a rise."""
        return (self.lost - self.gained) / self.n

    def above(self, margin: float) -> float:
        """Return the p-value by the score."""
        return 1.0 if margin >= 1 else 0.0 if margin <= -1 else _normal_tail(self._score(margin))

    def below(self, margin: float) -> float:
        """Return the p-value by the score."""
        return 1.0 if margin <= -1 else 0.0 if margin >= 1 else _normal_tail(-self._score(margin))

    def bounds(self) -> tuple[float, float]:
        """Return the margins at which the score is just not surprising."""
        return _where(lambda margin: self.above(margin) - LEVEL, -1.0, self.value, -1.0), _where(
            lambda margin: LEVEL - self.below(margin), self.value, 1.0, 1.0
        )

    def needed(self, margin: float, level: float = LEVEL) -> int | None:
        """Return the samples by the normal approximation."""
        changed = (self.lost + self.gained) / self.n
        return samples_needed(
            margin - self.value, changed - self.value**2, max(changed, abs(margin)) - margin**2, level
        )

    def _score(self, margin: float) -> float:
        lost, gained, n = self.lost, self.gained, self.n
        # The likeliest share of gained samples if the drop were the margin.
        b = -lost - gained + (2 * n - lost + gained) * margin
        c = -gained * margin * (1 - margin)
        likeliest = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * likeliest + margin * (1 - margin))
        distance = lost - gained - n * margin
        return (
            distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
        )


@dataclass(frozen=True)
class MedianRatio:
    """The median of a ratio that was measured in rounds, as of latencies: exact for any distribution, by order.

    Args:
        ratios: of each round, both measured in it one after the other.
        unit: what ``n`` counts.

    Example:
        >>> one = MedianRatio(np.array([0.21, 0.22, 0.2, 0.9, 0.21, 0.22, 0.2, 0.21]))
        >>> one.value, one.bounds(), round(one.below(0.25), 4)
        (0.21, (0.2, 0.22), 0.0352)
    """

    ratios: Array
    unit: str = "rounds"

    @property
    def n(self) -> int:
        """Rounds."""
        return len(self.ratios)

    @property
    def value(self) -> float:
        """The median."""
        return float(np.median(self.ratios))

    def above(self, margin: float) -> float:
        """Return the probability of so many rounds above the margin, if it were the median."""
        return Share(int((self.ratios > margin).sum()), self.n).above(0.5)

    def below(self, margin: float) -> float:
        """Return the probability of so many rounds below the margin, if it were the median."""
        return Share(int((self.ratios < margin).sum()), self.n).above(0.5)

    def bounds(self) -> tuple[float, float]:
        """Return two of the rounds; minus and plus infinity of fewer than five."""
        from scipy import stats

        ordered, rank = np.sort(self.ratios), int(stats.binom.ppf(LEVEL, self.n, 0.5))
        rank -= stats.binom.cdf(rank, self.n, 0.5) > LEVEL
        if rank < 0:
            return -math.inf, math.inf
        return float(ordered[rank]), float(ordered[-1 - rank])

    def needed(self, margin: float, level: float = LEVEL) -> int | None:
        """Return the rounds by the normal approximation, from the share of them that lie below the margin."""
        share = float((self.ratios < margin).mean())
        return samples_needed(share - 0.5, max(share * (1 - share), 0.01), 0.25, level)


@dataclass(frozen=True)
class Mean:
    """A mean, or a smooth function of means, by Student's t corrected for skewness.

    Explanations that resemble each other and losses are skewed: of such that lie at the margin t alone passes up to 10%
    of a hundred samples, percentiles of a bootstrap 6 to 8%, and Hall's transformation 5%, without drawing anything.
    P. Hall 1992, On the removal of skewness by transformation, https://doi.org/10.1111/j.2517-6161.1992.tb01876.x.

    Args:
        value: the number.
        error: its standard error.
        n: samples; of clusters, the clusters.
        skew: of the estimate, the skewness of a sample by the root of ``n``.
        freedom: degrees of freedom of the error.
        within: where the number can lie: 0 to 1 for a share.
        unit: what ``n`` counts.
    """

    value: float
    error: float
    n: int
    skew: float
    freedom: float
    within: tuple[float, float] = (-math.inf, math.inf)
    unit: str = "samples"

    @classmethod
    def of(
        cls,
        values: ArrayLike,
        clusters: ArrayLike | None = None,
        within: tuple[float, float] = (-math.inf, math.inf),
    ) -> "Mean":
        """Return that of values.

        Args:
            values: of each sample, ``(n,)``, two or more.
            clusters: to which each sample belongs (a patient, a film): they count as one.
            within: where the number can lie.

        Example:
            >>> one = Mean.of(np.arange(100.0))
            >>> one.value, one.n, [round(bound, 1) for bound in one.bounds()]
            (49.5, 100, [44.7, 54.3])
        """
        return replace(cls.of_ratio(values, None, clusters), within=within)

    @classmethod
    def of_ratio(cls, above: ArrayLike, below: ArrayLike | None, clusters: ArrayLike | None = None) -> "Mean":
        """Return that of the ratio of two means over the same samples.

        Args:
            above: of each sample, ``(n,)``.
            below: likewise, of positive mean; ones by default.
            clusters: to which each sample belongs.

        Example:
            >>> round(Mean.of_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).value, 6)
            0.5
        """
        top = np.asarray(above, dtype=np.float64)
        bottom = np.ones_like(top) if below is None else np.asarray(below, dtype=np.float64)
        top, bottom = _by_cluster(top, clusters), _by_cluster(bottom, clusters)
        value = float(top.mean() / bottom.mean())
        found = cls.of_influence(value, (top - value * bottom) / bottom.mean())
        return found if clusters is None else replace(found, unit="clusters")

    @classmethod
    def of_influence(
        cls, value: float, influence: Array, other_variance: float = 0.0, other_freedom: float = 1.0
    ) -> "Mean":
        """Return that of a function of means, by the delta method.

        Args:
            value: of the function.
            influence: of each sample on it, ``(n,)``, of mean zero.
            other_variance: of the value, from what was drawn beside the samples.
            other_freedom: degrees of freedom of that variance.
        """
        n = len(influence)
        own = float(influence.var(ddof=1)) / n
        variance = own + other_variance
        if variance == 0:
            return cls(value, 0.0, n, 0.0, n - 1)
        third = float((influence**3).mean()) / n**2
        # Welch and Satterthwaite: the freedom of a sum of variances.
        freedom = variance**2 / (own**2 / (n - 1) + other_variance**2 / other_freedom)
        return cls(value, math.sqrt(variance), n, third / variance**1.5, freedom)

    def above(self, margin: float) -> float:
        """Return the p-value of the corrected t."""
        return self._tail(margin, 1)

    def below(self, margin: float) -> float:
        """Return the p-value of the corrected t."""
        return self._tail(margin, -1)

    def bounds(self) -> tuple[float, float]:
        """Return the margins at which the corrected t is just not surprising."""
        from scipy import stats

        quantile = float(stats.t.ppf(1 - LEVEL, self.freedom))
        low, high = (self.value - self._uncorrected(side * quantile) * self.error for side in (1, -1))
        return max(low, self.within[0]), min(high, self.within[1])

    def needed(self, margin: float, level: float = LEVEL) -> int | None:
        """Return the samples by the normal approximation."""
        variance = self.error**2 * self.n
        return samples_needed(margin - self.value, variance, variance, level)

    def _tail(self, margin: float, sign: int) -> float:
        from scipy import stats

        distance = self.value - margin
        if self.error == 0:
            return 0.0 if sign * distance > 0 else 1.0
        return float(stats.t.sf(sign * self._corrected(distance / self.error), self.freedom))

    def _corrected(self, t: float) -> float:
        if abs(self.skew) < _SYMMETRIC:
            return t
        return ((1 + self.skew * t / 3) ** 3 - 1) / self.skew + self.skew / 6

    def _uncorrected(self, t: float) -> float:
        if abs(self.skew) < _SYMMETRIC:
            return t
        return 3 / self.skew * (float(np.cbrt(1 + self.skew * (t - self.skew / 6))) - 1)


_SYMMETRIC = 1e-6
"""Skewness below which the correction is lost in rounding."""


def retained(similarity: ArrayLike, null: ArrayLike, clusters: ArrayLike | None = None) -> Mean:
    """Return the evidence of retention, (S - S0) / (1 - S0); untrained networks are a sample as well.

    Args:
        similarity: of each sample to the reference, ``(n,)``.
        null: of each untrained network and sample, ``(networks, n)``, two networks or more.
        clusters: to which each sample belongs.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> one = retained(rng.uniform(0.4, 0.8, 256), rng.normal(0, 0.1, (10, 256)))
        >>> round(one.value, 1), one.above(0.5) < 0.05, one.above(0.65) < 0.05
        (0.6, True, False)
    """
    far = np.asarray(null, dtype=np.float64)
    near, untrained = np.asarray(similarity, dtype=np.float64), far.mean(0)
    s, s0 = float(near.mean()), float(untrained.mean())
    slope = (1 - s) / (1 - s0) ** 2  # by which retention falls as S0 rises
    influence = (near - s) / (1 - s0) - (untrained - s0) * slope
    if clusters is not None:
        influence = _by_cluster(influence, clusters)
        influence *= len(influence) / len(near)
    of_networks = slope**2 * float(far.mean(1).var(ddof=1)) / len(far)
    found = Mean.of_influence((s - s0) / (1 - s0), influence, of_networks, len(far) - 1)
    return found if clusters is None else replace(found, unit="clusters")


def weighted(series: Sequence[tuple[ArrayLike, ArrayLike]], clusters: ArrayLike | None = None) -> Mean:
    """Return the evidence of a weighted mean, or of how far one lies above another of the same samples.

    Args:
        series: values and weights of each sample, ``(n,)`` each, of positive mean weight; one or two of them.
        clusters: to which each sample belongs.

    Example:
        >>> values, weights = np.arange(4.0), np.array([1.0, 0.0, 0.0, 3.0])
        >>> weighted([(values, weights)]).value, weighted([(values, weights), (values, weights)]).bounds()
        (2.25, (0.0, 0.0))
    """
    value, influence = 0.0, np.zeros(1)
    for sign, (given, weights) in zip((1, -1), series, strict=False):
        each, weight = np.asarray(given, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        mean = float((weight * each).sum() / weight.sum())
        value, influence = value + sign * mean, influence + sign * (each - mean) * weight / weight.mean()
    n = len(influence)
    if clusters is not None:
        influence = _by_cluster(influence, clusters)
        influence *= len(influence) / n
    found = Mean.of_influence(value, influence) if len(influence) > 1 else Mean(value, math.inf, 1, 0.0, 1)
    return found if clusters is None else replace(found, unit="clusters")


def difference(values: ArrayLike, chosen: ArrayLike, clusters: ArrayLike | None = None) -> Mean:
    """Return by how much the mean of chosen samples lies above that of the others.

    Args:
        values: of each sample, ``(n,)``.
        chosen: which of them are, ``(n,)``; two or more are, and two or more are not.
        clusters: to which each sample belongs.

    Example:
        >>> one = difference([1.0, 2.0, 5.0, 7.0], [False, False, True, True])
        >>> one.value, one.n
        (4.5, 4)
    """
    each, own = np.asarray(values, dtype=np.float64), np.asarray(chosen, dtype=bool)
    means = {side: float(each[own == side].mean()) for side in (True, False)}
    share = float(own.mean())
    influence = np.where(own, (each - means[True]) / share, (means[False] - each) / (1 - share))
    fewer = min(int(own.sum()), len(own) - int(own.sum()))
    if clusters is not None:
        influence = _by_cluster(influence, clusters)
        influence *= len(influence) / len(each)
        fewer = min(fewer, len(influence))
    found = Mean.of_influence(means[True] - means[False], influence)
    # The freedom of the smaller side, which is the least that Welch and Satterthwaite give.
    return replace(found, freedom=max(fewer - 1, 1), unit="samples" if clusters is None else "clusters")


def samples_needed(gap: float, variance: float, variance_at_margin: float, level: float = LEVEL) -> int | None:
    """Return the samples with which a one-sided test decides in 80 of 100 cases.

    Args:
        gap: between the number and the margin.
        variance: of one sample.
        variance_at_margin: of one sample, were the number the margin.
        level: of the test.

    Example:
        >>> samples_needed(0.01, 0.1, 0.1)
        6183
    """
    if gap == 0:
        return None
    quantiles = NormalDist().inv_cdf(1 - level), NormalDist().inv_cdf(POWER)
    spread = quantiles[0] * math.sqrt(max(variance_at_margin, 0.0)) + quantiles[1] * math.sqrt(max(variance, 0.0))
    return max(1, math.ceil((spread / gap) ** 2))


def _normal_tail(score: float) -> float:
    return 0.5 * math.erfc(score / math.sqrt(2))


def _by_cluster(values: Array, clusters: ArrayLike | None) -> Array:
    """Return the sums over clusters; the values themselves without."""
    if clusters is None:
        return values
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, values).astype(np.float64)


def _where(rises: Callable[[float], float], low: float, high: float, otherwise: float) -> float:
    """Return where a rising function crosses zero between two margins."""
    from scipy.optimize import brentq

    return float(brentq(rises, low, high)) if rises(low) < 0 < rises(high) else otherwise
