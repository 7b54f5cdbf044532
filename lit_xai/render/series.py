"""Series: each sample's map over channels and time, and the series itself as lines where there are few channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.canvas import BAR, GREY, LINE, MARGIN, SMALL, WIDTH, Canvas, color_scale, to_colors
from lit_xai.render.captions import lines_of
from lit_xai.render.heatmap import FEW, MOST, draw_lines
from lit_xai.render.renderer import Drawing, Renderer
from lit_xai.render.shares import Array, ArrayLike, Shares, resize, shares_of_total, to_array
from lit_xai.render.tabular import feature_labels
from lit_xai.render.text import text_width, wrap
from lit_xai.render.time_axis import AXIS, TICK, TimeAxis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 280
"""Cells along a map: of longer series, the shares of several positions are summed to one cell, so that signs of
neighbors do not cancel to an empty picture."""
ROW, LANE, HIGHEST = 19, 44, 228
"""Height of a channel's row, of a channel that is drawn as a line, and of a map of many channels."""
NAMES = 0.22 * WIDTH
"""Room for the names of channels."""
NAMED = 3
"""Channels that the summary names."""
MANY = 10
"""Samples on one figure where their maps are high."""


class SeriesRenderer(Renderer):
    """Draws a map over channels and time for each sample, with the channels' names and a time axis.

    Example:
        >>> import numpy as np
        >>> SeriesRenderer().find_shares(np.zeros((2, 3, 1000)), np.ones((2, 3, 1000))).values.shape
        (2, 3, 250)
    """

    name = "series"
    needs = "floating inputs (N, channels, length) or (N, 1, channels, length), and attributions of as many dimensions"

    def suits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether there is a map for each channel, or one for all of them."""
        if not self.fits(inputs, attributions):
            return False
        return attributions.shape[-2] == inputs.shape[-2] or (
            attributions.shape[1:-1] == (1,) * (attributions.ndim - 2)
        )

    def fits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether inputs can be series and attributions maps of them."""
        is_series = len(inputs.shape) == 3 or (len(inputs.shape) == 4 and inputs.shape[1] == 1)
        is_map = len(attributions.shape) == 3 or (len(attributions.shape) == 4 and attributions.shape[1] == 1)
        return is_series and is_map and "float" in str(inputs.dtype) and inputs.shape[-1] > 1

    def find_shares(self, inputs: ArrayLike, attributions: ArrayLike) -> Shares:
        """Return shares ``(N, rows, cells)``: coarser maps at the input's length, longer ones summed over cells."""
        maps = _channels(to_array(attributions, "attributions"))
        shares, length = shares_of_total(maps), inputs.shape[-1]
        if maps.shape[-1] != length:
            shares = resize(shares, (maps.shape[1], length))
        return _in_cells(shares, -(-length // LONGEST))

    def draw(self, drawing: Drawing) -> Figure:
        """Return a figure of up to 16 samples, or 10 of many channels."""
        return series_figure(drawing)


def _channels(values: Array) -> Array:
    """Return series ``(N, 1, channels, length)`` as ``(N, channels, length)``."""
    return values[:, 0] if values.ndim == 4 else values


def _in_cells(shares: Shares, cell: int) -> Shares:
    """Return shares summed over cells of so many positions, the last one maybe shorter."""
    if cell == 1:
        return shares
    edges = np.arange(0, shares.values.shape[-1], cell)
    return replace(shares, values=np.add.reduceat(shares.values, edges, axis=-1), cell=cell)


def series_figure(drawing: Drawing) -> Figure:
    """Return one map per sample, the channels' names on the left of it, and the time axis below."""
    shares, positions = drawing.shares, drawing.inputs.shape[-1]
    rows = shares.values.shape[1]
    lines, words = lines_of(drawing.captions), _summary(drawing)
    series = _lines(drawing)
    # Every map of few channels is as high as lines need, whether they may be drawn or not.
    high = min(LANE * rows if rows <= FEW else ROW * rows, HIGHEST)
    shown = min(len(shares.values), MOST if high <= 2 * LANE else MANY)
    step = LINE * lines + high + TICK + 12
    head = LINE * len(words) + (4 if words else 0)
    canvas = Canvas(drawing.title, head + step * shown + AXIS + BAR, ends=drawing.ends)
    for k, line in enumerate(words):
        canvas.text(MARGIN, canvas.top + LINE * k, line, size=SMALL, color=GREY)
    names = _names(drawing, rows)
    x = MARGIN + 8 + min(max(text_width(name, SMALL) for name in names), NAMES) if any(names) else MARGIN
    wide, scale, axis = WIDTH - MARGIN - x, color_scale(drawing.limit), TimeAxis(positions, drawing.sample_rate)
    for i in range(shown):
        top = canvas.top + head + step * i
        canvas.caption(drawing.captions[i], shares.total(i), MARGIN, top, WIDTH - 2 * MARGIN)
        box = (x, top + LINE * lines, wide, high)
        canvas.tile(_at_pixels(to_colors(scale, shares.values[i]), shares, positions, wide), *box)
        if series is not None:
            draw_lines(canvas, series[i], *box)
        _write_names(canvas, names, *box)
        canvas.note(shares.note(i), *box)
        if drawing.boxes is not None:
            canvas.mark(to_array(drawing.boxes, "boxes")[i], *box)
        axis.mark(canvas, x, top + LINE * lines + high, wide)
    left = len(shares.values) - shown
    note = f"{left} more sample{'s' * (left != 1)} not shown" if left else ""
    axis.write(canvas, x, canvas.height - BAR - AXIS - 12, wide, note)
    unit = "share of the map's Σ|a| per cell" if shares.cell == 1 else f"share of Σ|a| per {shares.cell} frames"
    canvas.color_bar(scale, drawing.limit, unit)
    return canvas.finish()


def _lines(drawing: Drawing) -> Array | None:
    """Return the series ``(N, channels, length)`` where they are drawn: few channels, that may be shown."""
    series = _channels(to_array(drawing.inputs, "inputs"))
    few = series.shape[1] == drawing.shares.values.shape[1] <= FEW
    return series if drawing.shows_inputs and few else None


def _names(drawing: Drawing, rows: int) -> Sequence[str]:
    """Return the names of the rows of a map; empty where a map has one row."""
    if drawing.feature_names is not None and rows == drawing.inputs.shape[-2]:
        return feature_labels(drawing.feature_names, rows)
    return [str(k) for k in range(rows)] if rows > 1 else [""]


def _write_names(canvas: Canvas, names: Sequence[str], x: float, y: float, width: float, height: float) -> None:
    row = height / len(names)
    every = max(1, -(-ROW // max(row, 1e-9)))  # where rows are lower than letters, not each can be named
    for k in range(0, len(names), int(every)):
        style = {"size": SMALL, "color": GREY, "ha": "right", "va": "center_baseline"}
        canvas.text(x - 8, y + row * (k + 0.5), names[k], width=NAMES, **style)


def _at_pixels(colors: Array, shares: Shares, positions: int, width: float) -> Array:
    """Return colors ``(rows, columns, 3)``, the last cell as short as it is; of long series a column for each pixel."""
    if shares.cell == 1:
        return colors
    columns = np.arange(int(width)) * positions // int(width)
    return colors[:, columns // shares.cell]


def _summary(drawing: Drawing) -> list[str]:
    """Return in words which channels count most, over all samples that have a map."""
    values = drawing.shares.values[drawing.shares.drawable]
    rows = drawing.shares.values.shape[1]
    if rows == 1 or not len(values):
        return []
    weight = np.abs(values).sum(-1).mean(0)
    weight /= weight.sum()  # what cancels inside cells is missing from their sums
    names = _names(drawing, rows)
    order = np.argsort(-weight, kind="stable")[:NAMED]
    known = "" if drawing.feature_names is not None else "channel "
    most = ", ".join(f"{names[k]} {100 * weight[k]:.0f}%" for k in order)
    words = f"largest shares: {known}{most} (even: {100 / rows:.0f}%)"
    return wrap(words, WIDTH - 2 * MARGIN, SMALL, "normal", most=2)
