"""A network traced for pruning: its groups of channels, the order in which they are removed, and the pruned network.

The number of channels to remove is decided here and not by Torch-Pruning's own pruner, which rounds widths down, cuts
all layers of one size at once, and changes the network that it ranks.
"""

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import Inputs, OutputSpec, call_network, find_logits, module_names
from lit_xai.network.check import check_integer, check_share, refusal
from lit_xai.network.copying import copy_network
from lit_xai.network.keras import refuse_keras
from lit_xai.network.layers import channels, match_layers, require_gradients_, traceable
from lit_xai.network.linearized import in_own_terms, linearize_, own_attributes
from lit_xai.network.matrices import matrices_as_layers_
from lit_xai.network.modes import Mode, code_of_training
from lit_xai.network.spelling import nearest
from lit_xai.network.trees import leaves
from lit_xai.pruning.culprits import CutError, KeptWhole, find_culprits, in_words
from lit_xai.pruning.cutting import Snapshot, cut_, refuse_split
from lit_xai.pruning.dependencies import Dependencies, Lost
from lit_xai.pruning.heads import set_head_attributes_
from lit_xai.pruning.importance import importance_of_copy, scores_of
from lit_xai.pruning.masked import mixes_up_channels
from lit_xai.pruning.moves import EPSILON, ChannelGroup, Move, order_moves
from lit_xai.pruning.searching import LostError, one_line, quiet, searched, why_lost
from lit_xai.pruning.targets import check_ratio
from lit_xai.structure.kinds import Step
from lit_xai.structure.positions import named_tensors


@dataclass(frozen=True)
class PruningOptions:
    """The settings of pruning: the channels that can be removed, and how they are ranked.

    Args:
        pruning_ratio_dict: see :class:`Prunable`, as for all of these.
        ignored_layers: names, patterns or classes.
        round_to: a positive integer.
        global_pruning: over the whole network.
        isomorphic: over layers of the same structure.
        max_pruning_ratio: of any one layer, above 0.

    Raises:
        ValueError: names the argument that is wrong.
    """

    pruning_ratio_dict: Mapping[str, float] | None = None
    ignored_layers: Sequence[str | type] = field(default=())
    round_to: int = 1
    global_pruning: bool = False
    isomorphic: bool = False
    max_pruning_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name, ratio in (self.pruning_ratio_dict or {}).items():
            check_ratio(ratio, f"pruning_ratio_dict[{name!r}]")
        check_integer("round_to", self.round_to)
        if not check_share("max_pruning_ratio", self.max_pruning_ratio):
            raise refusal("max_pruning_ratio", "a share above 0 up to 1", self.max_pruning_ratio)


