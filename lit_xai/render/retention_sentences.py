"""The page of explanations before and after, of texts: each sentence as it was, as it is, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.network.token_names import TokenNames
from lit_xai.render.canvas import BAR, GREY, LINE, MARGIN, SMALL, WIDTH, Canvas, color_scale
from lit_xai.render.pieces import pieces_of
from lit_xai.render.retention_pages import MOST, BeforeAndAfter, write_lines
from lit_xai.render.sentences import HIGH, ROW, Lines, draw_lines, lines_of_text, notes_on
from lit_xai.render.shares import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADS = ("reference", "now", "change")
SIDE = 92
"""Width of the names beside texts."""
MOST_LINES = 5
"""Of each text; three of them stand below each other."""
QUIET = 0.1
"""A change below this part of the color limit is none to look at: the word is gray."""


def sentences_page(
    tokens: Array, compared: BeforeAndAfter, token_names: Sequence[str] | None = None, by_word: bool = False
) -> Figure:
    """Return each text three times: in the colors of the reference, of the network now, and of the difference.

    Args:
        tokens: ids ``(N, T)``.
        compared: with shares ``(N, 1, T)``.
        token_names: of the ids, where known.
        by_word: whether words are one thing each.
    """
    shown, names = min(len(tokens), MOST), TokenNames(token_names)
    ids = tokens.astype(np.int64)
    maps = (compared.reference.values, compared.present.values, compared.difference)
    x, wide = MARGIN + SIDE, WIDTH - 2 * MARGIN - SIDE
    texts = [
        [lines_of_text(pieces_of(ids[i], values[i, 0], names, by_word), wide) for values in maps] for i in range(shown)
    ]
    heights = [2 * LINE + sum(map(_height, three)) + 16 for three in texts]
    notes = notes_on([lines for three in texts for lines in three], 0, token_names)
    notes = [compared.left_out] * bool(compared.left_out) + notes
    canvas = Canvas(compared.title, sum(heights) + LINE * len(notes) + BAR, ends=compared.ends)
    scale, y = color_scale(compared.limit), float(canvas.top)
    for i, three in enumerate(texts):
        write_lines(canvas, compared, i, y)
        top = y + 2 * LINE
        for head, lines in zip(HEADS, three, strict=True):
            canvas.text(x - 10, top + HIGH / 2 - 1, head, size=SMALL, color=GREY, ha="right", va="center_baseline")
            quiet = QUIET * compared.limit if head == "change" else 0.0
            draw_lines(canvas, lines, scale, (x, top), most=MOST_LINES, quiet=quiet)
            top += _height(lines)
        for row, shares in enumerate((compared.reference, compared.present)):
            place = y + 2 * LINE + sum(map(_height, three[:row]))
            canvas.note(shares.note(i), x, place, wide, _height(three[row]))
        y += heights[i]
    for k, note in enumerate(notes):
        canvas.text(MARGIN, y + LINE * k, note, size=SMALL, color=GREY)
    canvas.color_bar(scale, compared.limit, f"share of the map's Σ|a| per {'word' if by_word else 'token'}")
    return canvas.finish()


def _height(lines: Lines) -> int:
    return ROW * min(len(lines), MOST_LINES) + LINE * (len(lines) > MOST_LINES) + 6
