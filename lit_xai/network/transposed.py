"""Linear layers whose weights are stored the other way round, ``(in, out)``, as the usual ones."""

from typing import Any

import torch
from torch import Tensor, nn


class AsLinear(nn.Linear):
    """An ``nn.Linear`` in the place of a layer that stores its weight as ``(in, out)``, such as those of GPT-2.

    Args:
        layer: the layer, with ``nx`` inputs and ``nf`` outputs.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(layer.nx, layer.nf, bias=layer.bias is not None, device="meta")
        self.weight = nn.Parameter(_transposed(layer.weight), layer.weight.requires_grad)
        if layer.weight.grad is not None:
            self.weight.grad = _transposed(layer.weight.grad)
        if layer.bias is not None:
            self.bias = layer.bias
        self.training = layer.training


NAMES = {"out_features": "nf", "in_features": "nx"}
"""Attributes of ``nn.Linear``, and what they are called there."""


def _transposed(weight: Tensor) -> Tensor:
    return weight.detach().t().clone(memory_format=torch.contiguous_format)


def is_transposed(module: nn.Module) -> bool:
    """Return whether a module is a linear layer with a weight ``(in, out)``, by what it holds.

    Example:
        >>> is_transposed(nn.Linear(4, 2))
        False
    """
    weight, sizes = getattr(module, "weight", None), (getattr(module, "nx", None), getattr(module, "nf", None))
    return isinstance(weight, nn.Parameter) and tuple(weight.shape) == sizes and hasattr(module, "bias")


def linearize_(network: nn.Module) -> set[str]:
    """Replace linear layers with a weight ``(in, out)`` by ``nn.Linear``; the network computes the same.

    One whose weight belongs to another module too is left.

    Args:
        network: a throwaway copy.

    Returns:
        The names of the layers that were replaced.
    """
    owners: dict[int, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[nn.Module, AsLinear] = {}
    names = set()
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if not name or not is_transposed(module) or owners[id(module.weight)] > 1:
            continue
        parent, _, attribute = name.rpartition(".")
        found.setdefault(module, AsLinear(module))
        setattr(network.get_submodule(parent), attribute, found[module])
        names.add(name)
    return names


def own_attributes(changed: list[list[Any]], names: set[str]) -> list[list[Any]]:
    """Return attributes that a cut changed, ``[module, attribute, old, new]``, with the layers' own names for them.

    Example:
        >>> own_attributes([["fc", "out_features", 8, 4]], {"fc"})
        [['fc', 'nf', 8, 4]]
    """
    return [
        [name, NAMES.get(attribute, attribute) if name in names else attribute, *rest]
        for name, attribute, *rest in changed
    ]


def in_own_terms(kept: list[list[Any]], names: set[str]) -> list[list[Any]]:
    """Return what a cut keeps, with the dimensions of weights ``(in, out)``.

    Args:
        kept: name, dimension, size before and indices, in terms of ``nn.Linear``.
        names: of :func:`linearize_`.

    Example:
        >>> in_own_terms([["fc.weight", 0, 8, [1]], ["fc.bias", 0, 8, [1]]], {"fc"})
        [['fc.weight', 1, 8, [1]], ['fc.bias', 0, 8, [1]]]
    """
    weights = {f"{name}.weight" for name in names}
    return [[name, 1 - dim if name in weights else dim, *rest] for name, dim, *rest in kept]
