"""Text that fits: the width of words, shortened or broken into lines if they are too wide."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import RendererAgg

DPI = 100


# Measures text and draws nothing, hence one pixel.
@functools.cache
def _renderer() -> RendererAgg:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, DPI)


def text_width(words: str, size: float, weight: str = "normal", family: Sequence[str] | None = None) -> float:
    """Return the width of ``words`` in pixels.

    Args:
        words: of one line.
        size: of the font, in points.
        weight: ``"normal"`` or ``"bold"``.
        family: names of fonts, each for what those before it lack; default matplotlib's.
    """
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=None if family is None else list(family), size=size, weight=weight)
    return _renderer().get_text_width_height_descent(words, font, False)[0]


def shorten(words: str, width: float, size: float, weight: str = "normal") -> str:
    """Return ``words`` with as much of their middle taken out as it takes to fit into ``width`` pixels.

    Example:
        >>> shorten("worst fractal dimension", 180, 15)
        'worst f…ension'
    """
    if text_width(words, size, weight) <= width:
        return words

    def cut(kept: int) -> str:
        return f"{words[: (kept + 1) // 2]}…{words[len(words) - kept // 2 :]}"

    # The width grows with the number of letters kept, so bisection needs a few measurements of a long name.
    too_many = bisect_left(range(len(words)), True, key=lambda kept: text_width(cut(kept), size, weight) > width)
    return cut(max(too_many - 1, 0))


def shorten_end(words: str, width: float, size: float, weight: str = "normal") -> str:
    """Return ``words`` with as much of their end taken out as it takes to fit; what stands in brackets there stays.

    Example:
        >>> shorten_end("The Shawshank Redemption (1994)", 240, 15)
        'The Shawsha… (1994)'
    """
    if text_width(words, size, weight) <= width:
        return words
    head, bracket, rest = words.rpartition(" (")
    tail = f"{bracket}{rest}" if head and text_width(f"{bracket}{rest}", size, weight) <= width / 2 else ""
    head = head if tail else words

    def cut(kept: int) -> str:
        return f"{head[:kept].rstrip(' ,')}…{tail}"

    too_many = bisect_left(range(len(head)), True, key=lambda kept: text_width(cut(kept), size, weight) > width)
    return cut(max(too_many - 1, 0))


def wrap(words: str, width: float, size: float, weight: str, most: int = 4) -> list[str]:
    """Return ``words`` broken into at most ``most`` lines of ``width`` pixels, the last one shortened if need be.

    Example:
        >>> wrap("IntegratedGradients, baseline zero, epoch 3", 300, 15, "normal")
        ['IntegratedGradients,', 'baseline zero, epoch 3']
    """
    lines: list[str] = []
    for paragraph in words.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and text_width(longer, size, weight) > width:
                lines.append(line)
                longer = word
            line = longer
        lines += [line] if line else []
    # What does not fit is joined into the last line, where shorten takes out its middle.
    rest = " ".join(lines[most - 1 :])
    return [shorten(line, width, size, weight) for line in (*lines[: most - 1], rest) if line]
