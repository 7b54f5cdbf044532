"""Calls that ``torch.export`` cannot follow, in a form that it can."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_READS = frozenset({Tensor.tolist, Tensor.item, Tensor.__int__, Tensor.__index__})
_ARRAYS: set[Any] = {Tensor.numpy, Tensor.__array__}
_CLAMPS = frozenset({torch.clamp, torch.clip, Tensor.clamp, Tensor.clip, Tensor.clamp_, Tensor.clip_})


class Traceable(TorchFunctionMode):
    """Run functions that ``torch.export`` and its ONNX exporter stumble over in another way, with the same results.

    - ``copy.deepcopy`` of a tensor, as in the constructor of a metric, asks for its memory, and a traced one has none.
    - ``torch.arange(1, 3).tolist()`` counts as numbers read out of data.
    - ``x.numpy()``, as of what a module keeps for figures, asks for values that a traced tensor has not: they are NaN.
      Where a network goes on computing with them, so is what its file computes, which no check lets pass.
    - ``clamp`` of floats between an integer and a float is an operator of ONNX that does not exist.

    Example:
        >>> with Traceable():
        ...     torch.arange(1, 3).tolist(), torch.rand(2).clamp(2, 2.5).tolist()
        ([1, 2], [2.0, 2.0])
    """

    def __init__(self) -> None:
        super().__init__()
        # What is counted here is known; by the tensor's identity, without keeping it alive.
        self._known: Any = WeakTensorKeyDictionary()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or what stands in for it."""
        kwargs = kwargs or {}
        if function is Tensor.__deepcopy__:
            return _copied(*args, **kwargs)
        if function in _ARRAYS:
            return _as_array(function, *args, **kwargs)
        if function in _READS and (numbers := self._numbers(args[0])) is not None:
            return numbers
        if function in _CLAMPS and args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            args = (args[0], *map(_as_float, args[1:]))
            kwargs = {name: _as_float(value) for name, value in kwargs.items()}
        result = function(*args, **kwargs)
        if function is torch.arange and {*map(type, args)} == {int} and not kwargs:
            self._known[result] = [*range(*args)], result._version
        if function is Tensor.unbind and (numbers := self._numbers(args[0])) is not None:
            # A traced tensor becomes a list this way.
            self._known.update({part: (n, part._version) for part, n in zip(result, numbers, strict=True)})
        return result

    def _numbers(self, tensor: Tensor) -> Any:
        numbers, version = self._known.get(tensor, (None, 0))
        if version != tensor._version:
            return None
        return [*numbers] if isinstance(numbers, list) else numbers


def _as_array(function: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(tensor, *args, **kwargs)
    except RuntimeError:
        if tensor.requires_grad or not tensor.is_floating_point():  # refused outside of an export too, or without a NaN
            raise
        return np.full([int(size) for size in tensor.shape], np.nan, np.float32)


def _as_float(bound: Any) -> Any:
    return float(bound) if type(bound) is int else bound


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    copied: Tensor = memo.setdefault(id(tensor), tensor.detach().clone())
    return copied
