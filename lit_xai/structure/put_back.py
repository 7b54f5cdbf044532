"""A network that is put back as it was where a change of it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def put_back_on_error(network: nn.Module, values: bool = True) -> Iterator[None]:
    """Put a network back if the block raises: the same modules, parameters, buffers and hooks, with their values.

    Args:
        network: changed in the block.
        values: whether the block may write into tensors that the network has. Their values are copied then, which takes
            as much memory as the network.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3))
        >>> weight = network[0].weight
        >>> with put_back_on_error(network):
        ...     network[0] = nn.Linear(2, 1)
        ...     raise KeyError
        Traceback (most recent call last):
        ...
        KeyError
        >>> network[0].weight is weight
        True
    """
    modules = [(module, type(module), _containers(module)) for module in network.modules()]
    tensors = {id(one): one for one in [*network.parameters(), *network.buffers()]}
    held = [_Held(tensor, values) for tensor in tensors.values()]
    try:
        yield
    except BaseException:
        for module, cls, attributes in modules:
            module.__class__ = cls
            _put_back(module, attributes)
        for tensor in held:
            tensor.put_back()
        raise


class _Held:
    """One tensor of a network, with what can be set on it."""

    def __init__(self, tensor: Tensor, values: bool) -> None:
        self.tensor, self.data, self.requires_grad = tensor, tensor.data, tensor.requires_grad
        self.values = tensor.detach().clone() if values else None

    def put_back(self) -> None:
        self.tensor.data = self.data
        self.tensor.requires_grad_(self.requires_grad)
        if self.values is not None:
            with torch.no_grad():
                self.data.copy_(self.values)


def _containers(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Return a module's attributes, each with a copy where a change may write into it: parameters, modules, hooks."""
    return {
        name: (value, value.copy() if isinstance(value, (dict, list, set)) else None)
        for name, value in vars(module).items()
    }


def _put_back(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    vars(module).clear()
    for name, (value, copied) in attributes.items():
        vars(module)[name] = value
        if isinstance(value, list):
            value[:] = copied
        elif copied is not None:
            value.clear()
            value.update(copied)
