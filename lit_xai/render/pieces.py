"""The pieces that a text is drawn in: tokens by name, those of one word next to each other, padding as one."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lit_xai.render.shares import Array

SPECIAL = re.compile(r"\[[A-Z][A-Z0-9_ ]*\]|<[^<>\s]+>")
"""Names of tokens that no text holds: ``[CLS]``, ``<pad>``, ``<|endoftext|>``."""
RUN = 3
"""Equal tokens at either end of a text, from this many on, are padding and drawn as one."""
_BLANKS = str.maketrans({"\n": "↵", "\r": "↵", "\t": "⇥"})


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


class TokenNames:
    """Names of tokens, read by the convention of their tokenizer.

    ``##`` continues a word (WordPiece); ``▁`` (SentencePiece) and ``Ġ`` (byte-level BPE, whose letters stand for bytes)
    begin one where any name has it. Where none has, every token is a word.

    Args:
        names: one for each id; without them, an id is a number.

    Example:
        >>> names = TokenNames(["[CLS]", "un", "##happy", "movie"])
        >>> names.piece(2, after_text=True)
        ('happy', False)
        >>> TokenNames(["Ġcaf", "Ã©"]).piece(1, after_text=True)
        ('é', False)
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names = () if names is None else names
        marks = {mark: sum(str(name).startswith(mark) for name in self._names) for mark in ("##", "Ġ", "▁")}
        self._mark = max(marks, key=lambda mark: marks[mark]) if any(marks.values()) else ""

    def name(self, token: int) -> str:
        """Return a token's name as its tokenizer has it, or its number where it has none."""
        known = self._names[token] if 0 <= token < len(self._names) else None
        return f"{token}" if known is None else str(known)

    def is_special(self, token: int) -> bool:
        """Return whether it is none of the text's own."""
        return SPECIAL.fullmatch(self.name(token)) is not None

    def piece(self, token: int, after_text: bool) -> tuple[str, bool]:
        """Return what is written for a token, and whether it begins a word.

        Args:
            token: its id.
            after_text: whether the token before it is one of the text's own.
        """
        name = self.name(token)
        if self.is_special(token) or not self._mark or not 0 <= token < len(self._names):
            return _visible(name), True
        if self._mark == "##":
            return _visible(name.removeprefix("##")), not (name.startswith("##") and after_text)
        begins = name.startswith(self._mark) or not after_text
        text = _from_bytes(name) if self._mark == "Ġ" else name.replace("▁", " ")
        return _visible(text.removeprefix(" ")), begins


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


def _visible(text: str) -> str:
    text = text.translate(_BLANKS)
    return "".join(letter if letter.isprintable() else "·" for letter in text) if text.strip() else "␣"


@functools.cache
def _bytes() -> dict[str, int]:
    # Byte-level BPE writes a byte that is no visible letter of Latin-1 as a letter from 256 on.
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def _from_bytes(name: str) -> str:
    known = _bytes()
    if not all(letter in known for letter in name):
        return name
    # A letter of several bytes may be cut into tokens, each of which is the replacement character then.
    return bytes(known[letter] for letter in name).decode(errors="replace")
