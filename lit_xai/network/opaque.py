"""Layers that Torch-Pruning cannot prune, and a way to trace the network around them.

Unprepared, Torch-Pruning takes the inside of a GRU for layers of the network, and an LSTM's gates for its channels.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


def kept_whole(network: nn.Module) -> list[nn.Module]:
    """Return the layers that cannot be pruned: recurrent ones, and attention over keys of another width than its own.

    Args:
        network: any module.

    Example:
        >>> kept_whole(nn.Sequential(nn.GRU(4, 8), nn.MultiheadAttention(8, 2)))
        [GRU(4, 8)]
    """
    found = [module for module in network.modules() if _cannot_be_pruned(module)]
    # Torch-Pruning chooses pruners by type alone: one attention that cannot be pruned excludes all others.
    if any(isinstance(module, nn.MultiheadAttention) for module in found):
        found += [m for m in network.modules() if isinstance(m, nn.MultiheadAttention) and m not in found]
    return found


def _cannot_be_pruned(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return not module._qkv_same_embed_dim
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


@contextlib.contextmanager
def opaque(layers: Iterable[nn.Module]) -> Iterator[dict[type[nn.Module], Any]]:
    """Make layers single nodes of the autograd graph, and yield pruners for Torch-Pruning that leave them whole.

    With these layers ignored, Torch-Pruning keeps the layers tied to their inputs and outputs too, and no others.

    Args:
        layers: :func:`kept_whole` of the network.

    Example:
        >>> from torch_pruning import DependencyGraph
        >>> network = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.GRUCell(5, 7), nn.Linear(7, 2))
        >>> layers = kept_whole(network)
        >>> with opaque(layers) as pruners:
        ...     graph = DependencyGraph().build_dependency(network, torch.zeros(1, 4), customized_pruners=pruners)
        >>> [group[0].dep.target.module for group in graph.get_all_groups([*layers, network[3]])]
        [Linear(in_features=4, out_features=6, bias=True)]
    """
    layers = list(layers)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            inputs: list[Tensor] = []
            before, after = _cut_before(inputs), _cut_after(inputs)
            stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(after).remove)
        yield {kind: _leave_whole() for kind in {type(layer) for layer in layers}}


def _cut_before(inputs: list[Tensor]) -> Any:
    def hook(layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        inputs[:] = [value for value in tree_flatten((args, kwargs))[0] if _differentiable(value)]
        # Detached, the inside of the layer is not connected to the graph that Torch-Pruning traces ...
        return tree_map(lambda value: value.detach() if _differentiable(value) else value, (args, kwargs))

    return hook


def _cut_after(inputs: list[Tensor]) -> Any:
    def hook(layer: nn.Module, args: Any, outputs: Any) -> Any:
        values, structure = tree_flatten(outputs)
        places = [place for place, value in enumerate(values) if _differentiable(value)]
        # ... and its outputs are reconnected to its inputs by a single node.
        joined = _Joined.apply(len(inputs), *inputs, *(values[place].detach() for place in places))
        for place, value in zip(places, joined, strict=True):
            values[place] = value
        return tree_unflatten(values, structure)

    return hook


def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def is_opaque(node: Any) -> bool:
    """Return whether an autograd node stands for a layer in :func:`opaque`.

    Args:
        node: such as a tensor's ``grad_fn``.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 4), nn.GRUCell(4, 8))
        >>> with opaque([network[1]]):
        ...     is_opaque(network(torch.zeros(1, 4)).grad_fn)
        True
    """
    # torch names the node of an autograd function after its class.
    return type(node).__name__ == f"{_Joined.__name__}Backward"


class _Joined(torch.autograd.Function):
    """One node of the autograd graph from all inputs of a layer to all its outputs."""

    @staticmethod
    def forward(ctx: Any, n: int, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.clone() for value in values[n:])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("The graph of an opaque layer is for tracing, not for gradients.")


def _leave_whole() -> Any:
    from torch_pruning.pruner.function import BasePruningFunc

    class LeaveWhole(BasePruningFunc):
        TARGET_MODULES = nn.Module

        def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
            return layer

        prune_in_channels = prune_out_channels  # one function for both makes Torch-Pruning tie inputs to outputs

        def get_out_channels(self, layer: Any) -> int:
            if isinstance(layer, nn.MultiheadAttention):
                return layer.embed_dim
            # An LSTM with a projection returns proj_size features, and two directions are concatenated.
            width = getattr(layer, "proj_size", 0) or layer.hidden_size
            return int(width * (2 if getattr(layer, "bidirectional", False) else 1))

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.embed_dim if isinstance(layer, nn.MultiheadAttention) else layer.input_size)

    return LeaveWhole()
