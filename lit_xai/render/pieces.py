"""The pieces that a text is drawn in: tokens by name, those of one word next to each other, padding as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lit_xai.network.token_names import TokenNames
from lit_xai.render.shares import Array

RUN = 3
"""Equal tokens at either end of a text, from this many on, are padding and drawn as one."""


@dataclass(frozen=True)
class Piece:
    """One token as it is drawn, or a run of padding.

    Args:
        words: what is written.
        share: of the map's total, of all of the run.
        first: its position in the input.
        count: the length of the run.
        begins_word: whether a space comes before it.
        is_special: whether it is none of the text's own.
    """

    words: str
    share: float
    first: int
    count: int = 1
    begins_word: bool = True
    is_special: bool = False


def pieces_of(tokens: NDArray[np.int64], shares: Array, names: TokenNames, by_word: bool = False) -> list[Piece]:
    """Return the pieces of one text.

    Args:
        tokens: ids ``(T,)``.
        shares: of the map's total ``(T,)``.
        names: of the ids.
        by_word: make one piece of each word, with the sum of its shares.

    Example:
        >>> names = TokenNames(["[PAD]", "good", "##ness"])
        >>> [piece.words for piece in pieces_of(np.array([1, 2, 0, 0, 0]), np.zeros(5), names)]
        ['good', 'ness', '3 x [PAD]']
    """
    pieces, after_text = list[Piece](), False
    for first, count in _runs(tokens.tolist()):
        token = int(tokens[first])
        words, begins = names.piece(token, after_text)
        special = names.is_special(token) or count > 1
        piece = Piece(words, float(shares[first : first + count].sum()), first, count, begins, special)
        pieces.append(replace(piece, words=f"{count} x {words}") if count > 1 else piece)
        after_text = not special
    return _joined(pieces) if by_word else pieces


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    joined = list[Piece]()
    for piece in pieces:
        if piece.begins_word or not joined:
            joined.append(piece)
            continue
        last = joined[-1]
        words, share, count = last.words + piece.words, last.share + piece.share, last.count + piece.count
        joined[-1] = replace(last, words=words, share=share, count=count)
    return joined


def word_numbers(tokens: Sequence[int], names: TokenNames) -> list[int]:
    """Return the number of the word that each token of one text belongs to; a run of padding is one.

    Args:
        tokens: ids ``(T,)``.
        names: of the ids.

    Example:
        >>> word_numbers([1, 2, 1, 0, 0, 0], TokenNames(["[PAD]", "good", "##ness"]))
        [0, 0, 1, 2, 2, 2]
    """
    ids = np.asarray(tokens, np.int64)
    pieces = pieces_of(ids, np.zeros(len(ids)), names, by_word=True)
    return [number for number, piece in enumerate(pieces) for _ in range(piece.count)]


def _runs(tokens: list[int]) -> list[tuple[int, int]]:
    """Return where each piece begins and how many tokens it has."""
    n = len(tokens)
    before = next((i for i, token in enumerate(tokens) if token != tokens[0]), n)
    after = next((i for i, token in enumerate(reversed(tokens)) if token != tokens[-1]), n)
    start = before if before >= RUN else 0
    end = n - (after if after >= RUN and start < n else 0)
    runs = [(0, start)] if start else []
    runs += [(i, 1) for i in range(start, end)]
    return runs + ([(end, n - end)] if end < n else [])
