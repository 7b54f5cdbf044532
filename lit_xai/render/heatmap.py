"""Tokens, volumes and everything else: each sample's map as a strip, positions from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.canvas import (
    BAR,
    ENDS,
    GREY,
    INK,
    LINE,
    MARGIN,
    SMALL,
    WIDTH,
    Canvas,
    Ends,
    color_scale,
    to_colors,
)
from lit_xai.render.captions import Caption, lines_of
from lit_xai.render.shares import Array, Shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16
"""Samples on one figure."""
FEW = 4
"""Series of at most this many channels are drawn as lines over their map; more would cover it."""


def heatmap_figure(
    series: Array | None,
    shares: Shares,
    captions: Sequence[Caption],
    title: str,
    limit: float,
    ends: Ends = ENDS,
    boxes: Array | None = None,
) -> Figure:
    """Return one strip per sample from shares ``(N, rows, positions)``; series of that shape are drawn as lines.

    What was explained in each, ``(N, 4)`` edges as shares, is framed.
    """
    shown = min(len(shares.values), MOST)
    rows, positions = shares.values.shape[1:]
    lines = lines_of(captions)
    high, wide = min(max(28 * rows, 48), 140), WIDTH - 2 * MARGIN
    step = LINE * lines + high + 14
    canvas = Canvas(title, step * shown + LINE + BAR, ends=ends)
    scale = color_scale(limit)
    if series is not None:
        series = series.reshape(len(series), -1, series.shape[-1])
    for i in range(shown):
        y = canvas.top + step * i
        canvas.caption(captions[i], shares.total(i), MARGIN, y, wide)
        box = (MARGIN, y + LINE * lines, wide, high)
        canvas.tile(to_colors(scale, shares.values[i]), *box)
        if series is not None and series.shape == shares.values.shape and rows <= FEW and positions > 1:
            draw_lines(canvas, series[i], *box)
        canvas.note(shares.note(i), *box)
        if boxes is not None:
            canvas.mark(boxes[i], *box)
    _write_positions(canvas, canvas.height - BAR - LINE - 4, shares.values.shape)
    canvas.color_bar(scale, limit, "share of the map's Σ|a| per cell")
    return canvas.finish()


def draw_lines(canvas: Canvas, series: Array, x: float, y: float, width: float, height: float) -> None:
    """Draw the channels of a series ``(channels, positions)`` into a box, each over its own range."""
    # In the middles of the cells.
    places = x + width * (np.arange(series.shape[1]) + 0.5) / series.shape[1]
    lane = height / len(series)
    for k, values in enumerate(np.nan_to_num(series, posinf=0.0, neginf=0.0)):
        span = values.max() - values.min()
        # Each channel over its own range; a constant one is a line in the middle.
        level = (values - values.min()) / span if span > 0 else np.full_like(values, 0.5)
        canvas.axes.plot(places, y + lane * (k + 0.9 - 0.8 * level), color=INK, linewidth=1.2)


def _write_positions(canvas: Canvas, y: float, shape: tuple[int, ...]) -> None:
    samples, rows, positions = shape
    size = f"position (each map has {rows} rows)" if rows > 1 else "position"
    if samples > MOST:
        size += f" · {samples - MOST} more samples not shown"
    canvas.text(MARGIN, y, "0", size=SMALL, color=GREY)
    canvas.text(WIDTH / 2, y, size, size=SMALL, color=GREY, ha="center")
    canvas.text(WIDTH - MARGIN, y, str(positions - 1), size=SMALL, color=GREY, ha="right")
