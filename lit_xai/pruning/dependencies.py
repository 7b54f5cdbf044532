"""Torch-Pruning's dependency graph of a network: the groups of channels that can only be removed together.

Torch-Pruning (https://github.com/VainF/Torch-Pruning; Fang et al. 2023, https://arxiv.org/abs/2301.12900) finds these
groups. Its private names and conventions are known in this module and in :mod:`lit_xai.pruning.searching` alone.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.layers import call_for_all, computes_weights, layers_behind, match_layers, traceable
from lit_xai.network.modes import Mode
from lit_xai.network.opaque import kept_whole, opaque
from lit_xai.pruning.heads import every_part, find_heads, fused_layers
from lit_xai.pruning.moves import ChannelGroup
from lit_xai.pruning.searching import LostError, one_line, quiet, tolerant, why_lost


class Member(NamedTuple):
    """One side of a layer that belongs to a group."""

    layer: Any
    """A module, or a bare ``nn.Parameter``."""
    is_output: bool
    """True for its outputs, False for its inputs."""


class Lost(NamedTuple):
    """A layer whose dependency group cannot be followed through the network."""

    layer: nn.Module
    reason: str


class Dependencies:
    """The groups of channels of a network that depend on each other.

    Args:
        network: in eval mode, all of its parameters requiring gradients; it runs once.
        example_inputs: what it is called with.
        ignored_layers: which layers to keep whole: names, patterns or classes.
        call: the network's method that is called.
        output: where the logits are in its output.
        mode: the context in which it runs.

    Raises:
        ValueError: a name matches nothing, or the network cannot be traced.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> dependencies = Dependencies(network, torch.zeros(1, 4))
        >>> [[(member.layer, member.is_output) for member in dependencies.members(group)][0]
        ...     for group in dependencies.groups()]
        [(Linear(in_features=4, out_features=8, bias=True), True)]
    """

    def __init__(
        self,
        network: nn.Module,
        example_inputs: Inputs,
        ignored_layers: Iterable[str | type] = (),
        call: str = "forward",
        output: OutputSpec = None,
        mode: Mode = contextlib.nullcontext,
    ) -> None:
        self._network, self._mode = network, mode
        self.heads = find_heads(network)
        self._fused = fused_layers(network, self.heads)
        unprunable = kept_whole(network)
        whole = [*match_layers(network, ignored_layers, "ignored_layers"), *unprunable]
        # The graph is built from autograd's graph: the network runs with gradients, outside of inference mode.
        with quiet(), traceable():
            self.graph, self.misread, outputs = self._trace(unprunable, example_inputs, call, output)
            # Torch-Pruning silently ignores types here, and the parts of a module that is listed.
            self._ignored = [part for layer in whole for part in layer.modules()]
            self._unprunable, self._behind = unprunable, layers_behind(network, outputs)
            self._ignored += self._behind

    def _trace(
        self, whole: Iterable[nn.Module], inputs: Inputs, call: str, output: OutputSpec
    ) -> tuple[Any, dict[Any, Exception], list[Tensor]]:
        """Return Torch-Pruning's graph, the nodes of it that were misread, and the outputs that it was read from."""
        from torch_pruning import DependencyGraph

        outputs: list[Tensor] = []

        def forward(network: nn.Module, given: Inputs) -> list[Tensor]:
            with self._mode(network):
                outputs[:] = call_for_all(network, given, call, output)
            return outputs

        try:
            with opaque(whole) as pruners, tolerant() as misread:
                graph = DependencyGraph().build_dependency(
                    self._network,
                    example_inputs=inputs,
                    forward_fn=forward,
                    customized_pruners=pruners,
                    verbose=False,
                )
        except Exception as error:
            raise ValueError(
                f"{type(self._network).__name__} cannot be traced for pruning ({type(error).__name__}:"
                f" {one_line(error)}): narrow it down with module= to the part that can, or keep the part that cannot"
                " with ignored_layers=."
            ) from error
        return graph, misread, outputs

    def groups(self) -> Iterator[Any]:
        """Yield Torch-Pruning's groups of which channels can be removed, each with every channel of its root.

        A layer whose group cannot be followed is yielded as a :class:`Lost` in place of one.

        Source: ``DependencyGraph.get_all_groups`` of Torch-Pruning, where one such group ends the search for all.
        """
        import torch_pruning

        # Embeddings last: those that a layer reads beside others are in the layer's group already.
        roots = (torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR)
        layers = sorted(self.graph.module2node, key=lambda one: isinstance(one, nn.Embedding))
        whole = {id(layer) for layer in (*self._ignored, *self.graph.IGNORED_LAYERS_IN_TRACING)}
        seen: set[int] = set()
        lost: dict[int, str] = {}
        for layer in layers:
            if not isinstance(layer, (*roots, nn.Embedding)) or id(layer) in whole or id(layer) in seen:
                continue
            try:
                found = self._group_of(layer)
                members = self.members(found)
                outputs = {id(member.layer) for member in members if member.is_output}
                seen |= outputs
                if outputs & whole:
                    continue
                self._refuse_members(members, lost)
                group = self._from_downstream(found, roots)
            # Of any type: Torch-Pruning fails in many ways on channels that it misread.
            except Exception as error:
                lost[id(layer)] = self._name_of(layer)
                yield Lost(layer, why_lost(error))
                continue
            # Where one layer has a single channel there is nothing to choose from.
            if all(size != 1 for size in self._sizes(group)):
                yield group

    def why_whole(self, layer: nn.Module) -> str:
        """Return why a layer with weights belongs to no group."""
        if layer in self._behind:
            return "the output comes from it"
        opaque_one = next((one for one in self._unprunable if layer in one.modules()), None)
        if isinstance(opaque_one, nn.MultiheadAttention):
            return "pruning does not cut attention over keys of another width"
        if opaque_one is not None:
            return "recurrent layers keep their width"
        if layer in self._ignored:
            return "listed in ignored_layers"
        if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)):
            return f"pruning does not know how {type(layer).__name__} uses its weight"
        return "its channels are tied to those of a layer that stays whole"

    def _refuse_members(self, members: Iterable[Member], lost: Mapping[int, str]) -> None:
        for layer, is_output in members:
            # A lost layer counts as if it were in ignored_layers: leaving it out by name has the same result.
            if is_output and id(layer) in lost:
                raise LostError(f"its channels are those of {lost[id(layer)]!r}, which stays whole")
            if isinstance(layer, nn.Module) and computes_weights(layer):
                raise LostError(
                    f"{self._name_of(layer)!r} computes its weight from others (weight_norm, spectral_norm,"
                    " torch.nn.utils.prune), which pruning does not reach; remove that to cut it"
                )

    def _name_of(self, layer: nn.Module) -> str:
        return next(name for name, module in self._network.named_modules() if module is layer)

    def _group_of(self, layer: nn.Module) -> Any:
        pruner = self.graph.get_pruner_of_module(layer)
        every = list(range(pruner.get_out_channels(layer)))
        found = self.graph.get_pruning_group(layer, pruner.prune_out_channels, every)
        # A bare parameter with fewer entries than these channels has none of them: the bias of a window's places.
        others = [
            dep.target.module
            for dep, indices in found
            if isinstance(dep.target.module, nn.Parameter)
            and max(indices) >= dep.target.module.shape[dep.target.pruning_dim]
        ]
        if not others:
            return found
        self.graph.ignored_params = [*self.graph.ignored_params, *others]
        return self.graph.get_pruning_group(layer, pruner.prune_out_channels, every)

    def members(self, group: Any) -> list[Member]:
        """Return the layers of one of Torch-Pruning's groups."""
        return [Member(dep.target.module, self.graph.is_out_channel_pruning_fn(dep.handler)) for dep, _ in group]

    def parts(self, group: Any) -> int:
        """Return how often each channel comes in a group (heads, groups of a convolution)."""
        return max(self._parts_of(member) for member in self.members(group))

    def expand(self, group: ChannelGroup, indices: list[int]) -> Any:
        """Return Torch-Pruning's group for some of the root's channels."""
        return self.graph.get_pruning_group(group.root, group.pruning_fn, indices)

    def removals(self, cuts: Iterable[tuple[ChannelGroup, list[int]]]) -> list[tuple[Any, list[int]]]:
        """Return for each side of each layer the Torch-Pruning dependency that cuts it, and the indices to remove.

        Groups are expanded in the coordinates of the whole network, and may share a layer (behind a concatenation):
        their indices are united, so that each layer can be cut once.

        Args:
            cuts: groups and the indices of their root's channels that are removed.
        """
        removed: dict[tuple[Any, Any], tuple[Any, set[int]]] = {}
        for group, indices in cuts:
            for dep, found in self.expand(group, indices):
                # The graph finds all of a fused query, key and value only if they are split by unbind(0).
                if self.graph.is_out_channel_pruning_fn(dep.handler):
                    found = every_part(dep.target.module, found, self._fused)
                # By layer and side: a layer loses its inputs and its outputs by two different dependencies.
                removed.setdefault((dep.target, dep.handler), (dep, set()))[1].update(found)
        return [(dep, sorted(indices)) for dep, indices in removed.values()]

    def sizes_between_layers(self) -> list[tuple[nn.Module, dict[str, Any]]]:
        """Return what Torch-Pruning keeps of concatenations, splits and slices, which it changes with each cut."""
        # They are modules that Torch-Pruning makes for the graph, and no part of the network: Snapshot has to restore
        # them by itself.
        between = set(self.graph.module2node).difference(self._network.modules())
        return [
            (
                node,
                {
                    name: list(value) if isinstance(value, list) else value
                    for name, value in vars(node).items()
                    if value is None or isinstance(value, (int, list))
                },
            )
            for node in between
            if isinstance(node, nn.Module)
        ]

    def _from_downstream(self, group: Any, roots: tuple[type, ...]) -> Any:
        """Start an attention's group from the layer behind it: indices of fused projections count from there.

        Source: ``BasePruner._downstream_node_as_root_if_attention`` of Torch-Pruning.
        """
        members = self.members(group)
        if not any(member.is_output and member.layer in self.heads for member in members):
            return group
        behind = [
            dep
            for (dep, _), member in zip(group, members, strict=True)
            if isinstance(member.layer, roots) and not member.is_output
        ]
        if not behind:
            raise LostError("pruning finds no layer that reads its channels")
        layer = behind[-1].target.module
        return self.graph.get_pruning_group(layer, behind[-1].handler, list(range(self.graph.get_in_channels(layer))))

    def _sizes(self, group: Any) -> Iterator[int]:
        for layer, is_output in self.members(group):
            if not isinstance(layer, nn.Parameter):
                size = (self.graph.get_out_channels if is_output else self.graph.get_in_channels)(layer)
                if size is not None:
                    yield size

    def _parts_of(self, member: Member) -> int:
        layer, is_output = member
        if isinstance(layer, nn.Parameter):
            return 1
        if is_output and layer in self.heads:
            return self.heads[layer]
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels:
            return 1  # depthwise: every channel for itself
        pruner = self.graph.get_pruner_of_module(layer)
        count = (pruner.get_out_channel_groups if is_output else pruner.get_in_channel_groups)(layer)
        return int(count) if count else 1
