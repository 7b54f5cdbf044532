"""Tables, sample by sample: a dot for each sample's share of each feature, colored by the feature's value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.canvas import GREY, INK, LINE, MARGIN, SMALL, TEXT, WIDTH, Canvas, Ends, scale_ticks
from lit_xai.render.shares import Array, Shares
from lit_xai.render.tabular import mean_shares, shown_features
from lit_xai.render.text import text_width, wrap

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

ROW, AXIS, NUMBERS = 38, 80, 84
"""Height of a feature's dots, height of the axis with its words, width of the numbers on the right."""
PLAIN = "#9a9a9a"
"""Color of a dot whose feature has no order, or whose value must not be shown."""
BINS = 90
"""Places across the axis: dots of one place are stacked."""


@dataclass(frozen=True)
class Swarm:
    """The dots of a figure.

    Args:
        shares: of each sample and feature, ``(N, features)``.
        names: of the features.
        values: of each sample's features, ``(N, features)``; NaN where a feature is a category.
        shows_values: whether dots are colored by them.
    """

    shares: Shares
    names: Sequence[str]
    values: Array
    shows_values: bool = True


def beeswarm_figure(swarm: Swarm, summary: str, title: str, limit: float, ends: Ends) -> Figure:
    """Return a row of dots for each feature.

    Args:
        swarm: the dots.
        summary: written above them.
        title: of the figure.
        limit: the share at which the axis ends; what lies beyond is drawn at its end.
        ends: the effects of negative and positive values, in words.
    """
    _, absolute = mean_shares(swarm.shares)
    shown = shown_features(absolute)
    lines = wrap(summary, WIDTH - 2 * MARGIN, SMALL, "normal", most=6)
    top = LINE * (len(lines) + 1) + 12
    canvas = Canvas(title, top + ROW * len(shown) + AXIS, ends=ends)
    for i, line in enumerate(lines):
        canvas.text(MARGIN, canvas.top + LINE * i, line, size=SMALL, color=GREY)
    ranks = _ranks(swarm)
    _write_legend(canvas, canvas.top + LINE * len(lines), ranks[:, shown])
    top += canvas.top
    left = MARGIN + 10 + min(max(text_width(swarm.names[k], TEXT) for k in shown), 0.36 * WIDTH)
    drawn = swarm.shares.drawable
    _draw_dots(canvas, (left, top), swarm.shares.values[drawn][:, shown], ranks[drawn][:, shown], limit)
    for i, k in enumerate(shown):
        y = top + ROW * (i + 0.5)
        canvas.text(left - 10, y, swarm.names[k], width=left - 10 - MARGIN, ha="right", va="center_baseline")
        number = f"{100 * absolute[k]:.1f}%"
        canvas.text(WIDTH - MARGIN, y, number, size=SMALL, color=GREY, ha="right", va="center_baseline")
    canvas.ends_of_scale("share of a sample's Σ|a|")
    return canvas.finish()


def stack(positions: Array, bins: int) -> Array:
    """Return how far each dot is from the middle of its row, in dots: those of one place are stacked on both sides.

    Args:
        positions: along the axis, from 0 to 1.
        bins: places along it.

    Example:
        >>> stack(np.array([0.5, 0.5, 0.5, 0.9]), 10)
        array([ 0., -1.,  1.,  0.])
    """
    place = np.minimum((positions * bins).astype(int), bins - 1)
    found = np.zeros(len(positions))
    for one in np.unique(place):
        (dots,) = np.nonzero(place == one)
        order = np.arange(len(dots))
        found[dots] = (order + 1) // 2 * np.where(order % 2, -1, 1)
    return found


def _ranks(swarm: Swarm) -> Array:
    """Return each value's rank among the samples, from 0 to 1; NaN where there is no order."""
    from scipy.stats import rankdata

    if not swarm.shows_values:
        return np.full(swarm.values.shape, np.nan)
    ranks = (rankdata(swarm.values, axis=0) - 1) / max(len(swarm.values) - 1, 1)
    return np.where(np.isnan(swarm.values), np.nan, ranks)


def _colors() -> Colormap:
    """Return the colors from low to high values: neither red nor blue, which speak for and against."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.9, 64)))  # its yellow would fade on white


def _write_legend(canvas: Canvas, y: float, ranks: Array) -> None:
    plain = np.isnan(ranks).all(0)
    parts: list[tuple[str, str]] = []
    if not plain.all():
        low, middle, high = (_hex(share) for share in (0.0, 0.5, 1.0))
        parts += [(low, ""), (middle, ""), (high, " low to high value     ")]
    if plain.any():
        parts.append((PLAIN, " category" if not plain.all() else " one sample"))
    x: float = MARGIN
    for color, words in parts:
        canvas.text(x, y, "●", color=color)
        canvas.text(x + text_width("●", TEXT), y, words, size=SMALL)
        x += text_width("●", TEXT) + text_width(words, SMALL)
    numbers = "numbers: mean |share|"
    canvas.text(WIDTH - MARGIN, y, numbers, size=SMALL, color=GREY, ha="right")


def _hex(share: float) -> str:
    from matplotlib.colors import to_hex

    return to_hex(_colors()(share))


def _draw_dots(canvas: Canvas, corner: tuple[float, float], shares: Array, ranks: Array, limit: float) -> None:
    left, top = corner
    width, height = WIDTH - MARGIN - NUMBERS - left, ROW * shares.shape[1]
    bounds = (left / WIDTH, 1 - (top + height) / canvas.height, width / WIDTH, height / canvas.height)
    # A little wider than the scale: dots at its ends are whole.
    edge = 1.03 * limit
    axes = canvas.figure.add_axes(bounds, xlim=(-edge, edge), ylim=(shares.shape[1] - 0.5, -0.5), yticks=[])
    axes.axvline(0, color=INK, linewidth=1)
    size = 30 if len(shares) <= 60 else 16 if len(shares) <= 300 else 9
    for row in range(shares.shape[1]):
        axes.axhline(row, color="#dddddd", linewidth=0.8, zorder=0)
        x = np.clip(shares[:, row], -limit, limit)
        heights = stack((x + limit) / (2 * limit), BINS)
        step = min(0.14, 0.4 / max(np.abs(heights).max(initial=0), 1))
        known = ~np.isnan(ranks[:, row])
        colors = np.where(known[:, None], _colors()(np.nan_to_num(ranks[:, row])), _plain())
        axes.scatter(x, row + step * heights, s=size, c=colors, linewidths=0, zorder=2)
    axes.spines[["left", "right", "top"]].set_visible(False)
    ticks, words = scale_ticks(limit)
    axes.set_xticks(ticks, words, fontsize=SMALL, color=INK)


def _plain() -> tuple[float, float, float, float]:
    from matplotlib.colors import to_rgba

    return to_rgba(PLAIN)
