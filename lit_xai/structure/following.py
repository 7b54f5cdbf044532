"""Change the parameters of optimizers during training, and their state with them.

Groups are changed in place, because schedulers, gradient scalers and Lightning's wrappers hold references to them.
"""

import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def successor(old: nn.Parameter, value: Tensor) -> nn.Parameter:
    """Return a parameter with a new value, and the old one's ``requires_grad``, hooks and attributes."""
    parameter = nn.Parameter(value, old.requires_grad)
    # Attributes that users or libraries set on parameters.
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
    """Put new parameters in the places of old ones, and change their optimizer state in the same way.

    Args:
        optimizer: changed in place.
        new: new parameters by the ``id`` of the old ones.
        changed: maps a tensor of the old parameter's shape to the new shape, given that tensor and the old parameter.
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
                    # pop: the state is held by the parameter object, and would keep the old one alive.
                    state = {k: _cut_state(k, v, old, changed) for k, v in optimizer.state.pop(old).items()}
                except _UncuttableError:
                    reset += 1
                else:
                    optimizer.state[new[id(old)]] = state
    if reset:
        warnings.warn(
            f"{type(optimizer).__name__} keeps state whose shape does not follow its parameters: that of {reset} pruned"
            f" parameter{'s' if reset > 1 else ''} starts from zero.",
            stacklevel=2,
        )
    return None


class _UncuttableError(Exception):
    """Optimizer state whose shape does not tell which part belongs to which channel."""


def _cut_state(key: str, value: Any, old: Tensor, changed: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Return one entry of a parameter's state, changed as the parameter was."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if not isinstance(value, Tensor):
        raise _UncuttableError
    shape, full = tuple(value.shape), tuple(old.shape)
    if shape == full:
        return changed(value, old)
    if value.numel() == 1:  # the count of steps
        return value
    dropped = _dropped_dim(key, shape, full)
    # A factored moment is constant along its reduced dimension: expand it to the full shape, cut it, keep one slice.
    whole = value if dropped is None else value.unsqueeze(dropped)
    if whole.dim() != len(full) or any(size not in (1, n) for size, n in zip(whole.shape, full, strict=True)):
        raise _UncuttableError
    cut = changed(whole.expand(full), old)
    for dim, size in enumerate(whole.shape):
        cut = cut.narrow(dim, 0, 1) if size == 1 else cut
    return (cut if dropped is None else cut.squeeze(dropped)).contiguous()


def _dropped_dim(key: str, shape: tuple[int, ...], full: tuple[int, ...]) -> int | None:
    """Return the dimension that a factored second moment lacks, ``None`` if it has all of them.

    torch's Adafactor keeps the reduced dimension with size 1; that of transformers and fairseq drops it.
    """
    # Both of a square weight have the same shape: only the name of the entry tells which dimension is gone.
    dim = {"row": -1, "col": -2}.get(key.rpartition("_")[2])
    is_dropped = dim is not None and len(full) > 1 and shape == full[:dim] + full[len(full) + dim + 1 :]
    return dim if is_dropped else None


def _start_lbfgs_over(optimizer: torch.optim.LBFGS, new: dict[int, Tensor]) -> None:
    """Reset L-BFGS, whose history is one flat vector over all parameters (private: ``_params``, ``_numel_cache``)."""
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
        warnings.warn(
            "LBFGS keeps its history as one vector over all parameters: the history starts from zero.", stacklevel=2
        )


def exchange_(
    optimizers: Iterable[torch.optim.Optimizer], gone: Collection[nn.Parameter], added: Iterable[tuple[Any, Any]] = ()
) -> None:
    """Remove parameters and their state from optimizers, and add new ones.

    Args:
        optimizers: changed in place.
        gone: parameters that nothing uses any longer.
        added: pairs ``(new, old)``: the new parameter joins the group of the old one, which may be among ``gone``.

    Example:
        >>> old, new = nn.Linear(4, 4).weight, nn.Linear(4, 2).weight
        >>> optimizer = torch.optim.SGD([{"params": [old], "weight_decay": 0.1}])
        >>> exchange_([optimizer], [old], [(new, old)])
        >>> [group["params"] == [new] for group in optimizer.param_groups]
        [True]
    """
    # By id, since == compares tensors by element.
    ids, beside = {id(parameter) for parameter in gone}, [(new, id(old)) for new, old in added]
    for optimizer in optimizers:
        changes = False
        for group in optimizer.param_groups:
            kept = [parameter for parameter in group["params"] if id(parameter) not in ids]
            held = {id(parameter) for parameter in group["params"]}
            kept += [new for new, old in beside if old in held]
            # L-BFGS keeps one vector over all parameters, so any change of the list makes it void.
            changes |= list(map(id, kept)) != list(map(id, group["params"]))
            group["params"][:] = kept
        for parameter in gone:
            optimizer.state.pop(parameter, None)
        if changes and isinstance(optimizer, torch.optim.LBFGS):
            _forget_history(optimizer)
