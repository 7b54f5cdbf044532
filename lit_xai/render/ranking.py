"""Recommendations: for some users the best-scored items, and bars of what each score is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lit_xai.network.check import refusal
from lit_xai.render.canvas import GREY, INK, LINE, MARGIN, SMALL, TEXT, WIDTH, Canvas, plain_style
from lit_xai.render.text import shorten_end, text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's bright qualitative colors, told apart by readers with any kind of color blindness."""
TITLES = 0.42 * WIDTH
"""Room for the names of items: most of a movie's title and its year."""
SCORE = 66
"""Room for a score."""
BAR, ROW, HEAD, SCALE = 20, 34, 42, 58
"""Height of a bar, of an item's row, of a user's heading, and of the scale below."""


@dataclass(frozen=True)
class RankedItem:
    """An item of a ranking.

    Args:
        name: its title.
        score: as it is to be written.
        parts: what the score is made of, by name; the same names in every item.
        note: written below its bars, such as what of a history counts most.
    """

    name: str
    score: str
    parts: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class RankedUser:
    """A user and the items recommended to them, best first.

    Args:
        name: of the user.
        items: the recommended ones.
        note: written beside the name.
    """

    name: str
    items: Sequence[RankedItem] = field(default_factory=tuple)
    note: str = ""


def ranking_figure(users: Sequence[RankedUser], title: str = "", unit: str = "") -> Figure:
    """Draw rankings: a row for each recommended item, with bars of its parts to the right of zero, or to the left.

    Args:
        users: with their items.
        title: of the figure.
        unit: of the scores and their parts, in words.

    Raises:
        ValueError: there is no item, or there are more kinds of parts than colors.

    Example:
        >>> item = RankedItem("Alien", "4.6", {"item": 0.5, "history": 0.3, "user": -0.1}, "most of it: Aliens +0.1")
        >>> ranking_figure([RankedUser("user 7", [item])], "Top 1").get_size_inches().tolist()
        [7.0, 2.41]
    """
    rows = [item for user in users for item in user.items]
    names = list(dict.fromkeys(name for item in rows for name in item.parts))
    if not rows:
        raise refusal("users", "one or more with recommended items", [user.name for user in users])
    if len(names) > len(COLORS):
        raise refusal("users", f"items of at most {len(COLORS)} kinds of parts", names)
    colors = dict(zip(names, COLORS, strict=False))
    with plain_style():
        legend = _legend_lines(names)
        height = LINE * len(legend) + sum(HEAD + sum(map(_height, user.items)) for user in users) + SCALE + MARGIN
        canvas = Canvas(title or "Recommendations", round(height))
        _write_legend(canvas, legend, colors)
        scale = _Scale(rows)
        y: float = canvas.top + LINE * len(legend)
        for user in users:
            y = _draw_user(canvas, user, scale, colors, y)
        _write_scale(canvas, scale, y, unit)
        return canvas.finish()


def _height(item: RankedItem) -> float:
    return ROW + (LINE - 4 if item.note else 0)


class _Scale:
    """Parts as pixels: the longest bars of both signs fit."""

    def __init__(self, rows: Sequence[RankedItem]) -> None:
        self.above = max(sum(max(part, 0.0) for part in item.parts.values()) for item in rows)
        self.below = max(sum(max(-part, 0.0) for part in item.parts.values()) for item in rows)
        if self.above + self.below == 0:
            self.above = 1.0
        self.left: float = MARGIN + TITLES + SCORE + 16
        self.right: float = WIDTH - MARGIN
        self.per_unit = (self.right - self.left) / (self.above + self.below)
        self.zero = self.left + self.below * self.per_unit


def _draw_user(canvas: Canvas, user: RankedUser, scale: _Scale, colors: Mapping[str, str], y: float) -> float:
    width = WIDTH - 2 * MARGIN
    canvas.text(MARGIN, y + 12, user.name, weight="bold", width=width / 2)
    canvas.text(WIDTH - MARGIN, y + 14, user.note, size=SMALL, color=GREY, ha="right", width=width / 2 - 12)
    y += HEAD
    for item in user.items:
        middle = y + ROW / 2
        canvas.text(MARGIN, middle, shorten_end(item.name, TITLES, TEXT), va="center_baseline")
        canvas.text(MARGIN + TITLES + SCORE, middle, item.score, weight="bold", ha="right", va="center_baseline")
        _draw_bars(canvas, item, scale, colors, middle)
        if item.note:
            canvas.text(MARGIN + 16, y + ROW - 3, item.note, size=SMALL, color=GREY, width=width - 16)
        y += _height(item)
    return y


def _draw_bars(canvas: Canvas, item: RankedItem, scale: _Scale, colors: Mapping[str, str], middle: float) -> None:
    from matplotlib.patches import Rectangle

    ends = {True: scale.zero, False: scale.zero}
    for name, part in item.parts.items():
        length = part * scale.per_unit
        corner = (ends[part > 0], middle - BAR / 2)
        canvas.axes.add_patch(Rectangle(corner, length, BAR, facecolor=colors[name], edgecolor="white", linewidth=0.6))
        ends[part > 0] += length
    reach = (middle - BAR / 2 - 3, middle + BAR / 2 + 3)
    canvas.axes.plot((scale.zero, scale.zero), reach, color=INK, linewidth=1.2, zorder=4)


def _legend_lines(names: Sequence[str]) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    x = float(MARGIN)
    for name in names:
        width = text_width("■ ", TEXT) + text_width(name, SMALL) + 24
        if lines[-1] and x + width > WIDTH - MARGIN:
            lines.append([])
            x = float(MARGIN)
        lines[-1].append(name)
        x += width
    return lines


def _write_legend(canvas: Canvas, lines: Sequence[Sequence[str]], colors: Mapping[str, str]) -> None:
    for k, names in enumerate(lines):
        x, y = float(MARGIN), canvas.top + LINE * k
        for name in names:
            canvas.text(x, y, "■", color=colors[name])
            x += text_width("■ ", TEXT)
            canvas.text(x, y + 1, name, size=SMALL)
            x += text_width(name, SMALL) + 24


def _write_scale(canvas: Canvas, scale: _Scale, y: float, unit: str) -> None:
    minus = "\N{MINUS SIGN}"
    places = [(scale.zero, "0")]
    if scale.above * scale.per_unit > 60:
        places.append((scale.right, f"+{scale.above:.2g}"))
    if scale.below * scale.per_unit > 60:
        places.append((scale.left, f"{minus}{scale.below:.2g}"))
    for x, words in places:
        ha = "right" if x == scale.right else "left" if x == scale.left and scale.below else "center"
        canvas.text(x, y + 2, words, size=SMALL, color=GREY, ha=ha)
    for k, line in enumerate(wrap(unit, TITLES + SCORE, SMALL, "normal", most=2)):
        canvas.text(MARGIN, y + 2 + LINE * k, line, size=SMALL, color=GREY)
