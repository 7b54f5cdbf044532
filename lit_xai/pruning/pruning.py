"""Pruning as a function: the channels of a network to remove, as a step of a recipe."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import channels, output_layers
from lit_xai.pruning.culprits import CutError, in_words
from lit_xai.pruning.importance import needs_data
from lit_xai.pruning.moves import Move
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.targets import check_ratio
from lit_xai.structure.kinds import Step, apply_step_

__all__ = ["channels", "check_ratio", "output_layers", "prunable_layers", "prune_step", "pruned_copy", "reach"]

TOLERANCE = 0.02
"""The distance from a target that counts as reached, as a share of it."""

AHEAD = 0.15
"""The share of the plan that a move may be taken ahead of its turn: one step of 8 in a layer of 64."""


def prune_step(
    network: nn.Module,
    example_inputs: Inputs,
    *,
    pruning_ratio: float = 0.5,
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
) -> Step:
    """Return the step that removes a share of a network's channels; the network itself is left unchanged.

    The layers that the output comes from stay whole, and so do those that cannot lose channels, with a warning that
    lists them: where channels are taken by their places, or the network does not run without them.

    Args:
        network: the module to prune.
        example_inputs: what it is called with; shapes matter, values do not.
        pruning_ratio: the share of channels to remove, in [0, 1).
        pruning_ratio_dict: the same for layers by name or pattern, and for the layers that are coupled to these.
        importance: an instance of a ``torch_pruning.importance.Importance``, default ``GroupMagnitudeImportance``. One
            that needs data has collected them on ``network``, see
            :func:`~lit_xai.pruning.importance.prepare_importance`.
        ignored_layers: layers to keep whole: names (a module's parts are kept with it), patterns or classes.
        round_to: channel counts become multiples of it, the nearest one, and never less than one.
        global_pruning: rank channels over the whole network rather than within each layer.
        isomorphic: rank within layers of the same structure (Fang et al. 2024).
        max_pruning_ratio: of any one layer.
        dense_channels: :func:`channels` of the dense network where this one was pruned before: ratios then count from
            there, and do not add up.
        call: the network's method that is called.
        output: where the logits are in its output.

    Returns:
        A step for :func:`lit_xai.structure.attachment.take_step_`.

    Raises:
        ValueError: a ratio out of range, a name that is no layer, a network that cannot be traced, or one that has no
            layer that can lose channels.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> step = prune_step(network, torch.zeros(1, 4), pruning_ratio=0.5)
        >>> [(name, dim, size, len(kept)) for name, dim, size, kept in step["kept"]]
        [('0.weight', 0, 8, 4), ('0.bias', 0, 8, 4), ('2.weight', 1, 8, 4)]
    """
    check_ratio(pruning_ratio, "pruning_ratio")
    for name, ratio in (pruning_ratio_dict or {}).items():
        check_ratio(ratio, f"pruning_ratio_dict[{name!r}]")
    prunable = Prunable.copy_of(
        network,
        example_inputs,
        pruning_ratio=pruning_ratio,
        pruning_ratio_dict=pruning_ratio_dict,
        importance=importance,
        ignored_layers=ignored_layers,
        round_to=round_to,
        global_pruning=global_pruning,
        isomorphic=isomorphic,
        max_pruning_ratio=max_pruning_ratio,
        dense_channels=dense_channels,
        call=call,
        output=output,
    )
    moves, step = prunable.take(prunable.due, exact=True)
    if not moves and prunable.unranked:
        hint = " Show it data of this network first." if importance is not None and needs_data(importance) else ""
        message = f"Nothing is removed: {not_ranked(importance, prunable.unranked)}{hint}"
        warnings.warn(message, UserWarning, stacklevel=2)
    _warn_of_kept(prunable)
    return step


def _warn_of_kept(prunable: Prunable) -> None:
    if prunable.kept_whole:
        message = (
            f"{type(prunable.network).__name__} keeps channels that it cannot lose: {in_words(prunable.kept_whole)}."
        )
        warnings.warn(message, UserWarning, stacklevel=3)


def not_ranked(importance: Any, layers: Sequence[str]) -> str:
    """Return the message about an importance that ranked no channels of these layers.

    Example:
        >>> not_ranked(None, ["conv1"])
        'importance=GroupMagnitudeImportance returned None, which is no ranking, for the channels of conv1.'
    """
    name = "GroupMagnitudeImportance" if importance is None else type(importance).__name__
    shown = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    message = f"importance={name} returned None, which is no ranking, for the channels of {shown}."
    # InputImportance and its subclasses, without the import of Torch-Pruning that its module needs.
    if hasattr(importance, "measured"):
        message += " Its self.measured, which collect fills, has no entry for a layer that reads them."
    return message


def prunable_layers(network: nn.Module, example_inputs: Inputs, **options: Any) -> list[list[str]]:
    """Return the names of the layers whose output channels can be removed, coupled layers in one list.

    Args:
        network: the module to prune.
        example_inputs: what it is called with.
        options: of :func:`prune_step`.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> prunable_layers(network, torch.zeros(1, 4))
        [['0']]
    """
    prunable = Prunable.copy_of(network, example_inputs, **options)
    prunable.take(prunable.halved, exact=True)
    return [list(group.layers) for group in prunable.groups]


def pruned_copy(network: nn.Module, example_inputs: Inputs, **options: Any) -> nn.Module:
    """Return a pruned copy of a network, in eval mode.

    Args:
        network: the module to prune.
        example_inputs: what it is called with.
        options: of :func:`prune_step`.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> pruned_copy(network, torch.zeros(1, 4), pruning_ratio=0.25)[0]
        Linear(in_features=4, out_features=6, bias=True)
    """
    prunable = Prunable.copy_of(network, example_inputs, **options)
    _, step = prunable.take(prunable.due, exact=True)
    _warn_of_kept(prunable)
    copied = copy_network(network)
    apply_step_(copied, step)
    for module in copied.modules():  # not eval(), which modules override
        module.training = False
    return copied


def reach(
    prunable: Prunable, measure: Callable[[nn.Module], float], target: float, attempts: int = 24
) -> tuple[list[Move], float]:
    """Return the moves after which a network measures nearest to a target, and what it measures then.

    Regula falsi along the order of the moves; where the next move would go too far, later ones that do not are tried.

    Args:
        prunable: the network.
        measure: from a pruned network to its size, which falls as channels are removed.
        target: the size to reach.
        attempts: how many later moves to try at most after the bisection.

    Raises:
        ValueError: the target is out of reach; gives the lowest possible value.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> size = lambda network: sum(p.numel() for p in network.parameters())
        >>> moves, found = reach(Prunable.copy_of(network, torch.zeros(1, 4)), size, 35)
        >>> found  # 8 of the 67 parameters go with each channel
        35
    """

    search = _Search(prunable, measure, target)
    left = search.narrow()
    search.fill(left, attempts)
    return search.moves, search.found


class _Search:
    """The search for the moves after which a network measures nearest to a target."""

    def __init__(self, prunable: Prunable, measure: Callable[[nn.Module], float], target: float) -> None:
        self._prunable, self._measure, self._target = prunable, measure, target
        self.moves: list[Move] = []
        self.found = math.inf

    @property
    def is_near(self) -> bool:
        return abs(self.found - self._target) <= TOLERANCE * self._target

    def narrow(self) -> int:
        """Measure along the order of the moves, and return how many can be taken before the target is passed."""
        moves = self._prunable.moves
        # Invariant: after `low` moves the size is at least the target, after `high` moves it is below or near it.
        low, high = 0, len(moves)
        at_low, at_high = self._try([]), self._try(moves)
        if at_high > self._target * (1 + TOLERANCE):
            raise ValueError(f"is out of reach: the lowest possible value is {at_high:.6g} of {at_low:.6g}.")
        by_halves = False
        while high - low > 1 and not self.is_near:
            # By the line through both ends, which is close if the sizes fall evenly; every other time by halves, as a
            # curve could keep one end of the interval in place (the known weakness of regula falsi).
            share = 0.5 if by_halves or at_low <= at_high else (at_low - self._target) / (at_low - at_high)
            by_halves = not by_halves
            middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
            found = self._try(moves[:middle])
            if found >= self._target:
                low, at_low = middle, found
            else:
                high, at_high = middle, found
        return low

    def fill(self, n: int, attempts: int) -> None:
        """Add later moves to the first ``n`` while these do not pass the target.

        Only moves that are nearly due: filling a gap with many small ones would hollow out some layers.
        """
        moves = self._prunable.moves
        taken, skipped = moves[:n], set()
        for move in moves[n:]:
            if self.is_near or not attempts or move.at > moves[n].at + AHEAD:
                return
            if move.group in skipped:
                continue
            attempts -= 1
            if self._try([*taken, move]) >= self._target:
                taken.append(move)
            else:
                skipped.add(move.group)  # a group's moves build on its earlier ones

    def _try(self, moves: list[Move]) -> float:
        try:
            with self._prunable.pruned(moves) as pruned:
                found = self._measure(pruned)
        except Exception as error:
            # Whatever a measure raises where the network does not run: for Prunable.take, which finds out why.
            reason = self._prunable.why_not(moves)
            if reason is None:
                raise
            raise CutError(
                f"The network does not run without the channels to remove: {reason}.", reason, moves
            ) from error
        # The nearest of all tries is kept: with latencies, which are noisy, the last one need not be the nearest.
        if abs(found - self._target) < abs(self.found - self._target):
            self.moves, self.found = list(moves), found
        return found
