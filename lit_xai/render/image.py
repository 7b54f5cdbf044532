"""Images: each sample's input beside its attribution, drawn over the input in light gray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.canvas import BAR, ENDS, GREY, LINE, MARGIN, WIDTH, Canvas, Ends, color_scale, to_colors
from lit_xai.render.captions import Caption, lines_of
from lit_xai.render.shares import Array, Shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 32
"""Samples on one figure; more would neither be read nor fit into a logger's card."""
DARK = 0.2
"""Images whose median brightness is below this (digits, garments) are light strokes on black; as ink on white paper
they leave the map's white, nothing, what it is."""
LIGHT = 0.84
"""Brightness of black in the gray input under a map: dark enough to be recognized, light enough not to mute colors."""


def image_figure(
    pictures: Array,
    shares: Shares,
    captions: Sequence[Caption],
    title: str,
    limit: float,
    ends: Ends = ENDS,
    boxes: Array | None = None,
    shows_inputs: bool = True,
) -> Figure:
    """Return the figure of images ``(N, H, W, 3)`` in [0, 1] and their maps ``(N, H, W)``; boxes are framed in both.

    Where inputs are not shown, maps stand alone on white paper.
    """
    shown = min(len(pictures), MOST)
    columns = 1 if shown == 1 else 2 if shown <= 16 else 4
    width = WIDTH if columns < 4 else 2 * WIDTH
    cell = (width - 2 * MARGIN - 20 * (columns - 1)) / columns
    box = (cell - 8) / 2  # also of a map alone: in more columns its caption would be cut
    high, wide = pictures.shape[1:3]
    tile_width, tile_height = (max(24, round(side * box / max(high, wide))) for side in (wide, high))
    lines = lines_of(captions)
    row = LINE * lines + tile_height + 16
    left_out = f"{len(pictures) - shown} more samples not shown" if len(pictures) > shown else ""
    canvas = Canvas(title, row * -(-shown // columns) + BAR + (LINE if left_out else 0), width, ends)
    scale = color_scale(limit)
    colors = at_size(to_colors(scale, shares.values[:shown]), shares.cell, (high, wide))
    if shows_inputs:  # multiplied, not blended: white, a share of zero, shows the input alone
        colors *= faint(pictures[:shown])[..., None]
    beside = tile_width + 8 if shows_inputs else 0
    for i in range(shown):
        x, y = MARGIN + (cell + 20) * (i % columns), canvas.top + row * (i // columns)
        canvas.caption(captions[i], shares.total(i), x, y, cell)
        y += LINE * lines
        if shows_inputs:
            canvas.tile(pictures[i], x, y, tile_width, tile_height)
        canvas.tile(colors[i], x + beside, y, tile_width, tile_height)
        canvas.note(shares.note(i), x + beside, y, tile_width, tile_height)
        if boxes is not None:
            for left in dict.fromkeys((x, x + beside)):
                canvas.mark(boxes[i], left, y, tile_width, tile_height)
    canvas.text(MARGIN, canvas.height - BAR - LINE, left_out, color=GREY)
    unit = "pixel" if shares.cell == 1 else f"{shares.cell} by {shares.cell} pixels"
    canvas.color_bar(scale, limit, f"share of the map's Σ|a| per {unit}")
    return canvas.finish()


def faint(pictures: Array) -> Array:
    """Return the inputs as gray ``(N, H, W)`` that lets colors speak, on white paper where they are mostly black."""
    # The luma weights of ITU-R BT.601.
    grey = pictures @ np.array([0.299, 0.587, 0.114])
    paper = grey if np.median(grey) > DARK else 1 - grey
    return LIGHT + (1 - LIGHT) * paper


def at_size(colors: Array, cell: int, size: tuple[int, int]) -> Array:
    """Return maps' colors ``(N, h, w, 3)`` with every cell as many pixels large, cropped to the size."""
    return colors.repeat(cell, axis=1).repeat(cell, axis=2)[:, : size[0], : size[1]]
