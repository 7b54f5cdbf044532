"""Names of tokens, read by the convention of their tokenizer."""

import functools
import re
from collections.abc import Sequence

SPECIAL = re.compile(r"\[[A-Z][A-Z0-9_ ]*\]|<[^<>\s]+>")
"""Names of tokens that no text holds: ``[CLS]``, ``<pad>``, ``<|endoftext|>``."""
_BLANKS = str.maketrans({"\n": "↵", "\r": "↵", "\t": "⇥"})


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
