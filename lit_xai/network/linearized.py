"""Linear layers of other classes than ``nn.Linear``, as the usual ones.

Graph libraries have a class of their own with the same weight, GPT-2 one that stores it the other way round.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from lit_xai.network.untouched import fork_rng

SIZES = (("in_features", "out_features"), ("in_channels", "out_channels"), ("nx", "nf"), ("in_dim", "out_dim"))
"""Names of the attributes that hold a linear layer's widths."""


@dataclass(frozen=True)
class Form:
    """How a linear layer stores its weight and its widths.

    Args:
        is_transposed: whether the weight is ``(in, out)`` rather than ``(out, in)``.
        names: attributes of ``nn.Linear``, and what they are called there; empty where it has none.
        is_parameter: whether it is the weight alone, a parameter of another module.
    """

    is_transposed: bool = True
    names: tuple[tuple[str, str], ...] = ()
    is_parameter: bool = False

    def oriented(self, weight: Tensor) -> Tensor:
        """Return a copy of the layer's weight as ``(out, in)``."""
        weight = weight.detach().t() if self.is_transposed else weight.detach()
        return weight.clone(memory_format=torch.contiguous_format)


class AsLinear(nn.Linear):
    """An ``nn.Linear`` in the place of a linear layer of another class.

    Args:
        layer: the layer.
        form: how it stores its weight.
    """

    def __init__(self, layer: Any, form: Form) -> None:
        weight = form.oriented(layer.weight)
        super().__init__(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device="meta")
        self.weight = nn.Parameter(weight, layer.weight.requires_grad)
        if layer.weight.grad is not None:
            self.weight.grad = form.oriented(layer.weight.grad)
        if layer.bias is not None:
            self.bias = layer.bias
        self.training = layer.training


def is_transposed(module: nn.Module) -> bool:
    """Return whether a module is a linear layer with a weight ``(in, out)``, by what it holds.

    Example:
        >>> is_transposed(nn.Linear(4, 2))
        False
    """
    weight, sizes = getattr(module, "weight", None), (getattr(module, "nx", None), getattr(module, "nf", None))
    return isinstance(weight, nn.Parameter) and tuple(weight.shape) == sizes and hasattr(module, "bias")


def linear_form(module: nn.Module) -> Form | None:
    """Return how a module stores its weight if it computes what ``nn.Linear`` does; ``None`` otherwise.

    It is called with random weights and inputs; nothing of it is changed.

    Args:
        module: any module.

    Example:
        >>> class Dense(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight, self.bias = nn.Parameter(torch.zeros(3, 2)), None
        ...
        ...     def forward(self, x):
        ...         return x @ self.weight.T
        >>> linear_form(Dense())
        Form(is_transposed=False, names=(), is_parameter=False)
        >>> linear_form(nn.LayerNorm(3)) is None
        True
    """
    if not _may_be_linear(module):
        return None
    for transposed in (False, True):
        if _computes_linear(module, transposed):
            return Form(transposed, _names(module, transposed))
    return None


def linearize_(network: nn.Module) -> dict[str, Form]:
    """Replace linear layers of other classes by ``nn.Linear``; the network computes the same.

    One whose weight belongs to another module too is left.

    Args:
        network: a throwaway copy.

    Returns:
        The layers that were replaced, by name.
    """
    owners: dict[int, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers: dict[nn.Module, tuple[AsLinear, Form]] = {}
    found = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if not name or owners.get(id(getattr(module, "weight", None)), 0) != 1:
            continue
        if module not in layers:
            form = linear_form(module)
            if form is None:
                continue
            layers[module] = AsLinear(module, form), form
        parent, _, attribute = name.rpartition(".")
        linear, found[name] = layers[module]
        setattr(network.get_submodule(parent), attribute, linear)
    return found


def own_attributes(changed: list[list[Any]], forms: Mapping[str, Form]) -> list[list[Any]]:
    """Return attributes that a cut changed, ``[module, attribute, old, new]``, with the layers' own names for them.

    Example:
        >>> own_attributes([["fc", "out_features", 8, 4]], {"fc": Form(True, (("out_features", "nf"),))})
        [['fc', 'nf', 8, 4]]
    """
    result = []
    for name, attribute, *rest in changed:
        own = dict(forms[name].names).get(attribute) if name in forms else attribute
        if own is not None:
            result.append([name, own, *rest])
    return result


def in_own_terms(kept: list[list[Any]], forms: Mapping[str, Form]) -> list[list[Any]]:
    """Return what a cut keeps, with the dimensions of weights ``(in, out)``.

    Args:
        kept: name, dimension, size before and indices, in terms of ``nn.Linear``.
        forms: of :func:`linearize_`.

    Example:
        >>> in_own_terms([["fc.weight", 0, 8, [1]], ["fc.bias", 0, 8, [1]]], {"fc": Form(is_transposed=True)})
        [['fc.weight', 1, 8, [1]], ['fc.bias', 0, 8, [1]]]
    """
    weights = {f"{name}.weight": (name, form) for name, form in forms.items()}
    result = []
    for name, dim, *rest in kept:
        layer, form = weights.get(name, ("", Form(is_transposed=False)))
        result.append([layer if form.is_parameter else name, 1 - dim if form.is_transposed else dim, *rest])
    return result


def _may_be_linear(module: nn.Module) -> bool:
    """Return whether a module holds what a linear layer does, is called as one, and has nothing else."""
    # Subclasses of torch's own layers are what they derive from.
    if isinstance(module, nn.Linear) or type(module).__module__.startswith("torch.nn."):
        return False
    held = dict(module.named_parameters())
    weight = held.pop("weight", None)
    if weight is None or is_lazy(weight) or weight.dim() != 2 or not weight.is_floating_point():
        return False
    if held.keys() - {"bias"} or (getattr(module, "bias", False) is None) is ("bias" in held):
        return False
    if any(True for _ in module.buffers()) or module._forward_hooks or module._forward_pre_hooks:
        return False
    return len(inspect.signature(module.forward).parameters) == 1


def _computes_linear(module: nn.Module, transposed: bool) -> bool:
    held = dict(module.named_parameters())
    n, width = held["weight"].shape if transposed else held["weight"].shape[::-1]
    with fork_rng(0), torch.no_grad():
        drawn = {name: torch.rand_like(one) - 0.5 for name, one in held.items()}
        x = torch.rand(2, 3, n, dtype=held["weight"].dtype, device=held["weight"].device) - 0.5
        weight = drawn["weight"].t() if transposed else drawn["weight"]
        try:
            found = functional_call(module, drawn, (x,))
        except Exception:  # of another class of layers, which takes other inputs
            return False
        expected = nn.functional.linear(x, weight, drawn.get("bias"))
        if not isinstance(found, Tensor) or found.shape != (2, 3, width):
            return False
        return bool(torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * n**0.5))


def _names(module: nn.Module, transposed: bool) -> tuple[tuple[str, str], ...]:
    shape = tuple(dict(module.named_parameters())["weight"].shape)
    sizes = shape if transposed else shape[::-1]
    for names in SIZES:
        if tuple(vars(module).get(name) for name in names) == sizes:
            return tuple(zip(SIZES[0], names, strict=True))
    return ()
