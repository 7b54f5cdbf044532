"""Which way text runs, and the order in which its parts stand on a line.

Of the Unicode bidirectional algorithm (`UAX 9 <https://www.unicode.org/reports/tr9/>`_) what whole words need: runs of
the other direction are reversed as a whole. Explicit marks and embeddings are not read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

LEFT, RIGHT, NEITHER = "left to right", "right to left", ""
_STRONG = {"L": LEFT, "R": RIGHT, "AL": RIGHT}
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")


def direction_of(words: Iterable[str]) -> str:
    """Return which way words run: that of the first letter that has one; digits and marks have none.

    Example:
        >>> direction_of(["1 שלום"]), direction_of(["film"]), direction_of(["!"])
        ('right to left', 'left to right', '')
    """
    kinds = (_STRONG.get(unicodedata.bidirectional(letter)) for one in words for letter in one)
    return next((kind for kind in kinds if kind), NEITHER)


def in_order(directions: Sequence[str], base: str) -> list[int]:
    """Return the places of parts in the order in which they stand, from left to right.

    Args:
        directions: of each part, as they are read.
        base: of the whole line.

    Example:
        >>> in_order([RIGHT, LEFT, LEFT, RIGHT], RIGHT)
        [3, 1, 2, 0]
    """
    known = _resolved(directions, base)
    order = list(range(len(known)))
    runs: list[list[int]] = []
    for place in order:
        # One direction is one run; in the other, each part is its own.
        if runs and known[place] != base and known[runs[-1][-1]] != base:
            runs[-1].append(place)
        else:
            runs.append([place])
    if base == RIGHT:
        return [place for run in reversed(runs) for place in run]
    return [place for run in runs for place in reversed(run)]


def _resolved(directions: Sequence[str], base: str) -> list[str]:
    """Return the directions, marks between two parts of one direction as these, other marks as the line."""
    strong = [i for i, one in enumerate(directions) if one]

    def around(i: int) -> str:
        before = next((directions[k] for k in reversed(strong) if k < i), base)
        after = next((directions[k] for k in strong if k > i), base)
        return before if before == after else base

    return [one or around(i) for i, one in enumerate(directions)]


def as_drawn(words: str, direction: str, is_shaped: bool) -> str:
    """Return the letters of one part as they stand, for what writes them from left to right as they come.

    Args:
        words: as they are read.
        direction: of the run that the part belongs to.
        is_shaped: whether the writing turns text around and joins letters by itself, as matplotlib does from 3.11 on.
            Before, Arabic letters stand unjoined.

    Example:
        >>> as_drawn("(", RIGHT, is_shaped=True), as_drawn("abc", LEFT, is_shaped=False)
        (')', 'abc')
        >>> as_drawn("שלום", RIGHT, is_shaped=False) == "שלום"[::-1]
        True
    """
    if direction != RIGHT:
        return words
    if direction_of([words]) == NEITHER:
        return words.translate(_MIRRORED)
    return words if is_shaped or direction_of([words]) == LEFT else "".join(reversed(_clusters(words)))


def _clusters(words: str) -> list[str]:
    clusters: list[str] = []
    for letter in words:
        if clusters and unicodedata.combining(letter):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    return clusters
