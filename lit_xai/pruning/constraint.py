"""Limits on the size of weights, applied to them in place."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Per: TypeAlias = Literal["unit", "tensor"]
"""Whose norm is meant: that of all weights into one output unit or channel, or that of the whole tensor."""
PER: tuple[Per, ...] = ("unit", "tensor")


@torch.no_grad()
def clamp_(weight: Tensor, low: float, high: float) -> Tensor:
    """Move every value of a tensor into ``[low, high]``, and return it.

    Example:
        >>> clamp_(torch.tensor([-2.0, 0.5, 3.0]), -1.0, 1.0)
        tensor([-1.0000,  0.5000,  1.0000])
    """
    return weight.clamp_(low, high)


@torch.no_grad()
def limit_norm_(weight: Tensor, most: float, per: Per = "unit") -> Tensor:
    """Scale down what is longer than ``most`` in Euclidean norm, and return the tensor.

    Max-norm regularization, `Srivastava et al. 2014 <https://jmlr.org/papers/v15/srivastava14a.html>`_.

    Args:
        weight: ``(outputs, ...)``.
        most: a positive norm.
        per: ``"unit"``: of each row, the weights into one output; ``"tensor"``: of all together.

    Example:
        >>> limit_norm_(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    norm = _norm(weight, per)
    return weight.mul_(torch.where(norm > most, most / norm, torch.ones_like(norm)))


@torch.no_grad()
def unit_norm_(weight: Tensor, per: Per = "unit") -> Tensor:
    """Divide a tensor by its Euclidean norm, and return it; what is zero stays zero.

    Args:
        weight: ``(outputs, ...)``.
        per: as for :func:`limit_norm_`.

    Example:
        >>> unit_norm_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
        >>> unit_norm_(torch.tensor([[2.0, 2.0], [2.0, 2.0]]), per="tensor")[0, 0]
        tensor(0.5000)
    """
    norm = _norm(weight, per)
    return weight.div_(torch.where(norm > 0, norm, torch.ones_like(norm)))


def _norm(weight: Tensor, per: Per) -> Tensor:
    """Return the norm in a shape that divides the tensor; a vector's units have one weight each."""
    dims: Sequence[int] = range(weight.dim()) if per == "tensor" else range(1, weight.dim())
    if not dims:
        return weight.abs()
    return torch.linalg.vector_norm(weight, dim=tuple(dims), keepdim=True)


def as_range(clamp: float | Sequence[float]) -> tuple[float, float]:
    """Return the lower and upper end of what may be given as one positive number or as two.

    Raises:
        ValueError: they are no numbers, or not in order.

    Example:
        >>> as_range(0.5), as_range([0, 1])
        ((-0.5, 0.5), (0.0, 1.0))
    """
    try:
        low, high = (-float(clamp), float(clamp)) if isinstance(clamp, (int, float)) else map(float, clamp)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not low < high:
        raise ValueError(f"clamp expected a positive number, or a lower and a higher one, but got {clamp!r}.")
    return low, high
