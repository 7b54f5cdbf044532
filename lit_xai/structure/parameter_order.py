"""The order of parameters in optimizers, by name.

A checkpoint stores optimizer state by position. A step that folds, splits or replaces layers moves parameters, so that
the optimizers of a resumed run, which are built on the changed module, hold them in another order or another group.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from lit_xai.network.calling import plain_name

Names = list[list[list[str]]]
"""Names by optimizer, group and position; empty for a parameter that does not belong to the module."""


def parameter_names(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> Names:
    """Return the names of the parameters in each group of each optimizer.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> parameter_names(layer, [torch.optim.SGD([{"params": [layer.bias]}, {"params": [layer.weight]}])])
        [[['bias'], ['weight']]]
    """
    names = {id(parameter): plain_name(name) for name, parameter in module.named_parameters()}
    return [[[names.get(id(p), "") for p in group["params"]] for group in one.param_groups] for one in optimizers]


def untrained(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> list[str]:
    """Return the names of parameters that require gradients and belong to none of the optimizers.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> untrained(layer, [torch.optim.SGD([layer.weight])])
        ['bias']
    """
    held = {id(parameter) for one in optimizers for group in one.param_groups for parameter in group["params"]}
    return [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in held]


def optimizers_in(configured: Any) -> list[torch.optim.Optimizer]:
    """Return the optimizers in the output of ``configure_optimizers``, in any of its forms, in order.

    Example:
        >>> sgd = torch.optim.SGD(nn.Linear(2, 2).parameters())
        >>> optimizers_in({"optimizer": sgd, "lr_scheduler": {"scheduler": None}}) == [sgd]
        True
    """
    return [one for one in tree_leaves(configured) if isinstance(one, torch.optim.Optimizer)]


def arrange_parameters_(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer], names: Names) -> None:
    """Order the parameters of newly built optimizers as they were when a checkpoint was written.

    Optimizers with other parameters or another number of groups are left alone: torch refuses to load their state, as
    it does without any structural step.

    Args:
        module: in the structure of the checkpoint.
        optimizers: without state yet. Groups are changed in place, so schedulers stay valid.
        names: from :func:`parameter_names`.
    """
    # Without torch.compile's prefixes: a compiled run may be resumed uncompiled, and the other way round.
    named = {plain_name(name): parameter for name, parameter in module.named_parameters()}
    for optimizer, groups in zip(optimizers, names, strict=False):
        wanted = _ordered(optimizer, groups, named)
        if wanted is not None:
            for group, parameters in zip(optimizer.param_groups, wanted, strict=True):
                group["params"][:] = parameters


def put_parameters_(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer], held: Names, wanted: Names) -> None:
    """Have optimizers hold a module's present parameters of these names, after they became new objects.

    Groups are changed in place, and the state of parameters that go is dropped.

    Args:
        module: whose parameters are new.
        optimizers: with parameters that it had before.
        held: names of what they hold now, from :func:`parameter_names` before the change.
        wanted: names of what they are to hold; groups that are missing there keep the names that they have.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(layer.parameters())
        >>> held = parameter_names(layer, [optimizer])
        >>> layer.weight = nn.Parameter(torch.zeros(2, 2))
        >>> put_parameters_(layer, [optimizer], held, held)
        >>> optimizer.param_groups[0]["params"][0] is layer.weight
        True
    """
    named = {plain_name(name): parameter for name, parameter in module.named_parameters()}
    for optimizer, now, then in zip(optimizers, held, wanted, strict=True):
        names = [*then, *now[len(then) :]]
        for group, present, future in zip(optimizer.param_groups, now, names, strict=True):
            # Parameters outside the module, such as those of a loss, keep their order.
            unnamed = iter([one for one, name in zip(group["params"], present, strict=True) if not name])
            put = [named.get(name) if name else next(unnamed, None) for name in future]
            group["params"][:] = [one for one in put if one is not None]
        kept = {id(one) for group in optimizer.param_groups for one in group["params"]}
        for parameter in [one for one in optimizer.state if id(one) not in kept]:
            del optimizer.state[parameter]


def _ordered(
    optimizer: torch.optim.Optimizer, groups: list[list[str]], named: Mapping[str, nn.Parameter]
) -> list[list[Any]] | None:
    """Return the optimizer's parameters in the order of ``groups``, ``None`` if they are not the same ones."""
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    of_module = {id(parameter) for parameter in named.values()}
    # Parameters outside the module, such as those of a loss, have no name. They keep their order among themselves.
    unnamed = iter([parameter for key, parameter in held.items() if key not in of_module])
    wanted = [[named.get(name) if name else next(unnamed, None) for name in group] for group in groups]
    ids = [id(parameter) for group in wanted for parameter in group]
    is_same = len(groups) == len(optimizer.param_groups) and len(ids) == len(held) and set(ids) == set(held)
    return wanted if is_same else None
