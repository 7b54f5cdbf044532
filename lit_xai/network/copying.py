"""Copies of a network that nothing else refers to, and networks without ``torch.compile`` around them."""

import copy
from collections import OrderedDict
from typing import Any

from torch import nn


def copy_network(network: nn.Module) -> nn.Module:
    """Deep-copy a network, but not the trainer that a LightningModule refers to, nor its compiled methods.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> copy_network(network).weight is network.weight
        False
    """
    outside = [vars(m).get(name) for m in network.modules() for name in ("_trainer", "_fabric")]
    known: dict[int, Any] = {id(value): value for value in outside if value is not None}
    # Two fifths of what a copy costs is the dozen of empty hook tables of every module: deepcopy is slow at these.
    parts = [value for module in network.modules() for value in vars(module).values()]
    known |= {id(value): type(value)() for value in parts if type(value) in (OrderedDict, set) and not value}
    copied = copy.deepcopy(network, known)
    for name in getattr(copied, "_compiler_ctx", None) or {}:  # of a compiled one: they would call the original
        vars(copied).pop(name.removeprefix("original_"), None)
    return copied


def uncompiled_(copied: nn.Module) -> nn.Module:
    """Take ``torch.compile``'s wrappers out of a copy: what happens inside could not be seen.

    Example:
        >>> copied = copy_network(nn.Sequential(nn.Linear(2, 2)))
        >>> uncompiled_(copied)[0]
        Linear(in_features=2, out_features=2, bias=True)
    """
    for module in list(copied.modules()):
        module._modules.update({name: getattr(part, "_orig_mod", part) for name, part in module._modules.items()})
    return copied
