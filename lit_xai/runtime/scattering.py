"""Means over scattered rows in operators that ONNX has: torch writes its own as something else, in silence."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class MeansAsSums(TorchFunctionMode):
    """Computes ``scatter_reduce(..., "mean")`` as sums and counts, for the exporter to ONNX of torch 2.13.

    Example:
        >>> with MeansAsSums():
        ...     torch.zeros(2).scatter_reduce(0, torch.tensor([0, 0, 1]), torch.tensor([1.0, 3.0, 5.0]), "mean")
        tensor([1.3333, 2.5000])
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Call a function of torch, or what computes the same."""
        kwargs = kwargs or {}
        is_mean = "mean" in (kwargs.get("reduce"), *args[4:5])
        if not is_mean or func not in (Tensor.scatter_reduce, Tensor.scatter_reduce_, torch.scatter_reduce):
            return func(*args, **kwargs)
        result = _mean(*args, **kwargs)
        return args[0].copy_(result) if func is Tensor.scatter_reduce_ else result


def _mean(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str = "mean", *, include_self: bool = True
) -> Tensor:
    total = torch.zeros_like(input).scatter_add(dim, index, src)
    count = torch.zeros_like(input).scatter_add(dim, index, torch.ones_like(src))
    if include_self:
        return (input + total) / (count + 1)
    return torch.where(count > 0, total / count.clamp(min=1), input)
