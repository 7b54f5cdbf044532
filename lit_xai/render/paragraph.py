"""A text broken into lines of pieces, each with its place: what a figure draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lit_xai.render.direction import LEFT, RIGHT, as_drawn, direction_of, in_order
from lit_xai.render.pieces import Piece

PAD, SPACE = 4, 5
"""Pixels of color beside a word, and from word to word."""


@dataclass(frozen=True)
class Placed:
    """A piece with its place on the page.

    Args:
        piece: which one.
        words: its letters in the order in which they are written.
        x: of its left edge, in pixels from the left edge of the text.
        width: of its colored background.
        text_x: of its letters.
    """

    piece: Piece
    words: str
    x: float
    width: float
    text_x: float


Word = list[Piece]
Measure = Callable[[Piece], float]


def lay_out(pieces: Sequence[Piece], width: float, measure: Measure, is_shaped: bool = True) -> list[list[Placed]]:
    """Return the lines of a text; those of one that runs from right to left end at the right edge.

    Args:
        pieces: of the text, as they are read.
        width: of the lines, in pixels.
        measure: returns the width of a piece's letters in pixels.
        is_shaped: as in :func:`~lit_xai.render.direction.as_drawn`.

    Example:
        >>> pieces = [Piece(word, 0.0, i) for i, word in enumerate(["a", "fine", "film"])]
        >>> lines = lay_out(pieces, 100, lambda piece: 10 * len(piece.words))
        >>> [[placed.words for placed in line] for line in lines]
        [['a', 'fine'], ['film']]
    """
    base = direction_of(piece.words for piece in pieces if not piece.is_special) or LEFT
    lines = _broken(_words(pieces), width, measure)
    return [_placed(line, width, measure, base, is_shaped) for line in lines]


def _words(pieces: Iterable[Piece]) -> list[Word]:
    words: list[Word] = []
    for piece in pieces:
        if words and not piece.begins_word:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _broken(words: Iterable[Word], width: float, measure: Measure) -> list[list[Word]]:
    lines: list[list[Word]] = []
    x = width + 1.0
    for word in words:
        wide = _width_of(word, measure)
        # A word that is wider than a line is broken between its pieces.
        for part in [word] if wide <= width else [[piece] for piece in word]:
            wide = _width_of(part, measure)
            if x + wide > width:
                lines.append([])
                x = 0.0
            lines[-1].append(part)
            x += wide + SPACE
    return lines


def _width_of(word: Word, measure: Measure) -> float:
    return sum(map(measure, word)) + 2 * PAD


def _placed(line: list[Word], width: float, measure: Measure, base: str, is_shaped: bool) -> list[Placed]:
    # Special tokens stand where they are read, whatever the letters of their names.
    directions = [base if word[0].is_special else direction_of(piece.words for piece in word) for word in line]
    used = sum(_width_of(word, measure) for word in line) + SPACE * (len(line) - 1)
    x = width - used if base == RIGHT else 0.0
    placed = []
    for place in in_order(directions, base):
        word, own = line[place], directions[place] or base
        order = in_order([direction_of([piece.words]) for piece in word], own)
        for k in order:
            left, right = PAD * (k == order[0]), PAD * (k == order[-1])
            wide = measure(word[k])
            letters = as_drawn(word[k].words, direction_of([word[k].words]) or own, is_shaped)
            placed.append(Placed(word[k], letters, x, left + wide + right, x + left))
            x += left + wide + right
        x += SPACE
    return placed
