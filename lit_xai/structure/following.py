"""Optimizers that go on with other parameters than they were built with.

They are changed in place: schedulers and scalers refer to their groups.
"""

import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def successor(old: nn.Parameter, value: Tensor) -> nn.Parameter:
    """Return a parameter that is what the old one was to everybody: its flag, its hooks, what was written on it."""
    parameter = nn.Parameter(value, old.requires_grad)
    vars(parameter).update(vars(old))
    if old.requires_grad:
        for hook in (old._backward_hooks or {}).values():
            parameter.register_hook(hook)
        for hook in (old._post_accumulate_grad_hooks or {}).values():
            parameter.register_post_accumulate_grad_hook(hook)
    return parameter


def follow_(
    optimizer: torch.optim.Optimizer, new: dict[int, Tensor], changed: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Put new parameters into the old ones' places, with the state that belongs to them.

    Args:
        optimizer: whose groups are meant.
        new: the new parameters by the ids of the old ones.
        changed: brings a tensor of the old parameter's shape to the new one's, given the old parameter.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        return _start_lbfgs_over(optimizer, new)
    reset = 0
    for group in optimizer.param_groups:
        for place, old in enumerate(group["params"]):
            if id(old) not in new:
                continue
            group["params"][place] = new[id(old)]
            if old in optimizer.state:
                try:
                    state = {k: _cut_state(k, v, old, changed) for k, v in optimizer.state.pop(old).items()}
                except _UncuttableError:
                    reset += 1
                else:
                    optimizer.state[new[id(old)]] = state
    if reset:
        warnings.warn(
            f"{type(optimizer).__name__} keeps state that does not follow its parameters' shapes: it starts anew for"
            f" {reset} of those that were cut.",
            stacklevel=2,
        )
    return None


class _UncuttableError(Exception):
    """An optimizer's state whose shape says nothing of which part belongs to which channel."""


def _cut_state(key: str, value: Any, old: Tensor, changed: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Cut one entry of a parameter's state as the parameter was cut."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if not isinstance(value, Tensor):
        raise _UncuttableError
    shape, full = tuple(value.shape), tuple(old.shape)
    if shape == full:
        return changed(value, old)
    if value.numel() == 1:  # the count of steps
        return value
    # Second moments in factors, of rows and columns: what torch's Adafactor keeps as size 1, others leave away.
    dropped = {"row": -1, "col": -2}.get(key.rpartition("_")[2])
    if dropped is not None and len(full) > 1 and shape == full[:dropped] + full[len(full) + dropped + 1 :]:
        value, squeezed = value.unsqueeze(dropped), True
    else:
        squeezed = False
    if value.dim() != len(full) or any(size not in (1, whole) for size, whole in zip(value.shape, full, strict=True)):
        raise _UncuttableError
    cut = changed(value.expand(full), old)
    for dim, size in enumerate(value.shape):
        cut = cut.narrow(dim, 0, 1) if size == 1 else cut
    return (cut.squeeze(dropped) if squeezed and dropped is not None else cut).contiguous()


def _start_lbfgs_over(optimizer: torch.optim.LBFGS, new: dict[int, Tensor]) -> None:
    """Forget L-BFGS' history, which is one vector over all parameters; private names: ``_params``, ``_numel_cache``."""
    parameters = optimizer.param_groups[0]["params"]
    if not any(id(parameter) in new for parameter in parameters):
        return
    parameters[:] = [new.get(id(parameter), parameter) for parameter in parameters]
    _forget_history(optimizer)


def _forget_history(optimizer: torch.optim.LBFGS) -> None:
    parameters = optimizer.param_groups[0]["params"]
    optimizer._params, optimizer._numel_cache = parameters, None
    if optimizer.state:
        optimizer.state.clear()
        warnings.warn("LBFGS keeps its history as one vector over all parameters: it starts anew.", stacklevel=2)


def exchange_(
    optimizers: Iterable[torch.optim.Optimizer], gone: Collection[nn.Parameter], added: Iterable[tuple[Any, Any]] = ()
) -> None:
    """Take parameters out of optimizers, with their state, and put others in.

    Args:
        optimizers: whose groups are meant.
        gone: what nothing uses any longer.
        added: pairs of a new parameter and the one whose group it belongs to, which may be among those that go.
    """
    ids, beside = {id(parameter) for parameter in gone}, [(new, id(old)) for new, old in added]
    for optimizer in optimizers:
        changes = False
        for group in optimizer.param_groups:
            kept = [parameter for parameter in group["params"] if id(parameter) not in ids]
            held = {id(parameter) for parameter in group["params"]}
            kept += [new for new, old in beside if old in held]
            changes |= list(map(id, kept)) != list(map(id, group["params"]))
            group["params"][:] = kept
        for parameter in gone:
            optimizer.state.pop(parameter, None)
        if changes and isinstance(optimizer, torch.optim.LBFGS):
            _forget_history(optimizer)
