"""The groups of channels that a network cannot give up, found one by one, so that all others can be cut."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lit_xai.pruning.moves import Move


class CutError(ValueError):
    """A network that does not run, or computes something else, without the channels to remove.

    Args:
        message: one sentence with what to do.
        reason: why these channels have to stay, for a list of several.
        moves: the cut that failed, where the one who handles the error has not chosen it.
    """

    def __init__(self, message: str, reason: str, moves: Sequence[Move] | None = None) -> None:
        super().__init__(message)
        self.reason, self.moves = reason, moves


@dataclass(frozen=True)
class KeptWhole:
    """Layers that keep all of their channels, and why.

    Args:
        layers: names of layers whose channels can only be removed together.
        reason: the first error of a cut without them, or what they do with their channels.
    """

    layers: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{_listed(self.layers, 3)} ({self.reason})"


def find_culprits(groups: Sequence[int], why_not: Callable[[list[int]], str | None]) -> dict[int, str]:
    """Return the groups without whose channels a network does not work, and the reason for each.

    The groups that pass are collected by halves and tested together with all that passed before: k culprits among n
    groups take about 2 k log2(n) tests, and what is left at the end has passed as a whole. Equal groups and tests give
    equal culprits, and of two groups that fail only together, the first one passes.

    Args:
        groups: their places, of which not all pass together.
        why_not: tests a cut of some of them; returns ``None``, or why it fails.

    Example:
        >>> find_culprits([1, 2, 3, 4], lambda some: "3 is odd" if 3 in some else None)
        {3: '3 is odd'}
    """
    passed: list[int] = []
    culprits: dict[int, str] = {}

    def narrow(some: Sequence[int]) -> None:
        reason = why_not([*passed, *some])
        if reason is None:
            passed.extend(some)
        elif len(some) == 1:
            culprits[some[0]] = reason
        else:
            narrow(some[: len(some) // 2])
            narrow(some[len(some) // 2 :])

    narrow(list(groups))
    return culprits


def in_words(kept: Iterable[KeptWhole], most: int = 4) -> str:
    """Return which layers stay whole and why, one entry a reason.

    Args:
        kept: the layers.
        most: how many reasons to list.

    Example:
        >>> in_words([KeptWhole(("a",), "a shuffle"), KeptWhole(("b", "c"), "a shuffle"), KeptWhole(("d",), "tied")])
        'a, b, c (a shuffle); d (tied)'
    """
    by_reason: dict[str, list[str]] = {}
    for one in kept:
        by_reason.setdefault(one.reason, []).extend(one.layers)
    shown = [f"{_listed(layers, 6)} ({reason})" for reason, layers in by_reason.items()]
    left = len(shown) - most
    return "; ".join(shown[:most]) + (f"; and others for {left} more reasons" if left > 0 else "")


def that_stay(kept: Iterable[KeptWhole]) -> str:
    """Return the sentence on all layers that stay whole, to follow another; nothing if there are none.

    Example:
        >>> that_stay([KeptWhole(("lstm",), "recurrent layers keep their width")])
        ' These layers stay whole: lstm (recurrent layers keep their width).'
    """
    words = in_words(kept)
    return f" These layers stay whole: {words}." if words else ""


def as_table(kept: Iterable[KeptWhole]) -> str:
    """Return which layers stay whole and why as Markdown, to follow another table; nothing if there are none.

    Example:
        >>> as_table([KeptWhole(("a", "b"), "a shuffle")]).splitlines()[2:]
        ['| layers that stay whole | reason |', '|---|---|', '| a, b | a shuffle |']
    """
    rows = [f"| {', '.join(one.layers)} | {one.reason.replace('|', '/')} |" for one in kept]
    return "\n\n" + "\n".join(["| layers that stay whole | reason |", "|---|---|", *rows]) if rows else ""


def _listed(names: Sequence[str], most: int) -> str:
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")
