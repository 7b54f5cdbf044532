"""A cut: which indices were kept of which dimension of each parameter and buffer, and which attributes were set."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import plain_name
from lit_xai.network.check import refusal
from lit_xai.network.spelling import nearest
from lit_xai.pruning.sizes import new_sizes, set_sizes_
from lit_xai.structure.following import follow_, successor
from lit_xai.structure.kinds import Step, StepKind, check_entries
from lit_xai.structure.schema import Indices, ListOf, NonNegative, Positive, Row, as_sizes, shown

KEPT = Annotated[list[Any], ListOf(Annotated[Any, Row((str, NonNegative, Positive, Indices))])]
"""Of each cut dimension: the parameter or buffer, the dimension, its size before, and the indices that were kept."""

ATTRIBUTES = Annotated[list[Any], ListOf(Annotated[Any, Row((str, str, Any, Any))])]
"""Of each size that a module holds: the module, the attribute, the value before and the value after."""


class Prune(StepKind):
    """Keep some indices of some dimensions of parameters and buffers, and set the attributes that hold their sizes."""

    name, label, order, in_place = "prune", "pruned", 10, False

    def check(self, step: Step) -> None:
        """Refuse a step whose indices or sizes are none."""
        check_entries(step, kept=KEPT, attributes=ATTRIBUTES)
        for place, (_, _, size, kept) in enumerate(step["kept"]):
            if max(kept) >= size:
                raise refusal(f"The 'kept'[{place}][3] of a 'prune' step", f"indices below {size}", max(kept))
        if len({(name, dim) for name, dim, *_ in step["kept"]}) < len(step["kept"]):
            raise refusal("The 'kept' of a 'prune' step", "each dimension once", "one of them twice")
        for module, attribute, old, new in step["attributes"]:
            sizes = [as_sizes(value) for value in (old, new)]
            if None in sizes or type(old) is not type(new) or len(sizes[0] or ()) != len(sizes[1] or ()):
                where = f"{shown(attribute)} of {shown(module)} in a 'prune' step"
                raise ValueError(f"{where} expected sizes before and after, but got {shown(old)} and {shown(new)}.")

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
            ValueError: a name is not there, or has another size than when the step was recorded; or an attribute is no
                size that follows from what is kept. Nothing is changed then.
        """
        # Everything is checked before anything is changed.
        found = _check(network, step, recorded=lambda size, kept: size)
        values = new_sizes(network, step)
        _rebuild(network, step, found, optimizers, lambda value, dim, size, kept: value.index_select(dim, kept))
        set_sizes_(values)

    def undo_(self, network: nn.Module, step: Step) -> None:
        """Undo a cut: restore the earlier shapes and attributes, with zeros where values were removed.

        Raises:
            ValueError: the network is not what the step led to.
        """

        def widened(value: Tensor, dim: int, size: int, kept: Tensor) -> Tensor:
            room = value.new_zeros([*value.shape[:dim], size, *value.shape[dim + 1 :]])
            return room.index_copy(dim, kept, value)

        found = _check(network, step, recorded=lambda size, kept: len(kept))
        values = new_sizes(network, step, undo=True)
        _rebuild(network, step, found, (), widened)
        set_sizes_(values)


def _check(network: nn.Module, step: Step, recorded: Callable[[int, list[int]], int]) -> dict[str, Tensor]:
    """Return the network's tensors by their names there, after making sure that the step fits."""
    tensors = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    named = {plain_name(name): tensor for name, tensor in tensors.items()}
    cuts: dict[tuple[int, int], list[int]] = {}
    for name, dim, size, kept in step["kept"]:
        if plain_name(name) not in named:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: it has no {name!r}.{nearest(name, named)}"
            )
        tensor, expected = named[plain_name(name)], recorded(size, kept)
        shape = tuple(tensor.shape)
        if dim >= len(shape) or shape[dim] != expected:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: {name!r} expected size {expected} in dimension"
                f" {dim}, but got shape {shape}."
            )
        if cuts.setdefault((id(tensor), dim), kept) != kept:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: {name!r} is shared, and would lose other indices"
                " under another name."
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
