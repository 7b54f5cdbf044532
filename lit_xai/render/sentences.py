"""Texts: each token on a background in the color of its share, lines as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.network.token_names import TokenNames
from lit_xai.render.canvas import BAR, GREY, INK, LINE, MARGIN, SMALL, TEXT, WIDTH, Canvas, color_scale, to_colors
from lit_xai.render.captions import lines_of
from lit_xai.render.glyphs import LACKING, writable
from lit_xai.render.paragraph import Placed, lay_out
from lit_xai.render.pieces import Piece, pieces_of
from lit_xai.render.renderer import Drawing
from lit_xai.render.shares import Array, percent
from lit_xai.render.text import shorten, text_width

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MOST, MOST_LINES = 16, 10
"""Samples on one figure, and lines of each."""
ROW, HIGH = 31, 26
"""From one line of a text to the next, and the height of the colored background."""
WIDE = WIDTH - 2 * MARGIN
PALE, DARK = "#f2f2f2", 0.45
"""Gray on a dark background, and the brightness below which it is dark."""
FAINT = "#a6a6a6"
"""The gray of words of which nothing is said."""

Lines = list[list[Placed]]


def sentences_figure(tokens: Array, drawing: Drawing) -> Figure:
    """Return the texts of token ids ``(N, T)``, one below the other.

    Args:
        tokens: ids.
        drawing: with shares ``(N, 1, T)``.
    """
    shown, names = min(len(tokens), MOST), TokenNames(drawing.token_names)
    ids = tokens.astype(np.int64)
    shares = drawing.shares.values[:, 0]
    texts = [lines_of_text(pieces_of(ids[i], shares[i], names, drawing.by_word)) for i in range(shown)]
    head = LINE * lines_of(drawing.captions)
    heights = [head + ROW * min(len(lines), MOST_LINES) + LINE * (len(lines) > MOST_LINES) + 16 for lines in texts]
    notes = notes_on(texts, len(tokens), drawing.token_names)
    canvas = Canvas(drawing.title, sum(heights) + LINE * len(notes) + BAR, ends=drawing.ends)
    scale, y = color_scale(drawing.limit), float(canvas.top)
    for i, lines in enumerate(texts):
        total = " · ".join(filter(None, (drawing.shares.total(i), drawing.shares.note(i))))
        canvas.caption(drawing.captions[i], total, MARGIN, y, WIDE)
        draw_lines(canvas, lines, scale, (MARGIN, y + head), explained=_explained(drawing, i, tokens.shape[1]))
        y += heights[i]
    for k, note in enumerate(notes):
        canvas.text(MARGIN, y + LINE * k, note, size=SMALL, color=GREY)
    canvas.color_bar(scale, drawing.limit, f"share of the map's Σ|a| per {drawing.unit}")
    return canvas.finish()


def lines_of_text(pieces: Sequence[Piece], width: float = WIDE) -> Lines:
    """Return the lines of one text; a piece that is wider than a line loses its middle.

    Args:
        pieces: of the text.
        width: of the lines, in pixels.
    """
    fitting = [replace(piece, words=shorten(writable(piece.words)[0], width - 20, _size(piece))) for piece in pieces]
    return lay_out(fitting, width, lambda piece: _width(piece.words, _size(piece)), _is_shaped())


def _size(piece: Piece) -> float:
    return SMALL if piece.is_special else TEXT


@cache
def _width(words: str, size: float) -> float:
    return text_width(words, size, family=writable(words)[1])


def _is_shaped() -> bool:
    import matplotlib

    # Since 3.11, matplotlib lays out text by HarfBuzz: letters are joined, and turned around where they are.
    return matplotlib.__version_info__ >= (3, 11)


def notes_on(texts: Sequence[Lines], n: int, token_names: Sequence[str] | None) -> list[str]:
    """Return what is written below texts: what is left out, and what letters and numbers stand for.

    Args:
        texts: that are shown.
        n: how many there are.
        token_names: of the ids, where known.
    """
    written = [placed.words for lines in texts for line in lines[:MOST_LINES] for placed in line]
    notes = [f"{n - len(texts)} more samples not shown"] if n > len(texts) else []
    if any(LACKING in words for words in written):
        notes += [f"{LACKING}: a letter that no installed font has"]
    if token_names is None:
        notes += ["numbers are token ids: token_names gives them names"]
    return notes


def _explained(drawing: Drawing, i: int, length: int) -> int | None:
    """Return the position that was explained, where the network answers for each token."""
    if drawing.boxes is None:
        return None
    left, right = float(drawing.boxes[i][1]), float(drawing.boxes[i][3])
    return min(int((left + right) / 2 * length), length - 1)


def draw_lines(
    canvas: Canvas,
    lines: Lines,
    scale: ScalarMappable,
    corner: tuple[float, float],
    *,
    explained: int | None = None,
    most: int = MOST_LINES,
    quiet: float = 0.0,
) -> None:
    """Draw the lines of one text.

    Args:
        canvas: to draw on.
        lines: of :func:`lines_of_text`.
        scale: of the colors.
        corner: the upper left one.
        explained: the position of a token to frame.
        most: lines to draw; a sentence stands for the others.
        quiet: the share below which a word is written in gray.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    left, top = corner
    shown = [(placed, top + ROW * k) for k, line in enumerate(lines[:most]) for placed in line]
    boxes = [Rectangle((left + placed.x, y), placed.width, HIGH) for placed, y in shown]
    colors = to_colors(scale, np.array([placed.piece.share for placed, _ in shown]))
    canvas.axes.add_collection(PatchCollection(boxes, facecolors=colors, edgecolors="white", linewidths=0.6))
    for (placed, y), color in zip(shown, colors, strict=True):
        _write(canvas, placed, (left + placed.text_x, y), color, is_quiet=abs(placed.piece.share) < quiet)
        piece = placed.piece
        if explained is not None and piece.first <= explained < piece.first + piece.count:
            box = (left + placed.x, y, placed.width, HIGH)
            canvas.axes.add_patch(Rectangle(box[:2], *box[2:], fill=False, edgecolor=INK, linewidth=1.4, zorder=3))
    left_out = [placed.piece for line in lines[most:] for placed in line]
    if left_out:
        tokens, share = sum(one.count for one in left_out), sum(abs(one.share) for one in left_out)
        words = f"… and {tokens} more token{'s' * (tokens != 1)}, {percent(share)} of Σ|a|"
        canvas.text(left, top + ROW * most + 2, words, size=SMALL, color=GREY)


def _write(
    canvas: Canvas, placed: Placed, corner: tuple[float, float], background: Array, is_quiet: bool = False
) -> None:
    is_dark = float(background @ (0.299, 0.587, 0.114)) < DARK
    color = (PALE if is_dark else GREY) if placed.piece.is_special else ("white" if is_dark else INK)
    canvas.text(
        corner[0],
        corner[1] + HIGH / 2 - 1,
        placed.words,
        size=_size(placed.piece),
        color=FAINT if is_quiet else color,
        va="center_baseline",
        family=writable(placed.words)[1],
    )
