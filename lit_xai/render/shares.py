"""Comparable maps from raw attributions: every map divided by its own total absolute value."""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
ArrayLike: TypeAlias = torch.Tensor | NDArray[np.generic]


def to_array(values: ArrayLike, name: str) -> Array:
    """Return a tensor (any device, dtype, graph) or array as float64 in memory.

    Raises:
        TypeError: ``values`` does not hold real numbers.

    Example:
        >>> to_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True), "inputs")
        array([1., 1.])
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16, and cannot read a tensor whose negation is pending.
        values = (values if values.is_complex() else values.double()).resolve_neg().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} expected a tensor or array of real numbers, but got {type(values).__name__} of {array.dtype}."
        )
    return array.astype(np.float64)


@dataclass(frozen=True)
class Shares:
    """Signed shares of each map's total ``(N, ...)``, the totals ``(N,)`` and the counts of non-finite values.

    ``cell`` is how many pixels wide and high each value of an image map is.
    """

    values: Array
    totals: Array
    not_finite: NDArray[np.int64]
    cell: int = 1

    @property
    def drawable(self) -> NDArray[np.bool_]:
        """Return which samples have anything to draw, ``(N,)``."""
        return self.totals > 0

    def note(self, sample: int) -> str:
        """Return why the sample's map is empty, or ``""``."""
        if self.drawable[sample]:
            return ""
        return "no finite attribution" if self.not_finite[sample] else "all zero"

    def total(self, sample: int) -> str:
        """Return the total that the sample's shares are shares of, in words, ``""`` where there is none."""
        if not self.drawable[sample] and self.not_finite[sample]:
            return ""
        lost = self.not_finite[sample]
        return f"Σ|a| = {self.totals[sample]:.3g}" + (f", {lost} NaN/Inf" if lost else "")


def shares_of_total(maps: Array) -> Shares:
    r"""Return each map as signed shares of its total: :math:`s_i = a_i / \sum_j |a_j|`, so :math:`\sum_i |s_i| = 1`.

    Shares compare across samples, epochs and methods, where raw attributions grow with the logits. Values that are not
    finite count as nothing and are counted.

    Args:
        maps: one map per sample, ``(N, ...)``.

    Example:
        >>> shares_of_total(np.array([[3.0, -1.0], [0.0, np.nan]])).values
        array([[ 0.75, -0.25],
               [ 0.  ,  0.  ]])
    """
    rows = maps.reshape(len(maps), -1)
    finite = np.isfinite(rows)
    rows = np.where(finite, rows, 0.0)
    # Scaled by the largest value first: totals of huge or denormal values would overflow or divide to infinity.
    peak = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    scaled = rows / np.where(peak > 0, peak, 1.0)
    total = np.abs(scaled).sum(axis=1, keepdims=True)
    values = scaled / np.where(total > 0, total, 1.0)
    with np.errstate(over="ignore"):
        totals = (total * peak)[:, 0]
    return Shares(values.reshape(maps.shape), totals, (~finite).sum(axis=1))


def sum_over(maps: Array, axis: int) -> Array:
    """Return maps summed over one axis; infinities of both signs make NaN, which :class:`Shares` counts.

    Example:
        >>> sum_over(np.array([[1.0, -3.0]]), axis=1)
        array([-2.])
    """
    with np.errstate(invalid="ignore", over="ignore"):  # counted later, so numpy need not warn
        return np.asarray(maps.sum(axis=axis))


def resize(shares: Shares, size: tuple[int, int]) -> Shares:
    """Return image maps ``(N, h, w)`` resized bilinearly to ``size``, each again of total 1.

    Example:
        >>> coarse = shares_of_total(np.ones((1, 2, 2)))
        >>> resize(coarse, (4, 4)).values[0, 0]
        array([0.0625, 0.0625, 0.0625, 0.0625])
    """
    maps = torch.from_numpy(shares.values)[:, None]
    fine = torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0].numpy()
    # Interpolation changes the total; divided again, shares of all maps stay comparable.
    return replace(shares, values=shares_of_total(fine).values)


def pool(shares: Shares, longest: int) -> Shares:
    """Return image maps ``(N, H, W)`` summed over square cells, as small as it takes to have ``longest`` to a side.

    A map larger than its place on the page would be averaged there, and the signs of neighboring pixels would
    cancel to an empty picture; a sum is still a share of the same total.

    Example:
        >>> pool(shares_of_total(np.ones((1, 4, 4))), 2).values
        array([[[0.25, 0.25],
                [0.25, 0.25]]])
    """
    cell = -(-max(shares.values.shape[1:]) // longest)
    if cell == 1:
        return shares
    maps = torch.from_numpy(shares.values)[:, None]
    # A divisor of 1 makes the average a sum, also over the smaller cells at the edges.
    sums = torch.nn.functional.avg_pool2d(maps, cell, ceil_mode=True, divisor_override=1)[:, 0].numpy()
    return replace(shares, values=sums, cell=cell)


def round_up(value: float) -> float:
    """Return the next of 1, 2, 3, 5 (times any power of ten) that is at least ``value``.

    Example:
        >>> round_up(0.0132), round_up(0.3), round_up(6.0)
        (0.02, 0.3, 10.0)
    """
    exponent = math.floor(math.log10(value))
    # From text: 3 * 10 ** -1 is 0.30000000000000004.
    steps = [float(f"{step}e{power}") for power in (exponent, exponent + 1) for step in (1, 2, 3, 5)]
    # The tolerance keeps a value that is a step up to rounding, as a sum of shares may be, at that step.
    return next(step for step in steps if step >= value * (1 - 1e-9))


def percent(share: float) -> str:
    """Return a share as a percentage of at most three digits.

    Example:
        >>> percent(0.02), percent(0.12345), percent(0.00002)
        ('2%', '12.3%', '0.002%')
    """
    digits = f"{100 * share:.3g}"
    return f"{digits if 'e' not in digits else f'{100 * share:.10f}'.rstrip('0')}%"
