"""What each feature adds to the output along its values: partial dependence, and shape functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_xai.network.check import refusal
from lit_xai.render.canvas import AGAINST, FOR, GREY, INK, LINE, MARGIN, SMALL, WIDTH, Canvas, Ends, plain_style
from lit_xai.render.shares import Array, round_up
from lit_xai.render.text import text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST, CATEGORIES = 12, 6
"""Features on one figure, and categories of each: those of the largest effect."""
GAP, PLOT, FOOT = 24, 150, 40
"""Between two columns of panels, height of a panel's plot, and of the last line."""
SIDE = 52
"""Width of the numbers beside a curve."""


@dataclass(frozen=True)
class Curve:
    """The effect of one feature.

    Args:
        name: of the feature.
        values: of the feature, ``(P,)``, in increasing order; of a category their places.
        effects: on the output, ``(P,)``.
        data: the feature's values in the data, ``(N,)``; drawn as a strip of how many there are.
        categories: names of the values, where the feature is a category.
    """

    name: str
    values: Array
    effects: Array
    data: Array | None = None
    categories: Sequence[str] | None = None


def curves_figure(curves: Sequence[Curve], title: str = "", summary: str = "", ends: Ends = ("", "")) -> Figure:
    """Draw a panel for each feature, all on one scale: a curve of a number, bars of a category.

    Args:
        curves: of the features; of more than 12 those of the largest effects.
        title: of the figure.
        summary: written below it.
        ends: the effects of negative and positive values, in words.

    Raises:
        ValueError: there are no curves.

    Example:
        >>> line = Curve("age", np.array([20.0, 60.0]), np.array([-0.5, 0.5]))
        >>> curves_figure([line, line], "an example").canvas.get_width_height()
        (700, 301)
    """
    if not curves:
        raise refusal("curves", "one or more", [])
    size = np.array([np.ptp(curve.effects) for curve in curves])
    shown = np.arange(len(curves)) if len(curves) <= MOST else np.argsort(-size, kind="stable")[:MOST]
    largest = max(float(np.abs(curves[k].effects).max()) for k in shown)
    limit = round_up(largest) if largest > 0 else 1.0
    if len(curves) > MOST:
        summary = f"{summary}\n{MOST} of {len(curves)} features, those of the largest effects first".strip()
    with plain_style():
        lines = wrap(summary, WIDTH - 2 * MARGIN, SMALL, "normal", most=6)
        panel = LINE + PLOT + LINE + 12
        rows = -(-len(shown) // 2)
        canvas = Canvas(title, LINE * len(lines) + panel * rows + FOOT, ends=ends)
        for i, line in enumerate(lines):
            canvas.text(MARGIN, canvas.top + LINE * i, line, size=SMALL, color=GREY)
        wide = (WIDTH - 2 * MARGIN - GAP) / 2
        for i, k in enumerate(shown):
            corner = (MARGIN + (wide + GAP) * (i % 2), canvas.top + LINE * len(lines) + panel * (i // 2))
            canvas.text(*corner, curves[k].name, width=wide, weight="bold")
            draw = _draw_curve if curves[k].categories is None else _draw_bars
            draw(canvas, curves[k], (corner[0], corner[1] + LINE), wide, limit)
        if any(ends):
            canvas.ends_of_scale("")
        return canvas.finish()


def _axes(canvas: Canvas, box: tuple[float, float, float, float], **options: Any) -> Any:
    x, y, wide, high = box
    bounds = (x / canvas.width, 1 - (y + high) / canvas.height, wide / canvas.width, high / canvas.height)
    axes = canvas.figure.add_axes(bounds, **options)
    axes.spines[["right", "top"]].set_visible(False)
    axes.set(xticks=[], yticks=[])
    return axes


def _draw_curve(canvas: Canvas, curve: Curve, corner: tuple[float, float], wide: float, limit: float) -> None:
    x, y = corner
    low, high = float(curve.values.min()), float(curve.values.max())
    margin = 0.02 * (high - low) or 0.5
    box = (x + SIDE, y, wide - SIDE, PLOT)
    axes = _axes(canvas, box, xlim=(low - margin, high + margin), ylim=(-1.15 * limit, 1.05 * limit))
    axes.axhline(0, color="#bbbbbb", linewidth=1)
    if curve.data is not None:
        inside = curve.data[(curve.data >= low) & (curve.data <= high)]
        counts, edges = np.histogram(inside, bins=24, range=(low, high) if high > low else (low - 0.5, low + 0.5))
        shares = counts / max(counts.max(), 1)
        axes.bar(edges[:-1], 0.35 * limit * shares, np.diff(edges), bottom=-1.15 * limit, align="edge", color="#dddddd")
    axes.plot(curve.values, curve.effects, color=INK, linewidth=2)
    _write_scale(canvas, box, limit)
    for value, place, ha in ((low, x + SIDE, "left"), (high, x + wide, "right")):
        canvas.text(place, y + PLOT + 4, number(_rounded(value, high - low)), size=SMALL, color=GREY, ha=ha)


def _write_scale(canvas: Canvas, box: tuple[float, float, float, float], limit: float) -> None:
    x, y, _, high = box
    for value in (limit, 0.0, -limit):
        place = y + high * (1.05 * limit - value) / (2.2 * limit)
        words = number(value) if value <= 0 else f"+{number(value)}"
        canvas.text(x - 6, place, words, size=SMALL, color=GREY, ha="right", va="center_baseline")


def _draw_bars(canvas: Canvas, curve: Curve, corner: tuple[float, float], wide: float, limit: float) -> None:
    x, y = corner
    names = list(curve.categories or [])
    order = np.argsort(-np.abs(curve.effects), kind="stable")[:CATEGORIES]
    order = order[np.argsort(-curve.effects[order], kind="stable")]
    rest = f"and {len(names) - len(order)} more" if len(names) > len(order) else ""
    side = min(max(text_width(words, SMALL) for words in [rest, *(names[k] for k in order)]) + 8, 0.55 * wide)
    high = PLOT / CATEGORIES
    box = (x + side, y, wide - side, high * len(order))
    axes = _axes(canvas, box, xlim=(-limit, limit), ylim=(len(order) - 0.5, -0.5))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.axvline(0, color=INK, linewidth=1)
    colors = [FOR if effect > 0 else AGAINST for effect in curve.effects[order]]
    axes.barh(np.arange(len(order)), curve.effects[order], height=0.6, color=colors)
    for i, k in enumerate(order):
        place = y + high * (i + 0.5)
        canvas.text(x + side - 8, place, names[k], width=side - 8, size=SMALL, ha="right", va="center_baseline")
    foot = y + high * len(order) + 4
    canvas.text(x + side - 8, foot, rest, size=SMALL, color=GREY, ha="right")
    middle = x + side + (wide - side) / 2
    for value, place, ha in ((-limit, x + side, "left"), (0.0, middle, "center"), (limit, x + wide, "right")):
        canvas.text(place, foot, number(value) if value <= 0 else f"+{number(value)}", size=SMALL, color=GREY, ha=ha)


def _rounded(value: float, span: float) -> float:
    """Return a value to about a hundredth of a range: what is left of zero after rounding is no number to show."""
    return round(value, 2 - math.floor(math.log10(span))) + 0.0 if span > 0 else value


def number(value: float) -> str:
    """Return a number with three digits.

    Example:
        >>> number(-0.5), number(41310.0), number(0.0)
        ('\u22120.5', '41,310', '0')
    """
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return digits.replace("-", "\N{MINUS SIGN}")
