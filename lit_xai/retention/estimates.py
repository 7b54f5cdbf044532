"""Numbers with their 95% intervals: shares of samples, means over samples, and paired means of two networks."""

import math
from dataclasses import dataclass

from torch import Tensor

LEVEL = 0.95
"""Confidence level of every interval."""

_NORMAL = 1.959963984540054  # its quantile at (1 + LEVEL) / 2


@dataclass(frozen=True)
class Share:
    """How many of the samples something holds for, with Wilson's interval, which also fits shares near 0 and 1.

    E. B. Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.

    Args:
        count: samples for which it holds.
        n: samples.
        value: the share.
        low: the lower end of the interval.
        high: its upper end.
    """

    count: int
    n: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, holds: Tensor) -> "Share":
        """Return the share of booleans ``(n,)`` that are true, of one or more.

        Example:
            >>> import torch
            >>> Share.of(torch.arange(100) < 3)
            Share(count=3, n=100, value=0.03, low=0.0102..., high=0.0845...)
        """
        count, n, squared = int(holds.sum()), len(holds), _NORMAL**2
        share = count / n
        middle = (share + squared / (2 * n)) / (1 + squared / n)
        half = _NORMAL * math.sqrt(share * (1 - share) / n + squared / (4 * n**2)) / (1 + squared / n)
        # Where none or all count an end is exact: rounding would leave 1e-17.
        return cls(count, n, share, middle - half if count else 0.0, middle + half if count < n else 1.0)


@dataclass(frozen=True)
class Mean:
    """A mean over samples with Student's t interval; of a single sample there is none.

    Args:
        value: the mean.
        low: the lower end of the interval.
        high: its upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Tensor) -> "Mean":
        """Return the mean of values ``(n,)``.

        Example:
            >>> import torch
            >>> Mean.of(torch.tensor([1.0, 2.0, 3.0]))
            Mean(value=2.0, low=-0.484..., high=4.484...)
        """
        values = values.detach().double().cpu()
        n, mean = len(values), float(values.mean())
        if n < 2:
            return cls(mean)
        from scipy import stats  # half a second to import

        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std() / math.sqrt(n))
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Paired:
    """Means of two networks over the same samples, and the mean of their differences.

    Args:
        reference: the mean of the first.
        candidate: the mean of the second.
        change: candidate minus reference, sample by sample: far narrower than the two intervals apart.
    """

    reference: float
    candidate: float
    change: Mean

    @classmethod
    def of(cls, reference: Tensor, candidate: Tensor) -> "Paired":
        """Return the means of values ``(n,)`` of the same samples.

        Example:
            >>> import torch
            >>> Paired.of(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])).change
            Mean(value=0.0, low=0.0, high=0.0)
        """
        first, second = reference.detach().double().cpu(), candidate.detach().double().cpu()
        return cls(float(first.mean()), float(second.mean()), Mean.of(second - first))
