"""The pages of explanations before and after: rows of tiles, strips, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.canvas import (
    AGAINST,
    BAR,
    FOR,
    GREY,
    INK,
    LINE,
    MARGIN,
    SMALL,
    TEXT,
    WIDTH,
    Canvas,
    Ends,
    color_scale,
    scale_ticks,
    to_colors,
)
from lit_xai.render.captions import Caption
from lit_xai.render.heatmap import FEW, draw_lines
from lit_xai.render.image import at_size, faint
from lit_xai.render.shares import Array, Shares
from lit_xai.render.tabular import feature_labels, mean_shares, shown_features
from lit_xai.render.text import text_width, wrap
from lit_xai.render.time_axis import AXIS as AXIS_OF_TIME
from lit_xai.render.time_axis import TimeAxis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16
"""Samples, or features of a table, on one page."""
HEADS = ("input", "reference", "now", "now \N{MINUS SIGN} reference")
GAP, CELL = 8, (WIDTH - 2 * MARGIN - 3 * 8) / 4
"""Between tiles, and the width of one of four."""
SIDE = 104
"""Width of the names beside strips."""
STRIP, AXIS, ROW = 34, 80, 40
"""Height of a strip with the gap to the next, of the axis of bars, and of a feature's bars."""
BEFORE = "#9a9a9a"


@dataclass(frozen=True)
class BeforeAndAfter:
    """Two networks' maps of the same samples, with what is written beside them.

    Args:
        reference: its shares, of N maps.
        present: those of the network now.
        before: the captions of the reference's predictions.
        now: those of the predictions now.
        similarity: of each sample, where known.
        title: of the figure.
        limit: the share at which colors end, of all maps and of differences.
        ends: the effects of negative and positive values, in words.
        has_classes: whether predictions are classes, which are the same or not.
    """

    reference: Shares
    present: Shares
    before: Sequence[Caption]
    now: Sequence[Caption]
    similarity: Sequence[float | None]
    title: str
    limit: float
    ends: Ends
    has_classes: bool

    @property
    def difference(self) -> Array:
        """The present shares minus the reference's."""
        return self.present.values - self.reference.values

    @property
    def left_out(self) -> str:
        """How many samples have no place on the page, in words."""
        rest = len(self.now) - MOST
        return f"{rest} more sample{'s' * (rest != 1)} not shown" if rest > 0 else ""

    def words(self, i: int) -> list[tuple[str, str]]:
        """Return what is written over each of a sample's four tiles, with its weight."""
        before, now, similarity = self.before[i], self.now[i], self.similarity[i]
        flipped = self.has_classes and before.predicted != now.predicted
        return [
            (f"true {now.true}" if now.true else "", "normal"),
            (f"pred {before.predicted}{before.verdict}" if before.predicted else "", "normal"),
            (f"pred {now.predicted}{now.verdict}" if now.predicted else "", "bold" if flipped else "normal"),
            ("" if similarity is None else f"similarity {similarity:.2f}".replace("-", "\N{MINUS SIGN}"), "normal"),
        ]


def images_page(pictures: Array, compared: BeforeAndAfter, shows_inputs: bool = True) -> Figure:
    """Return rows of four tiles, of images ``(N, H, W, 3)`` in [0, 1] and their maps ``(N, H, W)``, or of three."""
    shown = min(len(pictures), MOST)
    high, wide = pictures.shape[1:3]
    tile_width, tile_height = (max(24, round(side * CELL / max(high, wide))) for side in (wide, high))
    row = LINE + tile_height + 14
    canvas = Canvas(compared.title, LINE + row * shown + BAR + LINE * bool(compared.left_out), ends=compared.ends)
    scale = color_scale(compared.limit)
    gray = faint(pictures[:shown])[..., None] if shows_inputs else 1.0
    maps = [
        at_size(to_colors(scale, values[:shown]), compared.reference.cell, (high, wide)) * gray
        for values in (compared.reference.values, compared.present.values, compared.difference)
    ]
    lefts = [MARGIN + (CELL + GAP) * k for k in range(4)]
    heads = HEADS if shows_inputs else ("", *HEADS[1:])
    _write_row(canvas, lefts, canvas.top, [(head, "normal") for head in heads], SMALL, color=GREY)
    size = _caption_size([compared.words(i) for i in range(shown)])
    for i in range(shown):
        y = canvas.top + LINE + row * i
        _write_row(canvas, lefts, y, compared.words(i), size)
        if shows_inputs:
            canvas.tile(pictures[i], lefts[0], y + LINE, tile_width, tile_height)
        for x, one in zip(lefts[1:], maps, strict=True):
            canvas.tile(one[i], x, y + LINE, tile_width, tile_height)
        for x, shares in zip(lefts[1:3], (compared.reference, compared.present), strict=True):
            canvas.note(shares.note(i), x, y + LINE, tile_width, tile_height)
    cell = compared.reference.cell
    _finish(canvas, compared, "pixel" if cell == 1 else f"{cell} by {cell} pixels")
    return canvas.finish()


