"""A page to draw on: a Figure of known size, one coordinate system in pixels, and text that fits where it stands.

The page is 700 pixels wide because TensorBoard's image page shows every picture 350 pixels wide and scales without
smoothing: at exactly one half, letters of 20 pixels stay readable where other widths tear them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lit_xai.render.captions import Caption
from lit_xai.render.direction import RIGHT, direction_of
from lit_xai.render.shares import Array, percent
from lit_xai.render.text import DPI, shorten, text_width, wrap

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

WIDTH, MARGIN = 700, 12
TITLE, TEXT, SMALL = 16, 15, 13.0
"""Font sizes in points."""
LINE = 27
"""From one line of text to the next, in pixels."""
FOR, AGAINST, GREY, INK = "#b2182b", "#2166ac", "#666666", "#111111"
"""The ends of the red-white-blue map, which readers with any kind of color blindness tell apart, and two grays."""
Ends: TypeAlias = tuple[str, str]
ENDS: Ends = ("against", "for the class")
"""The effects of negative and positive attributions, in words."""
SMALLEST_MARK = 9
"""Side of the smallest frame around an explained pixel."""
BAR = 96
"""Height of the color bar with its numbers and its words."""


class Canvas:
    """A page to draw on: a white Figure with its title written, below which a renderer draws.

    All lengths are pixels, counted from the upper left corner. Public, for renderers of one's own.

    Args:
        title: written in bold, in up to four lines.
        height: of what is drawn below the title, color bar included (:data:`BAR`): the figure is higher by ``top``.
        width: of the figure.
        ends: the effects of values below and above zero, in words; the first is empty if none are below.

    Attributes:
        top: where the title ends and the rest may begin.
        height: of the whole figure.
        figure: the matplotlib ``Figure``, which :meth:`finish` returns.
        axes: over the whole figure, in pixels.

    Example:
        >>> canvas = Canvas("a film", 200)
        >>> canvas.top, canvas.height
        (45, 245)
    """

    def __init__(self, title: str, height: int, width: int = WIDTH, ends: Ends = ENDS):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        lines = wrap(title, width - 2 * MARGIN, TITLE, "bold")
        self.top = MARGIN + LINE * len(lines) + (6 if lines else 0)
        self.width, self.height, self.ends = width, height + self.top, ends
        # matplotlib measures in inches.
        self.figure: Figure = Figure((self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        # Agg draws into memory. Not through pyplot, which keeps every figure until it is closed.
        FigureCanvasAgg(self.figure)
        # One coordinate system for everything: pixels from the upper left corner, downwards.
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        self.axes.set_axis_off()
        for i, line in enumerate(lines):
            self.text(MARGIN, MARGIN + LINE * i, line, size=TITLE, weight="bold")

    def text(self, x: float, y: float, words: str, *, width: float = WIDTH * 9, **style: Any) -> None:
        """Write ``words`` with their upper left corner at ``x, y``, shortened to ``width`` pixels.

        A ``$`` is written as it is: formulas are not parsed. ``style`` is what matplotlib's ``Axes.text`` takes.
        """
        style = {"size": TEXT, "color": INK, "va": "top", "weight": "normal", **style}
        words = shorten(words, width, style["size"], style["weight"])
        # A class called "$x$" is a name, not a formula.
        self.axes.text(x, y, words, parse_math=False, **style)

    def tile(self, picture: Any, x: float, y: float, width: float, height: float) -> None:
        """Draw an RGB array ``(h, w, 3)`` of values in [0, 1] into a box with a thin frame."""
        from matplotlib.patches import Rectangle

        # matplotlib 3.10 renamed "antialiased" to "auto", and takes both.
        box = (x, x + width, y + height, y)
        self.axes.imshow(picture, extent=box, aspect="auto", interpolation="antialiased")
        self.axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="#bbbbbb", linewidth=0.8))

    def mark(self, box: Any, x: float, y: float, width: float, height: float) -> None:
        """Draw a frame around a part of a tile, large enough to be seen.

        Args:
            box: top, left, bottom and right edge, as shares of the tile.
            x: of the tile's upper left corner.
            y: of the tile's upper left corner.
            width: of the tile.
            height: of the tile.
        """
        from matplotlib.patches import Rectangle

        top, left, bottom, right = (float(edge) for edge in box)
        wide, high = max((right - left) * width, SMALLEST_MARK), max((bottom - top) * height, SMALLEST_MARK)
        corner = (x + (left + right) / 2 * width - wide / 2, y + (top + bottom) / 2 * height - high / 2)
        # Dark on light, so that it is seen on any picture.
        for color, thick in (("white", 3.2), (INK, 1.4)):
            self.axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=color, linewidth=thick, zorder=3))

    def caption(self, caption: Caption, total: str, x: float, y: float, width: float) -> None:
        """Write a sample's caption; a wrong prediction is bold.

        It takes two lines, ``2 * LINE`` pixels, of which the second is blank where there is neither a prediction nor a
        place.

        Args:
            caption: the sample's.
            total: written at the right end of the first line, such as :meth:`~lit_xai.render.shares.Shares.total`.
            x: of its upper left corner.
            y: of its upper left corner.
            width: longer names are shortened to it.
        """
        self.text(x + width, y + 2, total, size=SMALL, color=GREY, ha="right")
        if caption.true:
            self._named("true ", caption.true, "", x, y, width - text_width(total, SMALL) - 12)
        if caption.place:
            self.text(x + width, y + LINE + 2, caption.place, size=SMALL, color=GREY, ha="right")
        if caption.predicted:
            weight = "bold" if caption.correct is False else "normal"
            room = width - (text_width(caption.place, SMALL) + 12 if caption.place else 0)
            self._named("pred ", caption.predicted, caption.verdict, x, y + LINE, room, weight)

    def _named(
        self, before: str, name: str, after: str, x: float, y: float, width: float, weight: str = "normal"
    ) -> None:
        """Write a name with what belongs to it; where room is short, the name alone is shortened."""
        name = shorten(name, width - text_width(before + after, TEXT, weight), TEXT, weight)
        # A name that runs from the right would turn around the number behind it, were they one text.
        for words in (before, name, after) if direction_of([name]) == RIGHT else (before + name + after,):
            self.text(x, y, words, weight=weight)
            x += text_width(words, TEXT, weight)

    def note(self, words: str, x: float, y: float, width: float, height: float) -> None:
        """Write ``words`` into the middle of a box: why there is nothing in it."""
        lines = wrap(words, width - 8, SMALL, "normal", most=2)
        for i, line in enumerate(lines):
            middle = y + height / 2 + LINE * (i - (len(lines) - 1) / 2)
            self.text(x + width / 2, middle, line, size=SMALL, color=GREY, ha="center", va="center_baseline")

    def color_bar(self, scale: ScalarMappable, limit: float, unit: str) -> None:
        """Draw the color bar along the lower edge, with what its ends mean in words.

        Args:
            scale: of :func:`color_scale`.
            limit: the share at which its colors end.
            unit: what a color measures, in words: ``"share of the map's Σ|a| per token"``.
        """
        left, top, thick = MARGIN + 40, self.height - BAR + 8, 20
        box = (left / self.width, 1 - (top + thick) / self.height, 1 - 2 * left / self.width, thick / self.height)
        axes = self.figure.add_axes(box)
        bar = self.figure.colorbar(scale, cax=axes, orientation="horizontal", extend="both")
        ticks, words = scale_ticks(limit)
        bar.set_ticks(ticks, labels=words, fontsize=SMALL, color=INK)
        self.ends_of_scale(unit)

    def ends_of_scale(self, unit: str) -> None:
        """Write what the scale measures and what its ends mean into the lowest line."""
        y = self.height - 34
        below, above = self.ends
        self.text(MARGIN, y, f"◂ {below}" if below else "", color=AGAINST, weight="bold")
        self.text(self.width - MARGIN, y, f"{above} ▸", color=FOR, weight="bold", ha="right")
        # Between the words at both ends, or where the first would be.
        x, ha = (self.width / 2 - 20, "center") if below else (MARGIN, "left")
        self.text(x, y + 2, unit, size=SMALL, color=GREY, ha=ha)

    def finish(self) -> Figure:
        """Return the figure, its coordinates put back to the page (``imshow`` moves them)."""
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        return self.figure


def plain_style() -> AbstractContextManager[None]:
    """Return a context with matplotlib's own defaults, independent of the user's or a notebook's style."""
    from matplotlib import style

    # A user's dark style or larger fonts would move text out of the places computed here.
    return style.context([], after_reset=True)


def color_scale(limit: float) -> ScalarMappable:
    """Return the one scale of all maps: red for, blue against, white nothing, symmetric about zero."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # Symmetric, so that white is zero in every figure.
    return ScalarMappable(Normalize(-limit, limit), colormaps["RdBu_r"])


def to_colors(scale: ScalarMappable, shares: Array) -> Array:
    """Return the colors ``(..., 3)`` of shares ``(...)``."""
    return np.asarray(scale.cmap(scale.norm(shares)))[..., :3]


def scale_ticks(limit: float) -> tuple[list[float], list[str]]:
    """Return the positions and the labels of the scale's ticks.

    Example:
        >>> scale_ticks(0.02)
        ([-0.02, 0.0, 0.02], ['\u22122%', '0', '+2%'])
    """
    return [-limit, 0.0, limit], [f"\N{MINUS SIGN}{percent(limit)}", "0", f"+{percent(limit)}"]
