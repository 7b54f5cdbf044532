"""Fonts that have what is to be written: the figures' own, and whatever is installed for letters that it lacks."""

from __future__ import annotations

import functools

OWN = "DejaVu Sans"
"""The font that matplotlib brings."""
LACKING = "□"
"""Stands for a letter that no installed font has."""
_REGULAR, _NO_LETTERS = (400, "normal", "regular", "book"), ("Emoji", "Last Resort")


def writable(words: str) -> tuple[str, tuple[str, ...]]:
    """Return ``words`` with :data:`LACKING` for letters that no installed font has, and the fonts that have the others.

    Example:
        >>> writable("naïve"), writable("\U000e0001")
        (('naïve', ('DejaVu Sans',)), ('□', ('DejaVu Sans',)))
    """
    fonts = {letter: _font_of(letter) for letter in words}
    others = sorted({font for font in fonts.values() if font is not None} - {OWN})
    return "".join(letter if fonts[letter] else LACKING for letter in words), (OWN, *others)


@functools.cache
def _font_of(letter: str) -> str | None:
    return next((name for name, path in _fonts().items() if ord(letter) in _letters(path)), None)


@functools.cache
def _fonts() -> dict[str, str]:
    """Return the files of upright fonts by name, matplotlib's own first."""
    from matplotlib.font_manager import findfont, fontManager

    upright = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in _REGULAR]
    # Fonts of color pictures cannot be drawn, and the last resort has a box for every letter.
    drawn = {font.name: font.fname for font in upright if not any(word in font.name for word in _NO_LETTERS)}
    return {OWN: findfont(OWN)} | {name: drawn[name] for name in sorted(drawn) if name != OWN}


@functools.cache
def _letters(path: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a file that is no longer there, or no font that can be scaled
        return frozenset()
