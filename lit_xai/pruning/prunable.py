"""A network traced for pruning: which channels hang together, in which order they go, and what is left then.

Torch-Pruning (https://github.com/VainF/Torch-Pruning; Fang et al. 2023, https://arxiv.org/abs/2301.12900) finds the
channels that can only go together and ranks them. How many go is decided here: its own pruner rounds down, moves all
layers of one size at once, and changes the network it looks at.
"""

import contextlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lit_xai.network.calling import Inputs, OutputSpec, call_network, find_logits, module_names
from lit_xai.network.layers import call_for_all, channels, layers_behind, match_layers, traceable
from lit_xai.network.opaque import kept_whole, opaque
from lit_xai.network.spelling import nearest
from lit_xai.pruning.heads import every_part, find_heads, fused_layers, set_head_attributes_
from lit_xai.pruning.masked import Comparison, masked, told_apart, without_fused_attention
from lit_xai.pruning.moves import EPSILON, ChannelGroup, Move, order_moves
from lit_xai.pruning.searching import lost, one_line, quiet, searched
from lit_xai.structure.positions import changed_attributes, kept_indices, named_tensors, positions_like


class Prunable:
    """A throwaway copy of a network, ranked: any number of moves can be looked at, one after the other.

    Args:
        network: a copy in the structure to start from; it is put into eval mode, and its values are written to.
        example_inputs: what it is called with.
        pruning_ratio: the share of channels, of the dense network's, that is gone at the end.
        pruning_ratio_dict: the same for layers by name or pattern.
        importance: a ``torch_pruning.importance.Importance``, its data collected; default the norm of weights.
        ignored_layers: which layers to keep whole: names (a module's parts are kept with it), patterns or classes.
        round_to: channel counts become multiples of it, the nearest one, and never less than one.
        global_pruning: rank channels over the whole network rather than within each group.
        isomorphic: rank within groups of the same structure (Fang et al. 2024, https://arxiv.org/abs/2407.04616).
        max_pruning_ratio: of any one layer.
        dense_channels: :func:`~lit_xai.network.layers.channels` of the dense network, if this one was pruned before.
        call: the network's method that is called.
        output: where the logits are in its output.

    Raises:
        ValueError: a name matches nothing, or the network cannot be traced.
    """

    def __init__(
        self,
        network: nn.Module,
        example_inputs: Inputs,
        *,
        pruning_ratio: float = 1.0,
        pruning_ratio_dict: Mapping[str, float] | None = None,
        importance: Any = None,
        ignored_layers: Iterable[str | type] = (),
        round_to: int | None = None,
        global_pruning: bool = False,
        isomorphic: bool = False,
        max_pruning_ratio: float = 1.0,
        dense_channels: Mapping[str, int] | None = None,
        call: str = "forward",
        output: OutputSpec = None,
    ) -> None:
        self.network = network
        _refuse_scripted(network)
        for module in network.modules():
            module.training = False
        for parameter in network.parameters():
            parameter.requires_grad_(True)  # Torch-Pruning leaves frozen layers out without a word
        self._run = lambda keep: call_network(network, example_inputs, call, keep)
        self._heads = find_heads(network)
        self._fused = fused_layers(network, self._heads)
        unprunable = kept_whole(network)
        whole = [*match_layers(network, ignored_layers, "ignored_layers"), *unprunable]
        with quiet(), traceable():
            self._graph, outputs = self._trace(unprunable, example_inputs, call, output)
            self._ignored = [part for layer in whole for part in layer.modules()]
            self._ignored += layers_behind(network, outputs)
            ratios = (pruning_ratio, pruning_ratio_dict or {})
            with searched(self._graph):
                self.groups = self._found(importance, dense_channels, ratios)
        self.moves = order_moves(
            self.groups,
            round_to=round_to,
            max_pruning_ratio=max_pruning_ratio,
            global_pruning=global_pruning,
            isomorphic=isomorphic,
        )

    def _trace(
        self, whole: Iterable[nn.Module], inputs: Inputs, call: str, output: OutputSpec
    ) -> tuple[Any, list[Tensor]]:
        """Return Torch-Pruning's graph, and the outputs that it was read from."""
        from torch_pruning import DependencyGraph

        outputs: list[Tensor] = []

        def forward(network: nn.Module, given: Inputs) -> list[Tensor]:
            outputs[:] = call_for_all(network, given, call, output)
            return outputs

        try:
            with opaque(whole) as pruners:
                graph = DependencyGraph().build_dependency(
                    self.network,
                    example_inputs=inputs,
                    forward_fn=forward,
                    customized_pruners=pruners,
                    verbose=False,
                )
        except Exception as error:
            raise ValueError(
                f"{type(self.network).__name__} cannot be traced for pruning ({type(error).__name__}:"
                f" {one_line(error)}): narrow it down with module= to the part that can, or keep the part that cannot"
                " with ignored_layers=."
            ) from error
        return graph, outputs

    def _found(self, *given: Any) -> list[ChannelGroup]:
        try:
            return list(self._groups(*given))
        except ValueError:
            raise  # what was given is wrong
        except Exception as error:
            raise lost(self.network, f"{type(error).__name__}: {one_line(error)}") from error

    def _groups(
        self, importance: Any, dense: Mapping[str, int] | None, ratios: tuple[float, Mapping[str, float]]
    ) -> Iterator[ChannelGroup]:
        import torch_pruning

        importance = importance or torch_pruning.importance.GroupMagnitudeImportance()
        names = {module: name for name, module in module_names(self.network).items()}
        present = channels(self.network)
        dense = dense or present
        used: set[str] = set()
        roots = (torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR)
        for found in self._graph.get_all_groups(ignored_layers=self._ignored, root_module_types=roots):
            group = self._from_downstream(found, roots)
            members = self._members(group)
            if not members or any(size == 1 for size in self._sizes(members)):
                continue
            scores = importance(group)
            if scores is None:
                continue
            parts = max(self._parts_of(module, out) for module, out in members)
            scores = torch.nan_to_num(scores.detach().float().cpu()).view(parts, -1).mean(0)
            outputs = [names[module] for module, out in members if out and module in names]
            layers = tuple(dict.fromkeys(name for name in outputs if name in present))
            matched = [pattern for pattern in ratios[1] if _any_matches(layers, pattern)]
            used |= set(matched)
            n = len(scores)
            yield ChannelGroup(
                layers,
                group[0].dep.target.module,
                group[0].dep.handler,
                parts,
                n,
                round(n * dense[layers[0]] / present[layers[0]]) if layers and layers[0] in dense else n,
                scores,
                ratios[1][matched[0]] if matched else ratios[0],
                " ".join(f"{type(module).__name__}-{'out' if out else 'in'}" for module, out in members),
            )
        unknown = next((pattern for pattern in ratios[1] if pattern not in used), None)
        if unknown is not None:
            raise ValueError(
                f"pruning_ratio_dict: {unknown!r} matches no layer that can be pruned."
                f"{nearest(unknown, names.values())}"
            )

    def _members(self, group: Any) -> list[tuple[Any, bool]]:
        """Return a group's layers, each with whether its outputs are meant rather than its inputs."""
        return [(dep.target.module, self._graph.is_out_channel_pruning_fn(dep.handler)) for dep, _ in group or ()]

    def _from_downstream(self, group: Any, roots: tuple[type, ...]) -> Any:
        """Start an attention's group from the layer behind it: indices of fused projections count from there.

        Source: ``BasePruner._downstream_node_as_root_if_attention`` of Torch-Pruning.
        """
        if not any(out and module in self._heads for module, out in self._members(group)):
            return group
        behind = [
            item
            for item, (module, out) in zip(group, self._members(group), strict=True)
            if isinstance(module, roots) and not out
        ]
        if not behind:
            return None
        dep, _ = behind[-1]
        layer = dep.target.module
        return self._graph.get_pruning_group(layer, dep.handler, list(range(self._graph.get_in_channels(layer))))

    def _sizes(self, members: list[tuple[Any, bool]]) -> Iterator[int]:
        for module, out in members:
            if not isinstance(module, nn.Parameter):
                size = (self._graph.get_out_channels if out else self._graph.get_in_channels)(module)
                if size is not None:
                    yield size

    def _parts_of(self, module: Any, out: bool) -> int:
        if isinstance(module, nn.Parameter):
            return 1
        if out and module in self._heads:
            return self._heads[module]
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.out_channels:
            return 1  # depthwise: every channel for itself
        pruner = self._graph.get_pruner_of_module(module)
        count = (pruner.get_out_channel_groups if out else pruner.get_in_channel_groups)(module)
        return int(count) if count else 1

    def coupled(self) -> Iterator[list[tuple[str, int, Tensor]]]:
        """Yield for each group its parameters: name, dimension, and the channel that each index of it belongs to."""
        modules = dict(self.network.named_modules(remove_duplicate=False))
        names = {id(value): name for name, value in named_tensors(modules).items()}
        for group in self.groups:
            found = self._graph.get_pruning_group(group.root, group.pruning_fn, list(range(group.size * group.parts)))
            members = []
            for item, (module, out) in zip(found, self._members(found), strict=True):
                for parameter in (getattr(module, "weight", None), getattr(module, "bias", None) if out else None):
                    if not isinstance(parameter, nn.Parameter) or None in item.root_idxs:
                        continue
                    dim = _dim_of(module, parameter, out)
                    if len(item.root_idxs) != parameter.shape[dim]:
                        continue
                    roots = torch.empty(parameter.shape[dim], dtype=torch.int64)
                    roots[torch.tensor(item.idxs)] = torch.tensor(item.root_idxs)
                    members.append((names[id(parameter)], dim, roots))
            if members:
                yield members

    def due(self, progress: float = 1.0) -> list[Move]:
        """Return the moves that are due when the plan is done to a share of ``progress``."""
        return self.moves[: bisect_left(self.moves, Move(progress - EPSILON, -1.0, -1, -1))]

    @contextlib.contextmanager
    def pruned(self, moves: Sequence[Move]) -> Iterator[nn.Module]:
        """Inside, the network is what these moves make of it, values included."""
        with self._cut(moves):
            yield self.network

    def step(self, moves: Sequence[Move]) -> dict[str, Any]:
        """Return moves as a step of a recipe, after making sure that the network then runs.

        Args:
            moves: those of a group from its first on.

        Raises:
            ValueError: the network does not run without these channels, or layers share a parameter of which each would
                lose others.
        """
        with self._cut(moves) as (kept, before), traceable(), torch.no_grad():
            try:
                self._outputs()
            except Exception as error:
                raise ValueError(
                    f"{type(self.network).__name__} does not run without the channels that would go"
                    f" ({type(error).__name__}: {one_line(error)}): keep the layers that need them whole with"
                    " ignored_layers=."
                ) from error
            after = {name: vars(m) for name, m in self.network.named_modules(remove_duplicate=False)}
            return {"kind": "prune", "kept": kept, "attributes": changed_attributes(before, after)}

    def check(self, moves: Sequence[Move]) -> None:
        """Make sure that what is left computes what the network does with these channels at zero.

        Args:
            moves: for which there is a :meth:`step`; fewer of them need no check of their own.

        Raises:
            ValueError: it computes something else; names the layers that would have to stay whole.
        """
        if not self._mixes_up(moves):
            return
        places = sorted({move.group for move in moves})
        guilty = [i for i in places if self._mixes_up([move for move in moves if move.group == i])] or places
        layers = [group.layers[0] for group in (self.groups[i] for i in guilty) if group.layers]
        raise ValueError(
            f"{type(self.network).__name__} computes something else without the channels that would go than with"
            " them at zero, since it takes channels by their places (a shuffle, a split, a concatenation with an"
            f" input): keep the layers that these come from whole with ignored_layers={layers}."
        )

    def _mixes_up(self, moves: Sequence[Move]) -> bool:
        comparison = Comparison(self._outputs)
        with told_apart(self.network), traceable(), without_fused_attention(), torch.no_grad():
            with self._cut(moves) as (kept, _):
                comparison.run_cut()
            if not kept:
                return False
            with masked(self.network, kept):
                comparison.run_masked()
            if comparison.has_to_repeat:
                with self._cut(moves):
                    comparison.repeat_cut()
        return comparison.differs

    def _outputs(self) -> list[Tensor]:
        """Call the network and return every floating tensor it gives."""
        found: list[Tensor] = []

        def keep(result: Any) -> Tensor:
            found.extend(v for v in tree_leaves(result) if isinstance(v, Tensor) and v.is_floating_point())
            return found[0] if found else find_logits(result)

        self._run(keep)
        return found

    @contextlib.contextmanager
    def _cut(self, moves: Sequence[Move]) -> Iterator[tuple[list[list[Any]], dict[str, dict[str, Any]]]]:
        """Let Torch-Pruning cut positions in place of values; what is left of them says which values stay.

        Yields that, and each module's attributes of before.
        """
        modules: dict[str, nn.Module] = dict(self.network.named_modules(remove_duplicate=False))
        before = {name: dict(vars(module)) for name, module in modules.items()}
        held = [(m, dict(m._parameters), dict(m._buffers), before[name]) for name, m in modules.items()]
        dense = named_tensors(modules)
        values = {name: value.data for name, value in dense.items()}
        sizes = self._sizes_between(modules.values())
        try:
            with quiet(), torch.no_grad():
                for value, places in zip(dense.values(), positions_like(values.values()), strict=True):
                    value.grad = None
                    value.data = places
                self._remove(moves, dense)
                set_head_attributes_(self.network, self._heads)
                cut, kept = named_tensors(modules), []
                positions = {id(value): value.data for value in cut.values()}  # one may go by several names
                for name, value in cut.items():
                    left = values[name]
                    for dim, (size, indices) in kept_indices(positions[id(value)], left.shape):
                        if not indices:
                            raise _unable(name, "all of its channels would go")
                        kept.append([name, dim, size, indices])
                        left = left.index_select(dim, torch.tensor(indices, device=left.device))
                    value.data = left
            _refuse_split(dense, kept)
            yield kept, before
        finally:
            for module, parameters, buffers, attributes in held:
                module._parameters.update(parameters)
                module._buffers.update(buffers)
                vars(module).update({k: v for k, v in attributes.items() if isinstance(v, (int, tuple))})
            for name, value in dense.items():
                value.data = values[name]
            for node, held_sizes in sizes:
                vars(node).update(held_sizes)

    def _sizes_between(self, modules: Iterable[nn.Module]) -> list[tuple[nn.Module, dict[str, Any]]]:
        """Return what Torch-Pruning keeps of concatenations, splits and slices, which it changes with each cut."""
        between = set(self._graph.module2node).difference(modules)
        return [
            (node, {k: list(v) if isinstance(v, list) else v for k, v in vars(node).items() if _is_size(v)})
            for node in between
            if isinstance(node, nn.Module)
        ]

    def _remove(self, moves: Sequence[Move], tensors: Mapping[str, Tensor]) -> None:
        # All groups are asked for in the coordinates of the whole network, then each layer is cut once.
        gone: dict[tuple[Any, Any], tuple[Any, set[int]]] = {}
        left = {move.group: move.left for move in moves}
        with searched(self._graph):
            for group, n in ((self.groups[place], n) for place, n in left.items()):
                for dep, indices in self._graph.get_pruning_group(group.root, group.pruning_fn, group.without(n)):
                    if self._graph.is_out_channel_pruning_fn(dep.handler):
                        indices = every_part(dep.target.module, indices, self._fused)
                    gone.setdefault((dep.target, dep.handler), (dep, set()))[1].update(indices)
        for dep, indices in gone.values():
            try:
                found = dep(sorted(indices))
            except Exception as error:
                layer = next((n for n, module in self.network.named_modules() if module is dep.target.module), "")
                raise _unable(layer, f"{type(error).__name__}: {one_line(error)}") from error
            if isinstance(dep.target.module, nn.Parameter):
                for name in [name for name, value in tensors.items() if value is dep.target.module]:
                    owner, _, attribute = name.rpartition(".")
                    setattr(self.network.get_submodule(owner), attribute, found)