def strips_page(
    series: Array | None,
    compared: BeforeAndAfter,
    axis: TimeAxis | None = None,
    row_names: Sequence[str] | None = None,
) -> Figure:
    """Return strips of shares ``(N, rows, cells)``; series of few rows are drawn as lines above them.

    Args:
        series: ``(N, ...)``, where they may be drawn.
        compared: the maps.
        axis: of time, for series; positions are counted without.
        row_names: of the rows of each map, where known.
    """
    shown = min(len(compared.now), MOST)
    rows, positions = compared.reference.values.shape[1:]
    if series is not None:
        series = series.reshape(len(series), -1, series.shape[-1])
    length = positions if axis is None else axis.positions  # of long series, a cell is several positions
    has_lines = series is not None and series.shape[1:] == (rows, length) and rows <= FEW and length > 1
    heads = HEADS if has_lines else HEADS[1:]
    high = min(max(14 * rows, STRIP - 6), 90)
    step = 2 * LINE + (high + 6) * len(heads) + 16
    canvas = Canvas(compared.title, step * shown + (LINE if axis is None else AXIS_OF_TIME) + BAR, ends=compared.ends)
    scale = color_scale(compared.limit)
    x, wide = MARGIN + SIDE, WIDTH - 2 * MARGIN - SIDE
    maps = (compared.reference.values, compared.present.values, compared.difference)
    for i in range(shown):
        top = canvas.top + step * i
        write_lines(canvas, compared, i, top)
        for k, head in enumerate(heads):
            y = top + 2 * LINE + (high + 6) * k
            name = "difference" if head == HEADS[3] else head
            canvas.text(x - 10, y + high / 2, name, size=SMALL, color=GREY, ha="right", va="center_baseline")
            if k == 0 and has_lines and series is not None:
                canvas.tile(np.ones((1, 1, 3)), x, y, wide, high)
                draw_lines(canvas, series[i], x, y, wide, high)
            else:
                canvas.tile(to_colors(scale, maps[k - len(heads)][i]), x, y, wide, high)
        for k, shares in ((-3, compared.reference), (-2, compared.present)):
            canvas.note(shares.note(i), x, top + 2 * LINE + (high + 6) * (len(heads) + k), wide, high)
    _write_places(canvas, compared, (x, wide), axis, row_names)
    canvas.color_bar(scale, compared.limit, "share of the map's Σ|a| per cell")
    return canvas.finish()


def _write_places(
    canvas: Canvas,
    compared: BeforeAndAfter,
    place: tuple[float, float],
    axis: TimeAxis | None,
    row_names: Sequence[str] | None,
) -> None:
    """Write the axis below strips, and what the rows of a strip are."""
    (x, wide), (rows, positions) = place, compared.reference.values.shape[1:]
    words = f"each map has {rows} rows" if rows > 1 else ""
    if row_names is not None and rows == len(row_names) > 1:
        words = f"rows: {row_names[0]} … {row_names[-1]}"
    if axis is not None:
        y = canvas.height - BAR - AXIS_OF_TIME - 4
        axis.mark(canvas, x, y - 2, wide)
        axis.write(canvas, x, y - 2, wide, " · ".join(filter(None, (words, compared.left_out))))
        return
    y = canvas.height - BAR - LINE - 4
    canvas.text(x, y, "0", size=SMALL, color=GREY)
    middle = " · ".join(filter(None, ("position" + (f" ({words})" if words else ""), compared.left_out)))
    canvas.text(x + wide / 2, y, middle, size=SMALL, color=GREY, ha="center")
    canvas.text(WIDTH - MARGIN, y, str(positions - 1), size=SMALL, color=GREY, ha="right")


def bars_page(compared: BeforeAndAfter, feature_names: Sequence[str] | None) -> Figure:
    """Return two bars a feature, of shares ``(N, features)``: the reference's mean share and the present one."""
    names = feature_labels(feature_names, compared.reference.values.shape[1])
    (before, weight), (now, other) = mean_shares(compared.reference), mean_shares(compared.present)
    shown = shown_features(np.maximum(weight, other))
    summary = wrap(_summary(compared, len(shown), len(names)), WIDTH - 2 * MARGIN, SMALL, "normal")
    canvas = Canvas(compared.title, LINE * (len(summary) + 1) + 8 + ROW * len(shown) + AXIS, ends=compared.ends)
    for i, line in enumerate(summary):
        canvas.text(MARGIN, canvas.top + LINE * i, line, size=SMALL, color=GREY)
    _write_legend(canvas, canvas.top + LINE * len(summary))
    top = canvas.top + LINE * (len(summary) + 1) + 8
    left = MARGIN + 10 + min(max(text_width(names[k], TEXT) for k in shown), 0.36 * WIDTH)
    numbers = [_both_numbers(before[k], now[k], compared.limit) for k in shown]
    room = max(text_width(words, SMALL) for words in numbers) + 14
    _draw_bars(canvas, (left, top), before[shown], now[shown], compared.limit, room)
    for i, k in enumerate(shown):
        y = top + ROW * (i + 0.5)
        canvas.text(left - 10, y, names[k], width=left - 10 - MARGIN, ha="right", va="center_baseline")
        canvas.text(WIDTH - MARGIN, y, numbers[i], size=SMALL, color=GREY, ha="right", va="center_baseline")
    canvas.ends_of_scale("share of a sample's Σ|a|")
    return canvas.finish()


