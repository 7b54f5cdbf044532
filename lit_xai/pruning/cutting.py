"""A cut that can be taken back: Torch-Pruning runs on positions in place of values, and the network is restored."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.pruning.culprits import CutError
from lit_xai.pruning.searching import one_line
from lit_xai.structure.positions import changed_attributes, kept_indices, named_tensors, positions_like


class Snapshot:
    """The parts of a network that a cut changes, saved before it.

    Args:
        network: in its dense structure.
        between_layers: nodes of Torch-Pruning's graph that are no layers, with the sizes it keeps of them.
    """

    def __init__(self, network: nn.Module, between_layers: list[tuple[nn.Module, dict[str, Any]]]) -> None:
        self._modules: dict[str, nn.Module] = dict(network.named_modules(remove_duplicate=False))
        self._between_layers = between_layers
        self._attributes = {name: dict(vars(module)) for name, module in self._modules.items()}
        self._held: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            name: (dict(m._parameters), dict(m._buffers)) for name, m in self._modules.items()
        }
        self.tensors = named_tensors(self._modules)
        self._values = {name: tensor.data for name, tensor in self.tensors.items()}

    def put_positions_(self) -> None:
        """Replace each value by its position: the positions that remain after a cut show which values were kept."""
        for tensor, positions in zip(self.tensors.values(), positions_like(self._values.values()), strict=True):
            # A gradient has the shape of the value before the cut.
            tensor.grad = None
            tensor.data = positions

    def put_values_back_(self) -> list[list[Any]]:
        """Replace the remaining positions by their values.

        Returns:
            What a step keeps: name, dimension, size before, indices.

        Raises:
            CutError: a layer would lose all of its channels.
        """
        cut, kept = named_tensors(self._modules), []
        positions = {id(tensor): tensor.data for tensor in cut.values()}  # a shared one has several names
        for name, tensor in cut.items():
            left = self._values[name]
            for dim, (size, indices) in kept_indices(positions[id(tensor)], left.shape):
                if not indices:
                    raise cannot_lose(name, "it would lose all of them")
                kept.append([name, dim, size, indices])
                # One dimension after the other: a layer in the middle loses inputs and outputs.
                left = left.index_select(dim, torch.tensor(indices, device=left.device))
            tensor.data = left
        return kept

    def changed_attributes(self) -> list[list[Any]]:
        """Return the integer attributes that the cut changed: module, name, old and new value."""
        return changed_attributes(self._attributes, {name: vars(module) for name, module in self._modules.items()})

    def restore_(self) -> None:
        """Restore the network."""
        for name, module in self._modules.items():
            # Cleared first: a cut that failed, or a run, may have added entries.
            vars(module).clear()
            vars(module).update(self._attributes[name])
            held: tuple[dict[str, Any], dict[str, Any]] = (module._parameters, module._buffers)
            for tensors, before in zip(held, self._held[name], strict=True):
                tensors.clear()
                tensors.update(before)
        for name, tensor in self.tensors.items():
            tensor.data = self._values[name]
        for node, sizes in self._between_layers:
            vars(node).update(sizes)


def cut_(network: nn.Module, removals: Iterable[tuple[Any, list[int]]], tensors: Mapping[str, Tensor]) -> None:
    """Remove indices from the layers of a network with Torch-Pruning's functions.

    Args:
        network: whose layers are cut.
        removals: Torch-Pruning's dependencies, each with the indices to remove.
        tensors: the network's parameters by name; a bare one has to be replaced under each of its names.

    Raises:
        CutError: a layer cannot be cut; names it.
    """
    for dep, indices in removals:
        layer = dep.target.module
        try:
            found = dep(indices)
        except Exception as error:
            name = next((name for name, module in network.named_modules() if module is layer), "")
            raise cannot_lose(name, f"{type(error).__name__}: {one_line(error)}") from error
        # Torch-Pruning cuts a module in place, but returns a bare parameter as a new object.
        if isinstance(layer, nn.Parameter):
            for name in [name for name, tensor in tensors.items() if tensor is layer]:
                owner, _, attribute = name.rpartition(".")
                setattr(network.get_submodule(owner), attribute, found)


def cannot_lose(name: str, why: str) -> CutError:
    """Return the error of a layer whose channels cannot be removed."""
    return CutError(
        f"{name!r} cannot lose these channels ({why}): keep it, and what it is tied to, whole with ignored_layers=.",
        f"{name!r} cannot lose them, {why}",
    )


def refuse_split(tensors: Mapping[str, Tensor], kept: Iterable[list[Any]]) -> None:
    """Refuse to cut one parameter in several ways.

    Raises:
        CutError: two names of one parameter keep different indices.
    """
    names: dict[int, str] = {}
    # Pairs of the first name of each parameter and any later one.
    shared = [(names.setdefault(id(tensor), name), name) for name, tensor in tensors.items()]
    cuts: dict[str, list[Any]] = {}
    for name, *cut in kept:
        cuts.setdefault(name, []).append(cut)
    for first, other in shared:
        if first != other and cuts.get(first) != cuts.get(other):
            layers = [name.rpartition(".")[0] for name in (first, other)]
            raise CutError(
                f"{first!r} and {other!r} are one parameter, of which each would lose other channels: keep these layers"
                f" whole with ignored_layers={layers}.",
                f"{first!r} and {other!r} are one parameter, of which each would lose other channels",
            )
