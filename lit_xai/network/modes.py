"""Networks whose own code does something else in evaluation mode than in training: scores instead of maps, say."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Mode: TypeAlias = Callable[[nn.Module], contextlib.AbstractContextManager[Any]]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LAYERS = ("torch.nn.", "torch.ao.", "torchao.")


@contextlib.contextmanager
def training_code(network: nn.Module) -> Iterator[None]:
    """Run a network's own code as in training inside the context, and its layers as in evaluation.

    A module that holds others and has a forward of its own takes the way of training. Layers of torch, those made of
    them, and whatever holds no other module stay in evaluation mode: no statistic moves and no noise is added. What the
    code itself keeps in buffers is put back.

    Args:
        network: in any mode; left as it is.

    Example:
        >>> class Scored(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.body = nn.Sequential(nn.Linear(2, 3), nn.Dropout())
        ...     def forward(self, x):
        ...         return self.body(x) if self.training else self.body(x).amax(1)
        >>> network, x = Scored().eval(), torch.ones(4, 2)
        >>> with training_code(network):
        ...     network(x).shape, bool((network(x) == network(x)).all())
        (torch.Size([4, 3]), True)
        >>> network(x).shape
        torch.Size([4])
    """
    modes = [(part, part.training) for part in network.modules()]
    own = [part for part in network.modules() if _has_code(part)]
    kept = [
        (part, name, buffer, buffer.detach().clone())
        for part in own
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    for part, _ in modes:
        part.training = False
    for part in own:
        part.training = True
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        with torch.no_grad():
            for part, name, buffer, value in kept:
                buffer.copy_(value)
                part._buffers[name] = buffer


def code_of_training(network: nn.Module, outputs: Callable[[], list[Tensor]]) -> Mode:
    """Return the context in which a network computes all that training does, for one that is never trained itself.

    Args:
        network: in evaluation mode.
        outputs: calls it and returns the tensors in its output.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Dropout()).eval()
        >>> code_of_training(network, lambda: [network(torch.ones(4, 2))]) is training_code
        False
    """
    if not any(_asks_for_mode(part) for part in network.modules() if _has_code(part)):
        return contextlib.nullcontext  # most networks need not run for it
    try:
        with torch.no_grad():
            in_evaluation = [tensor.shape for tensor in outputs()]
            with training_code(network):
                in_training = [tensor.shape for tensor in outputs()]
    except Exception:  # whoever calls it next says what is wrong
        return contextlib.nullcontext
    return contextlib.nullcontext if in_training == in_evaluation else training_code


def _has_code(part: nn.Module) -> bool:
    """Return whether a module holds others and is none of torch's layers, nor derived from one."""
    if next(part.children(), None) is None:
        return False
    bases = [base for base in type(part).__mro__ if base not in (nn.Module, *_CONTAINERS)]
    return not any(base.__module__.startswith(_LAYERS) for base in bases)


def _asks_for_mode(part: nn.Module) -> bool:
    """Return whether the code of a module's own classes reads ``training``."""
    own = [base for base in type(part).__mro__ if not base.__module__.startswith(("torch.", "lightning.", "builtins"))]
    codes = [getattr(value, "__code__", None) for base in own for value in vars(base).values()]
    return any("training" in code.co_names for code in codes if code is not None)
