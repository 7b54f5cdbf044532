"""The noise of each layer in integers: a row for each layer, in the order in which they run, on a scale of decibels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_xai.render.canvas import AGAINST, FOR, GREY, LINE, MARGIN, SMALL, WIDTH, Canvas, plain_style
from lit_xai.render.names import shorten_names
from lit_xai.render.text import text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, FOOT, HEAD = 30, 64, 8
"""Height of a row, of the scale below the rows, and of the gap above them."""
MOST = 40
"""The number of layers that are drawn: the noisiest of them."""
RADIUS = 6


@dataclass(frozen=True)
class NoiseRow:
    """One layer in the figure.

    Args:
        name: of the layer.
        alone: the signal-to-noise ratio of the logits in dB with it alone in integers; ``None`` where unknown.
        output: that of its own output, with the noise of all layers before it; ``None`` where unknown.
        note: written at the end of its row.
    """

    name: str
    alone: float | None = None
    output: float | None = None
    note: str = ""


def blame_figure(rows: Sequence[NoiseRow], title: str = "", notes_are: str = "") -> Figure:
    """Draw how noisy each layer is in integers: the further to the left, the more it costs.

    Args:
        rows: in the order in which the layers run.
        title: of the figure.
        notes_are: what the rows' notes are, in a few words.

    Example:
        >>> blame_figure([NoiseRow("conv1", 31.5, 40.2), NoiseRow("fc", 12.0, 11.5, "0.91")]).get_size_inches().tolist()
        [7.0, 2.31]
    """
    shown = _noisiest(rows)
    with plain_style():
        words = [f"the {len(shown)} noisiest of {len(rows)} layers"] if len(shown) < len(rows) else []
        # As wide as in bold, which the noisiest layer is written in.
        notes = max((text_width(row.note, SMALL, "bold") for row in shown), default=0.0)
        short, shared = shorten_names([row.name for row in shown], 0.4 * WIDTH, SMALL)
        words += [f"all names begin with {shared}"] if shared else []
        words += [f"at the end of a row: {notes_are}"] if notes and notes_are else []
        words += (
            ["at the right end: no noise at all"] if any(math.inf in (row.alone, row.output) for row in shown) else []
        )
        lines = wrap("\n".join(words), WIDTH - 2 * MARGIN, SMALL, "normal")
        kinds = _kinds(shown)
        height = LINE * (len(lines) + len(kinds)) + HEAD + ROW * len(shown) + FOOT
        canvas = Canvas(title or "Noise of each layer in integers", height)
        for i, line in enumerate(lines):
            canvas.text(MARGIN, canvas.top + LINE * i, line, size=SMALL, color=GREY)
        _legend(canvas, canvas.top + LINE * len(lines), kinds)
        top = canvas.top + LINE * (len(lines) + len(kinds)) + HEAD
        left = MARGIN + 10 + max((text_width(name, SMALL, "bold") for name in short), default=0.0) + 2 * RADIUS
        right = WIDTH - MARGIN - RADIUS - (notes + 10 if notes else 0)
        scale = _Scale(shown, left, right)
        worst = min(range(len(shown)), key=lambda i: _least(shown[i]), default=-1)
        _draw_scale(canvas, scale, top, ROW * len(shown))
        for i, (row, name) in enumerate(zip(shown, short, strict=True)):
            y = top + ROW * (i + 0.5)
            weight = "bold" if i == worst else "normal"
            style: dict[str, Any] = {"size": SMALL, "va": "center_baseline", "weight": weight}
            canvas.text(left - 2 * RADIUS - 10, y, name, ha="right", **style)
            canvas.text(WIDTH - MARGIN, y, row.note, ha="right", **style)
            _draw_row(canvas, scale, row, y)
        return canvas.finish()


def _noisiest(rows: Sequence[NoiseRow]) -> list[NoiseRow]:
    order = sorted(range(len(rows)), key=lambda i: _least(rows[i]))[:MOST]
    return [rows[i] for i in sorted(order)]


def _least(row: NoiseRow) -> float:
    """Return what layers are compared by: the noise that each adds alone, where it is known."""
    known = row.alone if row.alone is not None else row.output
    return math.inf if known is None else known


class _Scale:
    """Decibels as pixels; what has no noise at all is at the right end."""

    def __init__(self, rows: Sequence[NoiseRow], left: float, right: float) -> None:
        every = [value for row in rows for value in (row.alone, row.output) if value is not None]
        known = [value for value in every if math.isfinite(value)] or [0.0]
        self.low, self.high = 10 * math.floor(min(known) / 10), 10 * math.ceil(max(known) / 10 + 1e-9)
        self.high = max(self.high, self.low + 10)
        self.left, self.right = left, right

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.left + share * (self.right - self.left)

    @property
    def ticks(self) -> list[int]:
        step = 10 * max(1, math.ceil((self.high - self.low) / 60))
        return list(range(int(self.low), int(self.high) + 1, step))


def _kinds(rows: Sequence[NoiseRow]) -> list[tuple[bool, str]]:
    """Return the marks that are drawn, filled or not, and what they are."""
    kinds = []
    if any(row.alone is not None for row in rows):
        kinds.append((True, "the logits, with this layer alone in int8"))
    if any(row.output is not None for row in rows):
        kinds.append((False, "its output in int8, all layers before it too"))
    return kinds


def _legend(canvas: Canvas, y: float, kinds: Sequence[tuple[bool, str]]) -> None:
    for line, (filled, words) in enumerate(kinds):
        middle = y + LINE * line + 10
        _mark(canvas, MARGIN + RADIUS + 2, middle, filled)
        canvas.text(MARGIN + 3 * RADIUS + 6, y + LINE * line, words, size=SMALL)


def _mark(canvas: Canvas, x: float, y: float, filled: bool) -> None:
    from matplotlib.patches import Circle

    # Apart by form as well as by color.
    face, edge = (FOR, FOR) if filled else ("white", AGAINST)
    radius = RADIUS if filled else RADIUS - 1
    canvas.axes.add_patch(Circle((x, y), radius, facecolor=face, edgecolor=edge, linewidth=1.6, zorder=3))


def _draw_scale(canvas: Canvas, scale: _Scale, top: float, height: float) -> None:
    ticks = scale.ticks
    for tick in ticks:
        x = scale(tick)
        canvas.axes.plot((x, x), (top, top + height), color="#dddddd", linewidth=1, zorder=1)
        canvas.text(x, top + height + 4, str(tick).replace("-", "\N{MINUS SIGN}"), size=SMALL, color=GREY, ha="center")
    y = canvas.height - 32
    canvas.text(MARGIN, y, "◂ noisier", size=SMALL, color=GREY)
    canvas.text(WIDTH / 2, y, "signal-to-noise ratio in dB", size=SMALL, ha="center")
    canvas.text(WIDTH - MARGIN, y, "cleaner ▸", size=SMALL, color=GREY, ha="right")


def _draw_row(canvas: Canvas, scale: _Scale, row: NoiseRow, y: float) -> None:
    points = [(value, filled) for value, filled in ((row.output, False), (row.alone, True)) if value is not None]
    if len(points) == 2:
        x = [scale(value) for value, _ in points]
        canvas.axes.plot(x, (y, y), color="#bbbbbb", linewidth=1.2, zorder=2)
    for value, filled in points:
        _mark(canvas, scale(value), y, filled)
