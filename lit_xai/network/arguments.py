"""The arguments of a network's call, in the simplest form that calls it the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from lit_xai.network.trees import leaves


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of a call of any shape: positional and keyword, nested, tensors or not.

    Args:
        args: the positional ones.
        kwargs: those by keyword.

    Example:
        >>> import torch
        >>> [name for name, _ in named_leaves(Arguments((torch.zeros(2), "sum"), {"mask": torch.ones(2)}))]
        ['0', 'mask']
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


Inputs: TypeAlias = Tensor | tuple[Any, ...] | dict[str, Any] | Arguments
"""The inputs of a network: one tensor, positional arguments, keyword arguments, or both."""


def inputs_of_call(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Inputs:
    """Return the arguments of a call that took place as inputs, with which it can be repeated.

    One tensor for a single one, a tuple where all are positional, a dict where all are keywords, and else
    :class:`Arguments`; :func:`~lit_xai.network.calling.call_network` calls the network the same with each.

    Args:
        args: the positional arguments.
        kwargs: the keyword arguments.

    Example:
        >>> import torch
        >>> inputs_of_call((torch.zeros(2),)), inputs_of_call((), {"flag": True})
        (tensor([0., 0.]), {'flag': True})
        >>> inputs_of_call(("text",), {"flag": True})
        Arguments(args=('text',), kwargs={'flag': True})
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    if args and kwargs:
        return Arguments(args, kwargs)
    if kwargs:
        return kwargs
    # A tuple, in which a single dict, list or tuple cannot be taken for the arguments themselves.
    return args[0] if len(args) == 1 and isinstance(args[0], Tensor) else args


def elements(inputs: Any) -> dict[int | str, Any]:
    """Return arguments by position or keyword, also those that are no tensors.

    Example:
        >>> elements(Arguments(("a",), {"flag": True})), elements(("a", "b")), elements("a")
        ({0: 'a', 'flag': True}, {0: 'a', 1: 'b'}, {0: 'a'})
    """
    if isinstance(inputs, Arguments):
        return {**dict(enumerate(inputs.args)), **dict[Any, Any](inputs.kwargs)}
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return dict(enumerate(inputs if isinstance(inputs, (tuple, list)) else [inputs]))


def named_leaves(inputs: Inputs) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in inputs with its name: keywords and positions, nested ones joined by dots.

    They come in the order of :func:`~lit_xai.network.trees.leaves`.

    Example:
        >>> import torch
        >>> [name for name, _ in named_leaves(({"nodes": torch.zeros(2)}, torch.zeros(2)))]
        ['0.nodes', '1']
        >>> [name for name, _ in named_leaves(torch.zeros(2))]
        ['']
    """
    yield from leaves(elements(inputs) if isinstance(inputs, Arguments) else inputs)