def _refuse_scripted(network: nn.Module) -> None:
    name = next((n for n, m in network.named_modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if name is not None:
        raise ValueError(
            f"Pruning expected modules of Python, but got TorchScript in {name!r}: prune the network before"
            " torch.jit.script or torch.jit.trace, or narrow it down with module= to a part without."
        )


def _is_size(value: Any) -> bool:
    return value is None or isinstance(value, (int, list))


def _unable(name: str, why: str) -> ValueError:
    return ValueError(
        f"{name!r} cannot lose these channels ({why}): keep it, and what it is tied to, whole with ignored_layers=."
    )


def _refuse_split(tensors: Mapping[str, Tensor], kept: Iterable[list[Any]]) -> None:
    """Refuse to cut one parameter in several ways."""
    names: dict[int, str] = {}
    shared = [(names.setdefault(id(value), name), name) for name, value in tensors.items()]
    cuts: dict[str, list[Any]] = {}
    for name, *cut in kept:
        cuts.setdefault(name, []).append(cut)
    for first, other in shared:
        if first != other and cuts.get(first) != cuts.get(other):
            layers = [name.rpartition(".")[0] for name in (first, other)]
            raise ValueError(
                f"{first!r} and {other!r} are one parameter, of which each would lose other channels: keep these layers"
                f" whole with ignored_layers={layers}."
            )


def _dim_of(module: Any, parameter: nn.Parameter, out: bool) -> int:
    """Return the dimension of a layer's parameter that its outputs, or inputs, are counted in."""
    if parameter.dim() == 1:
        return 0
    return int(out is bool(getattr(module, "transposed", False)))


def _any_matches(layers: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for name in layers)
