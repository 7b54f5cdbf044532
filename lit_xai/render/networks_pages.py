"""The pages of several networks side by side: rows of tiles, strips, and columns of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    WIDTH,
    Canvas,
    Ends,
    color_scale,
    to_colors,
)
from lit_xai.render.captions import Caption
from lit_xai.render.heatmap import FEW, draw_lines
from lit_xai.render.image import at_size, faint
from lit_xai.render.shares import Array, Shares, percent
from lit_xai.render.tabular import ABSOLUTE, feature_labels, mean_shares
from lit_xai.render.text import shorten, text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 8
"""Samples on one page."""
MOST_FEATURES = 10
GAP, LARGEST = 8, 160
"""Between columns, and the longest side of a tile."""
STRIP, ROW, FOOT = 28, 32, 44
"""Height of a strip, of a feature's bars, and of the line below them."""
NAMES, ANSWERS = 132, 208
"""Room for the networks' names beside strips, and the most for their predictions."""


@dataclass(frozen=True)
class Columns:
    """Several networks' maps of the same samples, with what is written beside them.

    Args:
        names: of the networks.
        shares: of each network, of N maps.
        captions: of each network, of N samples.
        numbers: of each network, by what they are.
        title: of the figure.
        limit: the share at which colors and bars end.
        ends: the effects of negative and positive values, in words.
    """

    names: Sequence[str]
    shares: Sequence[Shares]
    captions: Sequence[Sequence[Caption]]
    numbers: Mapping[str, Sequence[str]]
    title: str
    limit: float
    ends: Ends

    @property
    def shown(self) -> int:
        """How many samples have a place on the page."""
        return min(len(self.captions[0]), MOST)

    def true(self, i: int) -> str:
        """Return a sample's label in words, ``""`` without."""
        return f"true {self.captions[0][i].true}" if self.captions[0][i].true else ""

    def answer(self, k: int, i: int) -> tuple[str, str, str]:
        """Return what a network predicts of a sample, what follows it, and its weight: bold for another answer."""
        own, first = self.captions[k][i], self.captions[0][i]
        weight = "bold" if own.predicted and own.predicted != first.predicted and own.correct is not None else "normal"
        return own.predicted, own.verdict, weight


def images_page(pictures: Array, columns: Columns, shows_inputs: bool) -> Figure:
    """Return rows of tiles, of images ``(N, H, W, 3)`` in [0, 1] and each network's maps ``(N, H, W)``."""
    high, wide = pictures.shape[1:3]
    cell = _cell(len(columns.names) + 1)
    side = min(cell, LARGEST)
    tile = [max(24, round(one * side / max(high, wide))) for one in (wide, high)]
    row, n = LINE + tile[1] + 14, columns.shown
    head = _head(columns.names, cell)
    canvas = Canvas(columns.title, head + row * n + LINE * len(columns.numbers) + 10 + BAR, ends=columns.ends)
    lefts = [MARGIN + (cell + GAP) * k for k in range(len(columns.names) + 1)]
    _write_heads(canvas, "input" if shows_inputs else "", columns.names, lefts, cell, canvas.top)
    scale = color_scale(columns.limit)
    paper = faint(pictures[:n])[..., None] if shows_inputs else 1.0
    maps = [at_size(to_colors(scale, one.values[:n]), one.cell, (high, wide)) * paper for one in columns.shares]
    for i in range(n):
        y = canvas.top + head + row * i
        canvas.text(lefts[0], y, columns.true(i), width=cell, size=SMALL)
        if shows_inputs:
            canvas.tile(pictures[i], lefts[0], y + LINE, *tile)
        for k, x in enumerate(lefts[1:]):
            _write_answer(canvas, columns.answer(k, i), x, y, cell)
            canvas.tile(maps[k][i], x, y + LINE, *tile)
            canvas.note(columns.shares[k].note(i), x, y + LINE, *tile)
    _write_numbers(canvas, columns.numbers, lefts, cell, canvas.top + head + row * n)
    one = columns.shares[0].cell
    canvas.color_bar(scale, columns.limit, f"share of Σ|a| per {'pixel' if one == 1 else f'{one} by {one} pixels'}")
    return canvas.finish()