def _write_row(
    canvas: Canvas, lefts: Sequence[float], y: float, words: Sequence[tuple[str, str]], size: float, **style: object
) -> None:
    for x, (text, weight) in zip(lefts, words, strict=True):
        canvas.text(x, y, text, width=CELL, size=size, weight=weight, **style)


def _caption_size(words: Sequence[Sequence[tuple[str, str]]]) -> float:
    """Return one size for the captions of all tiles: the smaller one if it takes that for all to fit."""
    fits = all(text_width(text, TEXT, weight) <= CELL for row in words for text, weight in row)
    return TEXT if fits else SMALL


def write_lines(canvas: Canvas, compared: BeforeAndAfter, i: int, y: float) -> None:
    """Write a sample's caption into two lines: label and similarity, predictions before and now.

    Args:
        canvas: to write on.
        compared: the maps.
        i: the sample.
        y: of the upper edge.
    """
    (true, _), (before, _), (now, weight), (similarity, _) = compared.words(i)
    width = WIDTH - 2 * MARGIN
    canvas.text(MARGIN, y, true, width=width - text_width(similarity, SMALL) - 12)
    canvas.text(WIDTH - MARGIN, y + 2, similarity, size=SMALL, color=GREY, ha="right")
    half = (width - 18) / 2
    for x, text, bold in ((MARGIN, before, "normal"), (MARGIN + half + 18, now, weight)):
        canvas.text(x, y + LINE, text.replace("pred", "now" if x > MARGIN else "reference", 1), width=half, weight=bold)


def _finish(canvas: Canvas, compared: BeforeAndAfter, unit: str) -> None:
    canvas.text(MARGIN, canvas.height - BAR - LINE, compared.left_out, color=GREY)
    canvas.color_bar(color_scale(compared.limit), compared.limit, f"share of the map's Σ|a| per {unit}")


def _signed(share: float) -> str:
    """Return a share with its sign.

    Example:
        >>> _signed(0.0314), _signed(-0.2), _signed(-0.0001)
        ('+3.1%', '\u221220.0%', '0.0%')
    """
    percent = round(100 * share, 1)
    sign = "+" if percent > 0 else "\N{MINUS SIGN}" if percent < 0 else ""
    return f"{sign}{abs(percent):.1f}%"


def _summary(compared: BeforeAndAfter, shown: int, features: int) -> str:
    used = int((compared.reference.drawable & compared.present.drawable).sum())
    known = [value for value in compared.similarity if value is not None]
    flipped = [b.predicted != n.predicted for b, n in zip(compared.before, compared.now, strict=True)]
    parts = [f"mean of {used} sample{'s' * (used != 1)}"]
    parts += [f"mean similarity {np.mean(known):.2f}".replace("-", "\N{MINUS SIGN}")] if known else []
    parts += [f"{sum(flipped)} of {len(flipped)} predicted otherwise"] if compared.has_classes else []
    more = f"\n{shown} of {features} features, most important first" if features > MOST else ""
    return " · ".join(parts) + more


def _write_legend(canvas: Canvas, y: float) -> None:
    x: float = MARGIN
    for color, words in ((BEFORE, " reference     "), (FOR, ""), (AGAINST, " now")):
        canvas.text(x, y, "■", color=color)
        canvas.text(x + text_width("■", TEXT), y, words, size=SMALL)
        x += text_width("■", TEXT) + text_width(words, SMALL)


def _both_numbers(before: float, now: float, limit: float) -> str:
    beyond = "▸ " if max(abs(before), abs(now)) > limit else ""
    return f"{beyond}{_signed(before)} → {_signed(now)}"


def _draw_bars(
    canvas: Canvas, corner: tuple[float, float], before: Array, now: Array, limit: float, room: float
) -> None:
    """Draw the bars; ``room`` is left for the numbers beside them."""
    left, top = corner
    width, height = WIDTH - MARGIN - room - left, ROW * len(now)
    bounds = (left / WIDTH, 1 - (top + height) / canvas.height, width / WIDTH, height / canvas.height)
    axes = canvas.figure.add_axes(bounds, xlim=(-limit, limit), ylim=(len(now) - 0.5, -0.5), yticks=[])
    rows = np.arange(len(now))
    axes.barh(rows - 0.18, before, height=0.32, color=BEFORE)
    axes.barh(rows + 0.18, now, height=0.32, color=[FOR if share > 0 else AGAINST for share in now])
    axes.axvline(0, color=INK, linewidth=1)
    axes.spines[["left", "right", "top"]].set_visible(False)
    ticks, words = scale_ticks(limit)
    axes.set_xticks(ticks, words, fontsize=SMALL, color=INK)
