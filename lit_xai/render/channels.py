"""The number of channels of each layer before and after pruning: bars for images, a table for texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.canvas import AGAINST, GREY, INK, LINE, MARGIN, SMALL, TEXT, WIDTH, Canvas, plain_style
from lit_xai.render.names import shorten_names
from lit_xai.render.text import text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT, DENSE = AGAINST, "#d0d0d0"
"""A dark and a light color: they differ by brightness alone, in print and to every eye."""
ROW, AXIS = 27, 66
"""Height of a layer's bar with the gap to the next, and of the axis with its words."""


def channels_figure(before: Mapping[str, int], after: Mapping[str, int], title: str = "") -> Figure:
    """Draw how many output channels each layer kept: a light bar for the dense layer, a dark one for what is left.

    Args:
        before: the channels of each layer, in the order of the network.
        after: the same layers, pruned.
        title: of the figure: method, ratio, epoch.

    Raises:
        ValueError: there is no layer, or the two have different layers.

    Example:
        >>> figure = channels_figure({"conv1": 16, "conv2": 32}, {"conv1": 8, "conv2": 24}, "pruned by a half")
        >>> figure.get_size_inches().tolist()
        [7.0, 2.19]
    """
    _check(before, after)
    with plain_style():
        names, shared = shorten_names(list(before), 0.45 * WIDTH, SMALL)
        summary = wrap(_summary(before, after, shared), WIDTH - 2 * MARGIN, SMALL, "normal")
        canvas = Canvas(title or "Channels per layer", LINE * (len(summary) + 1) + ROW * len(names) + AXIS)
        for i, line in enumerate(summary):
            canvas.text(MARGIN, canvas.top + LINE * i, line, size=SMALL, color=GREY)
        _write_legend(canvas, canvas.top + LINE * len(summary))
        top = canvas.top + LINE * (len(summary) + 1) + 4
        left = MARGIN + 10 + max(text_width(name, SMALL) for name in names)
        pairs = [(after[name], before[name]) for name in before]
        per_pixel = _draw_bars(canvas, left, top, pairs)
        for i, (name, (kept, dense)) in enumerate(zip(names, pairs, strict=True)):
            y, color = top + ROW * (i + 0.5), INK if kept < dense else GREY
            canvas.text(left - 10, y, name, size=SMALL, ha="right", va="center_baseline")
            words, end = f"{kept} of {dense}", left + dense / per_pixel + 8
            canvas.text(end, y, words, size=SMALL, color=color, va="center_baseline")
        return canvas.finish()


def channels_table(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return how many output channels each layer kept as a markdown table that is aligned as plain text too.

    Args:
        before: the channels of each layer, in the order of the network.
        after: the same layers, pruned.

    Raises:
        ValueError: there is no layer, or the two have different layers.

    Example:
        >>> print(channels_table({"conv1": 16, "conv2": 32}, {"conv1": 8, "conv2": 24}))
        | layer      | kept | of | share |
        |:-----------|-----:|---:|------:|
        | `conv1`    |    8 | 16 |   50% |
        | `conv2`    |   24 | 32 |   75% |
        | all layers |   32 | 48 |   67% |
    """
    from lit_xai.render.summary import markdown_table

    _check(before, after)
    counts = {f"`{name}`": (after[name], before[name]) for name in before}
    counts["all layers"] = (sum(after.values()), sum(before.values()))
    rows = [[name, str(kept), str(dense), f"{_share(kept, dense):.0f}%"] for name, (kept, dense) in counts.items()]
    return markdown_table(["layer", "kept", "of", "share"], rows)


def _check(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    if not before:
        raise ValueError("before expected the channels of one or more layers, but got none.")
    if set(before) != set(after):
        only = sorted(set(before) ^ set(after))[0]
        where = "before" if only in before else "after"
        raise ValueError(f"before and after expected the same layers, but got {only!r} in {where} alone.")


def _share(kept: int, dense: int) -> float:
    return 100 * kept / dense if dense else 100.0


def _summary(before: Mapping[str, int], after: Mapping[str, int], shared: str) -> str:
    kept, dense = sum(after.values()), sum(before.values())
    pruned = sum(after[name] < before[name] for name in before)
    summary = f"{kept} of {dense} channels left ({_share(kept, dense):.0f}%) · {pruned} of {len(before)} layers pruned"
    return summary + (f"\nall names begin with {shared}" if shared else "")


def _write_legend(canvas: Canvas, y: float) -> None:
    x: float = MARGIN
    for color, words in ((KEPT, " kept     "), (DENSE, " removed")):
        canvas.text(x, y, "■", color=color)
        canvas.text(x + text_width("■", TEXT), y, words, size=SMALL)
        x += text_width("■", TEXT) + text_width(words, SMALL)


def _draw_bars(canvas: Canvas, left: float, top: float, pairs: list[tuple[int, int]]) -> float:
    """Draw the bars with their axis and return how many channels one pixel stands for."""
    room = WIDTH - MARGIN - 8 - left
    widths = [(dense, room - text_width(f"{kept} of {dense}", SMALL)) for kept, dense in pairs]
    # Every bar needs room for its own words, so each layer bounds the scale.
    per_pixel = max(max(dense / pixels for dense, pixels in widths), 1e-9)
    longest = max(dense for dense, _ in widths)
    width, height = max(longest, 1) / per_pixel, ROW * len(pairs)
    bounds = (left / WIDTH, 1 - (top + height) / canvas.height, width / WIDTH, height / canvas.height)
    axes = canvas.figure.add_axes(bounds, xlim=(0, longest), ylim=(len(pairs) - 0.5, -0.5), yticks=[])
    axes.patch.set_visible(False)  # the numbers behind short bars are written on the page
    rows = np.arange(len(pairs))
    axes.barh(rows, [dense for _, dense in pairs], height=0.7, color=DENSE)
    axes.barh(rows, [kept for kept, _ in pairs], height=0.7, color=KEPT)
    axes.spines[["right", "top"]].set_visible(False)
    axes.set_xticks([0, longest], ["0", str(longest)], fontsize=SMALL, color=INK)
    canvas.text(left + width / 2, top + height + 36, "output channels", size=SMALL, color=GREY, ha="center")
    return per_pixel