def strips_page(inputs: Array | None, are_tokens: bool, columns: Columns) -> Figure:
    """Return a strip for each network, of shares ``(N, rows, positions)``; series and token ids stand above them."""
    rows, positions = columns.shares[0].values.shape[1:]
    n = min(columns.shown, 4 if columns.numbers else MOST)
    answers = _answers_width(columns, n)
    x, wide = MARGIN + NAMES, WIDTH - 2 * MARGIN - NAMES - answers
    series = None if inputs is None else inputs.reshape(len(inputs), -1, inputs.shape[-1])
    if series is not None and not _can_be_drawn(series, columns.shares[0].values, are_tokens, wide):
        series = None
    cell = _cell(len(columns.names) + 1)
    high = max(min(max(14 * rows, STRIP), 84), _head(columns.names, NAMES - 8))
    strips = len(columns.names) + (series is not None)
    step, head = LINE + (high + 5) * strips + 12, _head(columns.names, cell)
    below = head + LINE * len(columns.numbers) + 12 if columns.numbers else 0
    canvas = Canvas(columns.title, step * n + LINE + below + BAR, ends=columns.ends)
    scale = color_scale(columns.limit)
    for i in range(n):
        y = canvas.top + step * i
        canvas.text(MARGIN, y, columns.true(i), width=WIDTH - 2 * MARGIN, size=SMALL)
        y += LINE
        if series is not None:
            canvas.text(MARGIN, y + high / 2, "input", size=SMALL, color=GREY, va="center_baseline")
            _draw_input(canvas, series[i], are_tokens, (x, y, wide, high))
            y += high + 5
        for k, shares in enumerate(columns.shares):
            lines = _in_lines(columns.names[k], NAMES - 8)
            for j, line in enumerate(lines):
                middle = y + high / 2 + LINE * (j - (len(lines) - 1) / 2)
                canvas.text(MARGIN, middle, line, size=SMALL, color=GREY, va="center_baseline")
            canvas.tile(to_colors(scale, shares.values[i]), x, y, wide, high)
            canvas.note(shares.note(i), x, y, wide, high)
            _write_answer(canvas, columns.answer(k, i), x + wide + 8, y + high / 2 - 9, answers - 8)
            y += high + 5
    y = canvas.top + step * n
    words = f"position (each map has {rows} rows)" if rows > 1 else "position"
    for place, text, ha in ((x, "0", "left"), (x + wide / 2, words, "center"), (x + wide, str(positions - 1), "right")):
        canvas.text(place, y, text, size=SMALL, color=GREY, ha=ha)
    if columns.numbers:
        lefts = [MARGIN + (cell + GAP) * k for k in range(len(columns.names) + 1)]
        _write_heads(canvas, "", columns.names, lefts, cell, y + LINE + 8)
        _write_numbers(canvas, columns.numbers, lefts, cell, y + LINE + 8 + head)
    canvas.color_bar(scale, columns.limit, "share of Σ|a| per cell")
    return canvas.finish()


def bars_page(columns: Columns, feature_names: Sequence[str] | None) -> Figure:
    """Return a column of bars for each network, of shares ``(N, features)``: a feature's mean signed share."""
    names = feature_labels(feature_names, columns.shares[0].values.shape[1])
    means = [mean_shares(one) for one in columns.shares]
    weight = np.max([absolute for _, absolute in means], 0)
    shown = np.argsort(-weight, kind="stable")[:MOST_FEATURES]
    shown = np.sort(shown) if len(names) <= MOST_FEATURES else shown
    labels = min(max(text_width(names[k], SMALL) for k in shown), 0.34 * WIDTH)
    labels = max(labels, *(text_width(what, SMALL) for what in columns.numbers), 60)
    cell = (WIDTH - 2 * MARGIN - labels - GAP * (len(means) + 1)) / len(means)
    lefts = [MARGIN, *(MARGIN + labels + 2 * GAP + (cell + GAP) * k for k in range(len(means)))]
    head = _head(columns.names, cell)
    height = head + ROW * len(shown) + LINE * len(columns.numbers) + 16 + LINE + FOOT
    canvas = Canvas(columns.title, height, ends=columns.ends)
    _write_heads(canvas, "feature", columns.names, lefts, cell, canvas.top)
    top = canvas.top + head
    for i, feature in enumerate(shown):
        y = top + ROW * (i + 0.5)
        canvas.text(MARGIN, y, names[feature], width=labels, size=SMALL, va="center_baseline")
    for (signed, absolute), left in zip(means, lefts[1:], strict=True):
        _draw_bars(canvas, (left, top, cell, ROW * len(shown)), signed[shown], absolute[shown], columns.limit)
    _write_numbers(canvas, columns.numbers, lefts, cell, top + ROW * len(shown) + 6)
    rest = f"{len(shown)} of {len(names)} features · " if len(names) > MOST_FEATURES else ""
    words = f"{rest}mean of {len(columns.captions[0])} samples · gray: mean |share|"
    canvas.text(MARGIN, canvas.height - FOOT - LINE + 8, words, size=SMALL, color=GREY, width=WIDTH - 2 * MARGIN)
    canvas.ends_of_scale(f"columns end at ±{percent(columns.limit)} of Σ|a|")
    return canvas.finish()


