"""Whole numbers that a network reads out of its tensors, such as how many graphs there are: what a file cannot do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READ = torch.ops.aten._local_scalar_dense.default


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _is_read(func, args):
            self.numbers.append(result)
        return result


class FixedReads(TorchDispatchMode):
    """Gives a network the whole numbers that it read before, in their order, while it is exported.

    A condition (``if x.sum() > 0``) is no such number, and stays what exporters refuse.

    Args:
        numbers: from :func:`numbers_read`.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        self._left = iter(numbers)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Call an operator of torch, or return the next number."""
        if _is_read(func, args) and (number := next(self._left, None)) is not None:
            return number
        return func(*args, **(kwargs or {}))


def numbers_read(run: Callable[[], object]) -> list[int]:
    """Return the whole numbers that code reads out of tensors with ``int()``, ``.item()`` or as a size.

    Example:
        >>> numbers_read(lambda: torch.zeros(int(torch.tensor([0, 0, 1]).max()) + 1))
        [1]
    """
    with _Recording() as recording:
        run()
    return recording.numbers


def _is_read(func: Any, args: Any) -> bool:
    return func is _READ and not (args[0].is_floating_point() or args[0].is_complex() or args[0].dtype == torch.bool)
