"""The order in which channels are removed: every cut that a network can take, the first one due first."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-9


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of several layers that can only be removed together.

    Args:
        layers: names of the layers whose outputs they are.
        root: the layer that Torch-Pruning starts from.
        pruning_fn: its function for that layer.
        parts: how often each channel occurs (groups of a convolution, heads); every part loses the same ones.
        size: channels of a part now.
        dense: channels of a part in the dense network.
        importance: of each channel of a part, ``(size,)``.
        ratio: the share of ``dense`` that is removed at the end of the plan.
        pattern: equal for groups of the same structure.
        least: channels of a part that have to stay.
    """

    layers: tuple[str, ...]
    root: nn.Module
    pruning_fn: Any
    parts: int
    size: int
    dense: int
    importance: Tensor
    ratio: float
    pattern: str
    least: int = 1

    def without(self, n: int) -> list[int]:
        """Return the indices to remove so that ``n`` channels of each part are left."""
        # Every part (head, group of a convolution) loses the same positions: parts stay equally wide, as reshapes
        # expect.
        lowest = torch.topk(self.importance, self.size - n, largest=False).indices
        return sorted(torch.cat([lowest + part * self.size for part in range(self.parts)]).tolist())


@dataclass(frozen=True, order=True)
class Move:
    """One cut in one group; moves in their order lead from the present network to the smallest one.

    Args:
        at: the share of the plan at which it is due.
        loss: the share of its group's importance that is lost; orders moves that are due at the same time.
        group: which group.
        left: channels of a part that are left afterwards.
    """

    at: float
    loss: float
    group: int
    left: int


def order_moves(
    groups: Sequence[ChannelGroup],
    *,
    round_to: int | None = None,
    max_pruning_ratio: float = 1.0,
    global_pruning: bool = False,
    isomorphic: bool = False,
) -> list[Move]:
    """Return every cut that groups can take, in the order in which they are due.

    Args:
        groups: of a network.
        round_to: widths become multiples of it, the nearest one, and never less than one.
        max_pruning_ratio: of any one group.
        global_pruning: rank channels over all groups rather than within each.
        isomorphic: rank within groups of the same structure.

    Example:
        >>> group = ChannelGroup(("conv",), nn.Identity(), None, 1, 4, 4, torch.tensor([3.0, 1.0, 2.0, 4.0]), 1.0, "")
        >>> [(move.at, move.left) for move in order_moves([group])]
        [(0.0, 3), (0.25, 2), (0.5, 1)]
        >>> [(move.at, move.left) for move in order_moves([group], round_to=2)]
        [(0.25, 2)]
    """
    scopes: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        name = group.pattern if isomorphic else "all" if global_pruning else str(place)
        scopes.setdefault(name, []).append(place)
    return sorted(
        move
        for scope in scopes.values()
        for place, due in zip(scope, _due([groups[i] for i in scope]), strict=True)
        for move in _moves_of(groups[place], place, due, round_to or 1, max_pruning_ratio)
    )


def _due(groups: Sequence[ChannelGroup]) -> list[list[float]]:
    """Return for each group the share of a plan at which each of its channels is due, ranked within the scope."""
    gone = sum((group.dense - group.size) for group in groups)
    total = sum(group.dense for group in groups)
    # argsort of argsort: the rank of each channel among all of the scope.
    order = torch.cat([group.importance for group in groups]).argsort(stable=True).argsort()
    ranks = order.split([group.size for group in groups])
    # Counted from the dense network, so that a plan that is resumed after cuts continues at the same shares.
    return [[(gone + rank) / total for rank in sorted(own.tolist())] for own in ranks]


def _moves_of(
    group: ChannelGroup, place: int, due: list[float], round_to: int, max_pruning_ratio: float
) -> Iterator[Move]:
    """Yield a group's moves: from what it has down through the multiples of ``round_to``, each when it is nearest."""
    if group.ratio <= 0:
        return
    # The width of all parts together becomes a multiple of round_to, and stays one of parts.
    unit = math.lcm(round_to, group.parts) // group.parts
    least = max(unit, group.least, math.ceil(group.dense * (1 - max_pruning_ratio) - EPSILON))
    # lost[n]: the importance of the n least important channels.
    lost = [0.0, *group.importance.sort().values.cumsum(0).tolist()]
    now = group.size
    for left in range((group.size - 1) // unit * unit, least - 1, -unit):
        # A width is due once it is the nearest multiple: halfway between `now` and `left`. Without rounding, it is due
        # with the last channel that goes.
        gone = group.size - (now + left) / 2 if unit > 1 else group.size - left - 1
        loss = (lost[group.size - left] - lost[group.size - now]) / (lost[-1] or 1.0)
        yield Move(_between(due, gone) / group.ratio, loss, place, left)
        now = left


def _between(values: list[float], place: float) -> float:
    low = math.floor(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])