def _cell(columns: int) -> float:
    return (WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns


def _answers_width(columns: Columns, n: int) -> float:
    """Return the room that the predictions of ``n`` samples take beside strips."""
    answers = [columns.answer(k, i) for k in range(len(columns.names)) for i in range(n)]
    return min(max(text_width(name + after, SMALL, weight) for name, after, weight in answers) + 12, ANSWERS)


def _head(names: Sequence[str], width: float) -> int:
    """Return the height of the networks' names in a column of this width."""
    return LINE * max(len(_in_lines(name, width)) for name in names)


def _in_lines(name: str, width: float) -> list[str]:
    return wrap(name, width, SMALL, "bold", most=2)


def _write_heads(
    canvas: Canvas, first: str, names: Sequence[str], lefts: Sequence[float], width: float, y: float
) -> None:
    canvas.text(lefts[0], y, first, size=SMALL, color=GREY)
    for name, x in zip(names, lefts[1:], strict=True):
        for k, line in enumerate(_in_lines(name, width)):
            canvas.text(x, y + LINE * k, line, size=SMALL, weight="bold")


def _write_answer(canvas: Canvas, answer: tuple[str, str, str], x: float, y: float, width: float) -> None:
    """Write a prediction; where room is short, its name alone is shortened."""
    name, after, weight = answer
    if name:
        room = width - text_width(after, SMALL, weight)
        canvas.text(x, y, shorten(name, room, SMALL, weight) + after, size=SMALL, weight=weight)


def _write_numbers(
    canvas: Canvas, numbers: Mapping[str, Sequence[str]], lefts: Sequence[float], width: float, y: float
) -> None:
    for line, (what, values) in enumerate(numbers.items()):
        canvas.text(lefts[0], y + LINE * line, what, width=lefts[1] - lefts[0] - GAP, size=SMALL, color=GREY)
        for x, value in zip(lefts[1:], values, strict=True):
            canvas.text(x, y + LINE * line, value, width=width, size=SMALL)


def _can_be_drawn(series: Array, maps: Array, are_tokens: bool, width: float) -> bool:
    rows, positions = maps.shape[1:]
    if not series.shape[-1] == positions > 1:
        return False
    if not are_tokens:
        return series.shape == maps.shape and rows <= FEW
    widest = max(text_width(str(int(one)), SMALL) for one in series[:MOST].reshape(-1))
    return widest <= width / positions - 3


def _draw_input(canvas: Canvas, series: Array, are_tokens: bool, box: tuple[float, float, float, float]) -> None:
    """Draw a series as lines; write token ids into their places."""
    x, y, wide, high = box
    if not are_tokens:
        canvas.tile(np.ones((1, 1, 3)), *box)
        draw_lines(canvas, series, *box)
        return
    ids, cell = [str(int(one)) for one in series[0]], wide / series.shape[1]
    for place, one in enumerate(ids):
        canvas.text(x + cell * (place + 0.5), y + high / 2, one, size=SMALL, ha="center", va="center_baseline")


def _draw_bars(
    canvas: Canvas, box: tuple[float, float, float, float], signed: Array, absolute: Array, limit: float
) -> None:
    left, top, width, height = box
    bounds = (left / WIDTH, 1 - (top + height) / canvas.height, width / WIDTH, height / canvas.height)
    axes = canvas.figure.add_axes(bounds, xlim=(-limit, limit), ylim=(len(signed) - 0.5, -0.5), yticks=[], xticks=[])
    rows = np.arange(len(signed))
    axes.barh(rows, absolute, height=0.66, color=ABSOLUTE)
    axes.barh(rows, signed, height=0.36, color=[FOR if share > 0 else AGAINST for share in signed])
    axes.axvline(0, color=INK, linewidth=1)
    axes.spines[["left", "right", "top", "bottom"]].set_color("#bbbbbb")
