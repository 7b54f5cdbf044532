"""A network traced for pruning: its groups of channels, the order in which they are removed, and the pruned network.

The number of channels to remove is decided here and not by Torch-Pruning's own pruner, which rounds widths down, cuts
all layers of one size at once, and changes the network that it ranks.
"""

import contextlib
import copy
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lit_xai.network.calling import Inputs, OutputSpec, call_network, find_logits, module_names
from lit_xai.network.check import check_integer, check_share, refusal
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import channels, traceable
from lit_xai.network.spelling import nearest
from lit_xai.pruning.cutting import Snapshot, cut_, refuse_split
from lit_xai.pruning.dependencies import Dependencies
from lit_xai.pruning.heads import set_head_attributes_
from lit_xai.pruning.importance import ImportanceError, importance_of_copy, name_of
from lit_xai.pruning.masked import mixes_up_channels
from lit_xai.pruning.moves import EPSILON, ChannelGroup, Move, order_moves
from lit_xai.pruning.searching import lost, one_line, quiet, searched
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
        call: the network's method that is called.
        output: where the logits are in its output.

    Attributes:
        groups: what can be removed.
        unranked: the layers of groups that the importance returned ``None`` for; they keep their channels.
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
        call: str = "forward",
        output: OutputSpec = None,
    ) -> None:
        self.network = network
        _refuse_scripted(network)
        # Not eval(): modules override it to merge weights (LoRA), or raise in it (exported programs).
        for module in network.modules():
            module.training = False
        for parameter in network.parameters():
            parameter.requires_grad_(True)  # Torch-Pruning silently leaves frozen layers unpruned
        self._run = lambda keep: call_network(network, example_inputs, call, keep)
        self._dependencies = Dependencies(network, example_inputs, ignored_layers, call, output)
        self.unranked: list[str] = []
        with quiet(), traceable(), searched(self._dependencies.graph):
            self.groups = self._ranked(
                importance, dense_channels, _Ratios(pruning_ratio, dict(pruning_ratio_dict or {}))
            )
        self.moves = order_moves(
            self.groups,
            round_to=round_to,
            max_pruning_ratio=max_pruning_ratio,
            global_pruning=global_pruning,
            isomorphic=isomorphic,
        )

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
        try:
            groups = list(self._rank_groups(importance, dense, ratios))
        except ValueError:
            raise  # an argument is wrong
        except Exception as error:
            raise lost(self.network, f"{type(error).__name__}: {one_line(error)}") from error
        ratios.refuse_unused(module_names(self.network))
        return groups

    def _rank_groups(
        self, importance: Any, dense: Mapping[str, int] | None, ratios: "_Ratios"
    ) -> Iterator[ChannelGroup]:
        names = {module: name for name, module in module_names(self.network).items()}
        present = channels(self.network)
        dense = dense or present
        for group in self._dependencies.groups():
            members = self._dependencies.members(group)
            outputs = [names[layer] for layer, is_output in members if is_output and layer in names]
            layers = tuple(dict.fromkeys(name for name in outputs if name in present))
            scores = _scores(importance, group, layers)
            if scores is None:
                self.unranked += layers
                continue
            parts = self._dependencies.parts(group)
            # (parts * size,) to (size,): all parts lose the same positions, so that a position has one score.
            scores = scores.view(parts, -1).mean(0)
            size = len(scores)
            # Its width in the dense network, from the ratio of the layer's channels then and now.
            before = round(size * dense[layers[0]] / present[layers[0]]) if layers and layers[0] in dense else size
            yield ChannelGroup(
                layers=layers,
                root=group[0].dep.target.module,
                pruning_fn=group[0].dep.handler,
                parts=parts,
                size=size,
                dense=before,
                importance=scores,
                ratio=ratios.of(layers),
                pattern=" ".join(
                    f"{type(layer).__name__}-{'out' if is_output else 'in'}" for layer, is_output in members
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
                yield members

    def due(self, progress: float = 1.0) -> list[Move]:
        """Return the moves that are due when the plan is done to a share of ``progress``."""
        return self.moves[: bisect_left(self.moves, Move(progress - EPSILON, -1.0, -1, -1))]

    @contextlib.contextmanager
    def pruned(self, moves: Sequence[Move]) -> Iterator[nn.Module]:
        """Apply these moves to the network, values included, inside the ``with`` block."""
        with self._cut(moves):
            yield self.network

    def step(self, moves: Sequence[Move]) -> Step:
        """Return moves as a step of a recipe, after making sure that the network then runs.

        Args:
            moves: those of a group from its first on.

        Raises:
            ValueError: the network does not run without these channels, or layers share a parameter of which each would
                lose others.
        """
        with self._cut(moves) as (kept, snapshot), traceable(), torch.no_grad():
            try:
                self._outputs()
            except Exception as error:
                raise ValueError(
                    f"{type(self.network).__name__} does not run without the channels to remove"
                    f" ({type(error).__name__}: {one_line(error)}): keep the layers that need them whole with"
                    " ignored_layers=."
                ) from error
            return {"kind": "prune", "kept": kept, "attributes": snapshot.changed_attributes()}

    def check(self, moves: Sequence[Move]) -> None:
        """Check that the pruned network computes the same as the network with these channels at zero.

        Args:
            moves: for which there is a :meth:`step`; fewer of them need no check of their own.

        Raises:
            ValueError: the outputs differ; names the layers that would have to stay whole.
        """
        if not self._mixes_up(moves):
            return
        places = sorted({move.group for move in moves})
        # Group by group, to name the layers to keep; if only their combination fails, all of them.
        culprits = [i for i in places if self._mixes_up([move for move in moves if move.group == i])] or places
        layers = [group.layers[0] for group in (self.groups[i] for i in culprits) if group.layers]
        raise ValueError(
            f"{type(self.network).__name__} gives other outputs without the channels to remove than with"
            " them at zero, since it takes channels by their places (a shuffle, a split, a concatenation with an"
            f" input): keep the layers that these come from whole with ignored_layers={layers}."
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
            found.extend(v for v in tree_leaves(result) if isinstance(v, Tensor) and v.is_floating_point())
            return found[0] if found else find_logits(result)

        self._run(keep)
        return found

    @contextlib.contextmanager
    def _cut(self, moves: Sequence[Move]) -> Iterator[tuple[list[list[Any]], Snapshot]]:
        """Remove channels inside the ``with`` block; yields what is kept, and what the network was."""
        left = {move.group: move.left for move in moves}  # later moves of a group include its earlier ones
        snapshot = Snapshot(self.network, self._dependencies.sizes_between_layers())
        try:
            with quiet(), torch.no_grad():
                snapshot.put_positions_()
                with searched(self._dependencies.graph):
                    cuts = [(self.groups[place], self.groups[place].without(n)) for place, n in left.items()]
                    removals = self._dependencies.removals(cuts)
                cut_(self.network, removals, snapshot.tensors)
                set_head_attributes_(self.network, self._dependencies.heads)
                kept = snapshot.put_values_back_()
            refuse_split(snapshot.tensors, kept)
            yield kept, snapshot
        finally:
            snapshot.restore_()


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


def _scores(importance: Any, group: Any, layers: Sequence[str]) -> Tensor | None:
    """Return a group's importances as finite numbers on the CPU, ``None`` if the importance does not rank it."""
    is_builtin = type(importance).__module__.partition(".")[0] in ("torch_pruning", "lit_xai")
    expected = len(group[0].idxs)
    try:
        scores = importance(group)
    except ImportanceError:
        raise
    except Exception as error:
        if is_builtin:  # these fail where the graph was misread: the caller's error names the network
            raise
        is_unset = isinstance(error, AttributeError) and error.obj is importance
        hint = (
            " Does its __init__ call super().__init__()?" if is_unset and "__init__" in vars(type(importance)) else ""
        )
        raise ImportanceError(
            f"importance={name_of(importance)} failed on the channels of {list(layers)} ({type(error).__name__}:"
            f" {one_line(error)}).{hint}"
        ) from error
    if scores is None:
        return None
    if not is_builtin and (not isinstance(scores, Tensor) or scores.shape != (expected,)):
        what = f"to return a tensor of shape ({expected},), one value for each channel of {list(layers)}"
        raise ImportanceError.expected(importance, what, scores)
    if _has_nan(importance, group, scores):
        raise ImportanceError(
            f"importance={name_of(importance)} expected to return a number for each channel of {list(layers)}, but got"
            f" nan for {int(scores.isnan().sum())} of {expected}: channels cannot be ranked by it."
        )
    # What a normalizer left without a number counts as 0, infinity as the largest number.
    return torch.nan_to_num(scores.detach().float().cpu())


def _has_nan(importance: Any, group: Any, scores: Tensor) -> bool:
    if not scores.isnan().any():
        return False
    if getattr(importance, "normalizer", None) is None:
        return True
    # Torch-Pruning's normalizers divide by a group's sum or mean: a group of zeros, which a dead or frozen layer may
    # well have, becomes 0 / 0. That is no fault of the importance, so the scores before it are looked at.
    raw = copy.copy(importance)
    raw.normalizer = None
    return bool(raw(group).isnan().any())


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
