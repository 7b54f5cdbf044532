"""A cut: which indices were kept of which dimension of each parameter and buffer, and which attributes were set."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import plain_name
from lit_xai.network.spelling import nearest
from lit_xai.structure.following import follow_, successor
from lit_xai.structure.kinds import Step, StepKind, check_entries


class Prune(StepKind):
    """Keep some indices of some dimensions of parameters and buffers, and set the attributes that hold their sizes."""

    name, label, order = "prune", "pruned", 10

    def check(self, step: Step) -> None:
        """Refuse a step without what is kept and set."""
        check_entries(step, kept=list, attributes=list)

    def apply_(self, network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
        """Keep the named indices, set the named attributes.

        Parameters become new objects, as their shapes do, with the old ones' flags, hooks and attributes; optimizers
        are given them in the old ones' places, with their state (momentum, moments, row and column factors) cut the
        same way. State that cannot be cut starts from zero, with a warning.

        Args:
            network: whose names the step uses, with or without what ``torch.compile`` puts into names.
            step: what to keep and to set.
            optimizers: whose parameters are among the network's.

        Raises:
            ValueError: a name is not there, or has another size than when the step was recorded. Nothing is changed
                then.
        """
        # Everything is checked before anything is changed.
        found = _check(network, step, recorded=lambda size, kept: size)
        _rebuild(network, step, found, optimizers, lambda value, dim, size, kept: value.index_select(dim, kept))
        modules = _modules(network)
        for name, attribute, _, new in step["attributes"]:
            setattr(modules[plain_name(name)], attribute, _plain(new))

    def undo_(self, network: nn.Module, step: Step) -> None:
        """Undo a cut: restore the earlier shapes and attributes, with zeros where values were removed.

        Raises:
            ValueError: the network is not what the step led to.
        """

        def widened(value: Tensor, dim: int, size: int, kept: Tensor) -> Tensor:
            room = value.new_zeros([*value.shape[:dim], size, *value.shape[dim + 1 :]])
            return room.index_copy(dim, kept, value)

        found = _check(network, step, recorded=lambda size, kept: len(kept))
        _rebuild(network, step, found, (), widened)
        modules = _modules(network)
        for name, attribute, old, _ in step["attributes"]:
            setattr(modules[plain_name(name)], attribute, _plain(old))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _modules(network: nn.Module) -> dict[str, nn.Module]:
    # A wrapper comes before what it wraps, which then takes its name.
    return {plain_name(name): module for name, module in network.named_modules(remove_duplicate=False)}


def _check(network: nn.Module, step: Step, recorded: Callable[[int, list[int]], int]) -> dict[str, Tensor]:
    """Return the network's tensors by their names there, after making sure that the step fits."""
    tensors = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    named, modules = {plain_name(name): tensor for name, tensor in tensors.items()}, _modules(network)
    for name, dim, size, kept in step["kept"]:
        if plain_name(name) not in named:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: it has no {name!r}.{nearest(name, named)}"
            )
        expected, shape = recorded(size, kept), tuple(named[plain_name(name)].shape)
        if dim >= len(shape) or shape[dim] != expected:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: {name!r} expected size {expected} in dimension"
                f" {dim}, but got shape {shape}."
            )
    missing = next((name for name, *_ in step["attributes"] if plain_name(name) not in modules), None)
    if missing is not None:
        raise ValueError(
            f"The recipe does not fit {type(network).__name__}: it has no {missing!r}.{nearest(missing, modules)}"
        )
    return tensors


Cuts = dict[int, tuple[int, Tensor]]
"""By dimension: size before, indices kept."""

Change = Callable[[Tensor, int, int, Tensor], Tensor]


def _rebuild(
    network: nn.Module,
    step: Step,
    tensors: dict[str, Tensor],
    optimizers: Iterable[torch.optim.Optimizer],
    change: Change,
) -> None:
    # By the tensor's identity, so that a tied one is cut once and stays tied.
    cuts: dict[int, Cuts] = {}
    named = {plain_name(name): tensor for name, tensor in tensors.items()}
    modules = dict(network.named_modules(remove_duplicate=False))
    for name, dim, size, kept in step["kept"]:
        tensor = named[plain_name(name)]  # one that has two names is cut once
        cuts.setdefault(id(tensor), {})[dim] = size, torch.tensor(kept, device=tensor.device, dtype=torch.int64)
    new: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if id(tensor) not in cuts:
                continue
            if id(tensor) not in new:
                value = _changed(tensor.detach(), cuts[id(tensor)], change)
                new[id(tensor)] = successor(tensor, value) if isinstance(tensor, nn.Parameter) else value
                if isinstance(tensor, nn.Parameter) and tensor.grad is not None:  # accumulated over batches
                    new[id(tensor)].grad = _changed(tensor.grad, cuts[id(tensor)], change)
            owner, _, attribute = name.rpartition(".")
            module = modules[owner]
            held: dict[str, Any] = module._parameters if attribute in module._parameters else module._buffers
            held[attribute] = new[id(tensor)]
        for optimizer in optimizers:
            follow_(optimizer, new, lambda value, old: _changed(value, cuts[id(old)], change))


def _changed(value: Tensor, cuts: Cuts, change: Change) -> Tensor:
    # index_select and index_copy give contiguous results: without this, channels_last weights, and the speed that they
    # were chosen for, would be lost with the first cut.
    layout = torch.channels_last if value.dim() == 4 else torch.channels_last_3d
    is_last = value.dim() in (4, 5) and not value.is_contiguous() and value.is_contiguous(memory_format=layout)
    for dim, (size, kept) in cuts.items():
        value = change(value, dim, size, kept.to(value.device))
    return value.contiguous(memory_format=layout) if is_last else value
