"""Independent copies of a network, and networks without ``torch.compile`` around them."""

import copy
from collections import OrderedDict
from typing import Any

from torch import nn


def copy_network(network: nn.Module) -> nn.Module:
    """Deep-copy a network, without the trainer that a LightningModule refers to and without its compiled methods.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> copy_network(network).weight is network.weight
        False
    """
    # In deepcopy's memo these stand for themselves: a copied Trainer would bring its loaders and loggers along.
    outside = [vars(m).get(name) for m in network.modules() for name in ("_trainer", "_fabric")]
    known: dict[int, Any] = {id(value): value for value in outside if value is not None}
    # Copying the dozen empty hook tables of every module takes two fifths of the time of a deep copy.
    parts = [value for module in network.modules() for value in vars(module).values()]
    known |= {id(value): type(value)() for value in parts if type(value) in (OrderedDict, set) and not value}
    copied = copy.deepcopy(network, known)
    for name in getattr(copied, "_compiler_ctx", None) or {}:  # a compiled copy's methods would call the original
        vars(copied).pop(name.removeprefix("original_"), None)
    return copied


def uncompiled_(copied: nn.Module) -> nn.Module:
    """Remove ``torch.compile``'s wrappers from a copy, since hooks inside compiled code do not run.

    Example:
        >>> copied = copy_network(nn.Sequential(nn.Linear(2, 2)))
        >>> uncompiled_(copied)[0]
        Linear(in_features=2, out_features=2, bias=True)
    """
    for module in list(copied.modules()):
        module._modules.update({name: getattr(part, "_orig_mod", part) for name, part in module._modules.items()})
    return copied
