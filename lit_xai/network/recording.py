"""Records of a network's calls, arguments and outputs, made while other code calls it.

Private name in use: ``nn.Module._compiled_call_impl``, the function that ``module.compile()`` sets and a module's call
uses. A function in its place sees every call, compiled or not, while hooks would be compiled in or skipped; and torch
keeps that attribute out of copies and pickles.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lit_xai.network.trees import changed, leaves, with_own_containers


@dataclass
class Call:
    """One call of a network.

    Args:
        name: of the network.
        args: its positional arguments.
        kwargs: its keyword arguments.
        result: its output.
        layers: outputs of the watched layers, by name; for a layer that ran several times, the last one, and of a tuple
            of which the first is a tensor, that: blocks of transformers return their hidden states so.
        first: of a call that stands for several parts, the arguments of the first one.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    layers: dict[str, Any] = field(default_factory=dict)
    first: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def tensors(self) -> list[Tensor]:
        """Return the floating tensors in the arguments, also in nested lists and dicts."""
        return [value for _, value in leaves((self.args, self.kwargs)) if value.is_floating_point()]

    def has_tokens_of(self, value: Tensor) -> bool:
        """Return whether a layer's output is ``(N, L, C)``, for tokens ``(N, L)`` in the arguments.

        Args:
            value: the output.
        """
        given = [one for _, one in leaves((self.args, self.kwargs)) if not one.is_floating_point()]
        return value.dim() == 3 and any(one.shape == value.shape[:2] for one in given)

    def attention_mask(self) -> Tensor | None:
        """Return the argument ``(N, L)`` of this name, True for tokens and False for padding, if there is one."""
        masks = [value > 0 for name, value in leaves(self.kwargs) if "attention_mask" in name and value.dim() == 2]
        return masks[0] if masks else None


@contextlib.contextmanager
def recorded(
    networks: Mapping[str, nn.Module],
    layers: Mapping[str, nn.Module] | None = None,
    *,
    inputs: Callable[[Tensor], Tensor] | None = None,
    outputs: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[list[Call]]:
    """Record the calls of networks inside the context; a call within another network's call is not recorded.

    Args:
        networks: by name.
        layers: layers whose outputs are kept with the call they belong to, by name.
        inputs: a function applied to each floating tensor that a network is called with.
        outputs: a function applied to each tensor that a layer returns.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with recorded({"network": network}, {"0": network[0]}) as calls:
        ...     out = network(torch.zeros(4, 2))
        >>> calls[0].name, calls[0].args[0].shape, calls[0].result is out, calls[0].layers["0"].shape
        ('network', torch.Size([4, 2]), True, torch.Size([4, 3]))
    """
    calls: list[Call] = []
    running: list[Call] = []

    def around_network(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if running:
            return original(*args, **kwargs)
        if inputs is not None:
            args, kwargs = (_changed(value, inputs) for value in (args, kwargs))
        # What was given: a network may write into it.
        call = Call(name, *with_own_containers((args, kwargs)))
        running.append(call)
        try:
            call.result = original(*args, **kwargs)
        finally:
            running.pop()
        calls.append(call)
        return call.result

    def around_layer(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if running:
            result = result if outputs is None else _changed(result, outputs)
            is_first = isinstance(result, tuple) and len(result) > 0 and isinstance(result[0], Tensor)
            running[-1].layers[name] = result[0] if is_first else result
        return result

    with contextlib.ExitStack() as stack:
        for name, layer in (layers or {}).items():
            stack.enter_context(in_place_of_call(layer, name, around_layer))
        for name, network in networks.items():
            stack.enter_context(in_place_of_call(network, name, around_network))
        yield calls


def requires_grad(value: Tensor) -> Tensor:
    """Return a floating tensor that requires a gradient: the tensor itself if it does, else a detached one.

    Example:
        >>> import torch
        >>> requires_grad(torch.zeros(2)).requires_grad
        True
    """
    return value if value.requires_grad else value.detach().requires_grad_()


def _changed(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return changed(tree, lambda value: change(value) if value.is_floating_point() else value)


@contextlib.contextmanager
def in_place_of_call(module: nn.Module, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Have ``around(name, original, *args, **kwargs)`` called in place of a module inside the context.

    Args:
        module: compiled or not.
        name: handed on.
        around: may call ``original``, the module's own call, or not.
    """
    held = vars(module)
    compiled = {key: value for key, value in held.items() if key == "_compiled_call_impl"}
    original = compiled.get("_compiled_call_impl") or module._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        return around(name, original, *args, **kwargs)

    held["_compiled_call_impl"] = call
    try:
        yield
    finally:
        # If other code replaced the call in the meantime, its function stays.
        if held.get("_compiled_call_impl") is call:
            del held["_compiled_call_impl"]
            held.update(compiled)