class Prunable:
    """A throwaway copy of a network with its channels ranked: any number of moves can be tried, one after the other.

    Args:
        network: a copy in the structure to start from; it is put into eval mode, and its values are written to.
        example_inputs: what it is called with.
        pruning_ratio: the share of channels, of the dense network's, that is gone at the end.
        pruning_ratio_dict: the same for layers by name or pattern.
        importance: a ``torch_pruning.importance.Importance``, its data collected on ``network``; default the norm of
            weights.
        ignored_layers: which layers to keep whole: names (a module's parts are kept with it), patterns or classes.
        round_to: channel counts become multiples of it, the nearest one, and never less than one.
        global_pruning: rank channels over the whole network rather than within each group.
        isomorphic: rank within groups of the same structure (Fang et al. 2024, https://arxiv.org/abs/2407.04616).
        max_pruning_ratio: of any one layer.
        dense_channels: :func:`~lit_xai.network.layers.channels` of the dense network, if this one was pruned before.
        kept_whole: layers that an earlier Prunable of this network had to keep.
        call: the network's method that is called.
        output: where the logits are in its output.

    Attributes:
        groups: what can be removed.
        unranked: the layers of groups that the importance returned ``None`` for; they keep their channels.
        kept_whole: the layers that keep their channels because they cannot lose them, and why.
        moves: every cut in the order in which it is due.

    Raises:
        ValueError: a name matches nothing, the network cannot be traced, or the importance fails.
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
        kept_whole: Iterable[KeptWhole] = (),
        call: str = "forward",
        output: OutputSpec = None,
    ) -> None:
        self.network = network
        _refuse_scripted(network)
        refuse_keras(network, "Pruning")
        # Before layers are replaced, which may be listed by their classes.
        listed = match_layers(network, ignored_layers, "ignored_layers")
        ignored = [name for name, module in module_names(network).items() if module in listed]
        # Torch-Pruning knows nn.Linear alone; steps are in the terms of the layers replaced.
        self._linearized = linearize_(network)
        # Not eval(): modules override it to merge weights (LoRA), or raise in it (exported programs).
        for module in network.modules():
            module.training = False
        require_gradients_(network)  # Torch-Pruning silently leaves frozen layers unpruned
        self._call = lambda keep: call_network(network, example_inputs, call, keep)
        # What only training computes, such as an auxiliary head, has to fit after a cut as well.
        self._mode: Mode = contextlib.nullcontext
        with traceable():
            self._linearized |= matrices_as_layers_(network, self._outputs)
            self._mode = code_of_training(network, self._outputs)
        self.kept_whole = list(kept_whole)
        ignored += [name for kept in self.kept_whole for name in kept.layers]
        self._dependencies = Dependencies(network, example_inputs, ignored, call, output, self._mode)
        self.unranked: list[str] = []
        with quiet(), traceable(), self._searched():
            self.groups = self._ranked(
                importance, dense_channels, _Ratios(pruning_ratio, dict(pruning_ratio_dict or {}))
            )
        self._order = partial(
            order_moves,
            round_to=round_to,
            max_pruning_ratio=max_pruning_ratio,
            global_pruning=global_pruning,
            isomorphic=isomorphic,
        )
        self.moves = self._order(self.groups)

    @classmethod
    def copy_of(cls, network: nn.Module, example_inputs: Inputs, importance: Any = None, **options: Any) -> "Prunable":
        """Return a Prunable of a copy; the network itself is left unchanged.

        Args:
            network: the module to prune.
            example_inputs: what it is called with.
            importance: its data, if it needs any, collected on ``network``.
            options: as of the constructor.

        Example:
            >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
            >>> len(Prunable.copy_of(network, torch.zeros(1, 4)).moves)
            7
        """
        copied = copy_network(network)
        return cls(copied, example_inputs, importance=importance_of_copy(importance, network, copied), **options)

    def _ranked(self, importance: Any, dense: Mapping[str, int] | None, ratios: "_Ratios") -> list[ChannelGroup]:
        import torch_pruning

        importance = importance or torch_pruning.importance.GroupMagnitudeImportance()
        names = {module: name for name, module in module_names(self.network).items()}
        present = channels(self.network)
        groups = []
        for found in self._dependencies.groups():
            if isinstance(found, Lost):
                layers: tuple[str, ...] = (names[found.layer],)
                reason = found.reason
            else:
                layers = self._layers_of(found, names, present)
                try:
                    group = self._rank(found, layers, importance, dense or present, present, ratios)
                except ValueError:
                    raise  # an argument is wrong
                except Exception as error:  # Torch-Pruning misread its indices, which a layer does not have
                    reason = why_lost(error)
                else:
                    if group is None or group.parts == 1 or group.dense > 1:
                        groups += [group] if group is not None else []
                        continue
                    reason = f"each of {group.parts} groups, as of a GroupNorm, has one channel and cannot lose it"
            self.kept_whole.append(KeptWhole(layers, reason))
        for kept in self.kept_whole:
            ratios.of(kept.layers)  # a ratio for these is no mistake in spelling
        ratios.refuse_unused(names.values())
        return groups

    def _layers_of(self, group: Any, names: Mapping[nn.Module, str], present: Mapping[str, int]) -> tuple[str, ...]:
        members = self._dependencies.members(group)
        outputs = list(dict.fromkeys(names[layer] for layer, is_output in members if is_output and layer in names))
        # A normalization is cut with its layer, and names a group only where nothing else does.
        return tuple([name for name in outputs if name in present] or outputs)

    def _rank(
        self,
        group: Any,
        layers: tuple[str, ...],
        importance: Any,
        dense: Mapping[str, int],
        present: Mapping[str, int],
        ratios: "_Ratios",
    ) -> ChannelGroup | None:
        scores = scores_of(importance, group, layers)
        if scores is None:
            self.unranked += layers
            return None
        parts = self._dependencies.parts(group)
        # (parts * size,) to (size,): all parts lose the same positions, so that a position has one score.
        scores = scores.view(parts, -1).mean(0)
        size = len(scores)
        # Its width in the dense network, from the ratio of the layer's channels then and now.
        before = round(size * dense[layers[0]] / present[layers[0]]) if layers and layers[0] in dense else size
        if layers and layers[0] in present and layers[0] not in dense:
            raise LostError("dense_channels does not have its width")  # from this one, ratios would add up
        return ChannelGroup(
            layers=layers,
            root=group[0].dep.target.module,
            pruning_fn=group[0].dep.handler,
            parts=parts,
            size=size,
            dense=before,
            importance=scores,
            ratio=ratios.of(layers),
            pattern=" ".join(
                f"{type(layer).__name__}-{'out' if is_output else 'in'}"
                for layer, is_output in self._dependencies.members(group)
            ),
        )

    def coupled(self) -> Iterator[list[tuple[str, int, Tensor]]]:
        """Yield for each group its parameters: name, dimension, and the channel that each index of it belongs to."""
        modules = dict(self.network.named_modules(remove_duplicate=False))
        names = {id(value): name for name, value in named_tensors(modules).items()}
        for group in self.groups:
            whole = self._dependencies.expand(group, list(range(group.size * group.parts)))
            members = []
            for item, (layer, is_output) in zip(whole, self._dependencies.members(whole), strict=True):
                if None in item.root_idxs:  # Torch-Pruning could not follow these indices
                    continue
                # A bias has no input channels.
                for parameter in (getattr(layer, "weight", None), getattr(layer, "bias", None) if is_output else None):
                    if not isinstance(parameter, nn.Parameter):
                        continue
                    dim = _dim_of(layer, parameter, is_output)
                    if len(item.root_idxs) != parameter.shape[dim]:
                        continue
                    # roots[i] is the channel of the group's root that index i of this dimension belongs to.
                    roots = torch.empty(parameter.shape[dim], dtype=torch.int64)
                    roots[torch.tensor(item.idxs)] = torch.tensor(item.root_idxs)
                    members.append((names[id(parameter)], dim, roots))
            if members:
                yield [
                    (name, dim, roots)
                    for name, dim, roots in in_own_terms([list(m) for m in members], self._linearized)
                ]

    def due(self, progress: float = 1.0) -> list[Move]:
        """Return the moves that are due when the plan is done to a share of ``progress``."""
        return self.moves[: bisect_left(self.moves, Move(progress - EPSILON, -1.0, -1, -1))]

    @contextlib.contextmanager
    def pruned(self, moves: Sequence[Move]) -> Iterator[nn.Module]:
        """Apply these moves to the network, values included, inside the ``with`` block."""
        with self._cut(moves):
            yield self.network

    def halved(self) -> list[Move]:
        """Return the moves that leave each group about half of its channels: a cut to :meth:`take` as a test."""
        halves = {place: self._half_of(place) for place in {move.group for move in self.moves}}
        return [move for move in self.moves if move.left >= halves[move.group]]

    def staying(self) -> list[KeptWhole]:
        """Return every layer with weights that loses none of its outputs, and why: more than ``kept_whole``."""
        names = module_names(self.network)
        told = {names[name] for one in self.kept_whole for name in one.layers} | {names[name] for name in self.unranked}
        with quiet(), self._searched():
            for group in self.groups:
                members = self._dependencies.members(self._dependencies.expand(group, [0]))
                cut = [layer for layer, is_output in members if is_output and isinstance(layer, nn.Module)]
                told.update(part for layer in cut for part in layer.modules())
        return self.kept_whole + [
            KeptWhole((name,), self._dependencies.why_whole(layer))
            for name, layer in names.items()
            if layer not in told and any(value.dim() > 1 for value in layer.parameters(recurse=False))
        ]

    def _half_of(self, place: int) -> int:
        widths = [move.left for move in self.moves if move.group == place]
        return min(widths, key=lambda left: (abs(left - self.groups[place].size / 2), left))

    def take(self, choose: Callable[[], list[Move]], exact: bool = False) -> tuple[list[Move], Step]:
        """Return moves and their step; what cannot be cut is kept, and moves are chosen again.

        Most networks need one attempt. Where it fails, the groups that it fails for are found. One that can be halved
        keeps half of its channels from then on. Others go from ``groups`` to ``kept_whole``, as if their layers were in
        ``ignored_layers``.

        Args:
            choose: returns moves, such as :meth:`due`, those of a group from its first on.
            exact: whether to :meth:`check` as well that no channels are mixed up.

        Raises:
            ValueError: no group is left.
        """
        while self.groups or self.unranked or not self.kept_whole:
            moves: Sequence[Move] = ()
            try:
                moves = choose()
                return list(moves), self._tested(moves, exact)
            except CutError as error:
                self._keep_culprits(moves if error.moves is None else error.moves, exact, error)
        raise ValueError(
            f"{type(self.network).__name__} has no channels that can be removed: {in_words(self.staying())}. Narrow it"
            " down with module= to a part that can be pruned."
        )

    def _tested(self, moves: Sequence[Move], exact: bool) -> Step:
        step = self.step(moves)
        if exact:
            self.check(moves)
        return step

    def why_not(self, moves: Sequence[Move], exact: bool = False) -> str | None:
        """Return why a cut fails, ``None`` if it does not; see :meth:`take`."""
        try:
            self._tested(moves, exact)
        except CutError as error:
            return error.reason
        return None

    def _keep_culprits(self, moves: Sequence[Move], exact: bool, error: CutError) -> None:
        culprits = find_culprits(
            sorted({move.group for move in moves}),
            lambda places: self.why_not([move for move in moves if move.group in places], exact),
        )
        if not culprits:  # all passed when they were tested again
            raise error
        halved, whole = self.halved(), set[str]()
        for place, reason in culprits.items():
            group, half = self.groups[place], [move for move in halved if move.group == place]
            is_deep = min(move.left for move in moves if move.group == place) < half[-1].left
            if is_deep and self.why_not(half, exact=True) is None:
                self.groups[place] = replace(group, least=half[-1].left)
            else:
                self.kept_whole.append(KeptWhole(group.layers, reason))
                whole.update(group.layers)
        # As ignored_layers would: another group goes as well if it shares a layer's outputs with one of these.
        self.groups = [group for group in self.groups if not whole.intersection(group.layers)]
        self.moves = self._order(self.groups)

    def step(self, moves: Sequence[Move]) -> Step:
        """Return moves as a step of a recipe, after making sure that the network then runs.

        Args:
            moves: those of a group from its first on.

        Raises:
            CutError: the network does not run without these channels, or layers share a parameter of which each would
                lose others.
        """
        with self._cut(moves) as (kept, snapshot), traceable(), torch.no_grad():
            try:
                self._outputs()
            except Exception as error:
                why = f"{type(error).__name__}: {one_line(error)}"
                raise CutError(
                    f"{type(self.network).__name__} does not run without the channels to remove ({why}): keep the"
                    " layers that need them whole with ignored_layers=.",
                    f"the network does not run without some of its channels, {why}",
                ) from error
            attributes = own_attributes(snapshot.changed_attributes(), self._linearized)
            return {"kind": "prune", "kept": in_own_terms(kept, self._linearized), "attributes": attributes}

    def check(self, moves: Sequence[Move]) -> None:
        """Check that the pruned network computes the same as the network with these channels at zero.

        Args:
            moves: for which there is a :meth:`step`; fewer of them need no check of their own.

        Raises:
            CutError: the outputs differ.
        """
        if self._mixes_up(moves):
            raise CutError(
                f"{type(self.network).__name__} gives other outputs without the channels to remove than with them at"
                " zero, since it takes channels by their places (a shuffle, a split, a concatenation with an input):"
                " keep the layers that these come from whole with ignored_layers=.",
                "its channels are taken by their places (a shuffle, a split, a reshape, a concatenation with an input)",
            )

    def _mixes_up(self, moves: Sequence[Move]) -> bool:
        @contextlib.contextmanager
        def cut() -> Iterator[list[list[Any]]]:
            with self._cut(moves) as (kept, _):
                yield kept

        return mixes_up_channels(self.network, self._outputs, cut)

    def _outputs(self) -> list[Tensor]:
        """Call the network and return every floating-point tensor of its output."""
        found: list[Tensor] = []

        def keep(result: Any) -> Tensor:
            found.extend(value for _, value in leaves(result) if value.is_floating_point())
            return found[0] if found else find_logits(result)

        with self._mode(self.network):
            self._call(keep)
        return found

    def _searched(self) -> AbstractContextManager[None]:
        return searched(self._dependencies.graph, self._dependencies.misread)

    @contextlib.contextmanager
    def _cut(self, moves: Sequence[Move]) -> Iterator[tuple[list[list[Any]], Snapshot]]:
        """Remove channels inside the ``with`` block; yields what is kept, and what the network was."""
        left = {move.group: move.left for move in moves}  # later moves of a group include its earlier ones
        snapshot = Snapshot(self.network, self._dependencies.sizes_between_layers())
        try:
            with quiet(), torch.no_grad():
                snapshot.put_positions_()
                with self._searched():
                    cuts = [(self.groups[place], self.groups[place].without(n)) for place, n in left.items()]
                    removals = self._dependencies.removals(cuts)
                cut_(self.network, removals, snapshot.tensors)
                set_head_attributes_(self.network, self._dependencies.heads)
                kept = snapshot.put_values_back_()
            refuse_split(snapshot.tensors, kept)
            yield kept, snapshot
        finally:
            snapshot.restore_()


def dense_widths(network: nn.Module, example_inputs: Inputs, call: str = "forward") -> dict[str, int]:
    """Return :func:`channels`, those of matrices that the network multiplies by included.

    Args:
        network: the dense network; left unchanged.
        example_inputs: what it is called with.
        call: the network's method that is called.
    """
    copied = copy_network(network)
    linearize_(copied)
    with traceable():
        matrices_as_layers_(copied, lambda: call_network(copied, example_inputs, call, lambda _: torch.zeros(())))
    return channels(copied)


class _Ratios:
    """The share of channels to remove, of all layers and of some by name or pattern."""

    def __init__(self, default: float, by_pattern: Mapping[str, float]) -> None:
        self._default, self._by_pattern = default, by_pattern
        self._unused = set(by_pattern)

    def of(self, layers: Sequence[str]) -> float:
        """Return the ratio of layers that can only be pruned together: the first pattern that matches any of them."""
        matched = [
            pattern
            for pattern in self._by_pattern
            if any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for name in layers)
        ]
        self._unused -= set(matched)
        return self._by_pattern[matched[0]] if matched else self._default

    def refuse_unused(self, names: Iterable[str]) -> None:
        """Refuse patterns that no group matched; call it after all groups."""
        unused = next((pattern for pattern in self._by_pattern if pattern in self._unused), None)
        if unused is not None:
            raise ValueError(
                f"pruning_ratio_dict: {unused!r} matches no layer that can be pruned.{nearest(unused, names)}"
            )


def _refuse_scripted(network: nn.Module) -> None:
    name = next((n for n, m in network.named_modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if name is not None:
        raise ValueError(
            f"Pruning expected modules of Python, but got TorchScript in {name!r}: prune the network before"
            " torch.jit.script or torch.jit.trace, or narrow it down with module= to a part without."
        )


def _dim_of(layer: nn.Module, parameter: nn.Parameter, is_output: bool) -> int:
    """Return the dimension of a layer's parameter that its outputs, or inputs, are counted in."""
    if parameter.dim() == 1:
        return 0
    # Weights are (out, in, ...), those of transposed convolutions (in, out, ...).
    return int(is_output is bool(getattr(layer, "transposed", False)))
