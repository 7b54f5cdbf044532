"""The time axis below series: frames, or seconds where the sample rate is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from lit_xai.render.canvas import GREY, INK, SMALL, Canvas
from lit_xai.render.text import text_width

TICKS = 6
"""Ticks on an axis, about."""
TICK = 5
"""Length of a tick in pixels."""
AXIS = 52
"""Height of the axis: ticks, numbers, and words."""


class Tick(NamedTuple):
    """A tick: where it is, as a share of the axis, and its number."""

    place: float
    words: str


def time_ticks(positions: int, sample_rate: float | None = None) -> list[Tick]:
    """Return the ticks of an axis over positions: in the middles of frames, or at seconds since the first one began.

    Args:
        positions: of the series.
        sample_rate: positions per second, where known.

    Example:
        >>> time_ticks(29)[:3]
        [Tick(place=0.017241379310344827, words='0'), Tick(place=0.1896551724137931, words='5'), Tick(place=0.3620689...
        >>> [tick.words for tick in time_ticks(8000, sample_rate=16_000)]
        ['0.0', '0.1', '0.2', '0.3', '0.4', '0.5']
    """
    rate = sample_rate or 1.0
    span = positions / rate
    step = _nice(span / TICKS)
    if sample_rate is None:
        step = max(1, round(step))
    half = 0.5 if sample_rate is None else 0.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    last = (positions - 1) if sample_rate is None else span * (1 + 1e-9)
    count = math.floor(last / step) + 1
    return [Tick((k * step * rate + half) / positions, f"{k * step:.{digits}f}") for k in range(count)]


def _nice(value: float) -> float:
    """Return the least of 1, 2 and 5, times a power of ten, that is at least ``value``."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


@dataclass(frozen=True)
class TimeAxis:
    """The axis of maps over time.

    Args:
        positions: of the series.
        sample_rate: positions per second, where known; the axis counts frames where it is not.

    Example:
        >>> TimeAxis(29).unit, TimeAxis(8000, 16_000).unit
        ('frame', 'seconds')
    """

    positions: int
    sample_rate: float | None = None

    @property
    def unit(self) -> str:
        """What its numbers count."""
        return "frame" if self.sample_rate is None else "seconds"

    @cached_property
    def ticks(self) -> list[Tick]:
        """Its ticks."""
        return time_ticks(self.positions, self.sample_rate)

    def mark(self, canvas: Canvas, x: float, y: float, width: float) -> None:
        """Draw the ticks downwards from the lower edge of a map at ``y``."""
        for tick in self.ticks:
            place = x + tick.place * width
            canvas.axes.plot((place, place), (y, y + TICK), color=INK, linewidth=0.8, solid_capstyle="butt")

    def write(self, canvas: Canvas, x: float, y: float, width: float, note: str = "") -> None:
        """Write the numbers of ticks that begin at ``y``, and below them the unit with a note."""
        for tick in self.ticks:
            half = text_width(tick.words, SMALL) / 2
            place = min(x + tick.place * width, canvas.width - half - 2)
            canvas.text(place, y + TICK + 1, tick.words, size=SMALL, color=GREY, ha="center")
        words = " · ".join(filter(None, (self.unit, note)))
        canvas.text(x + width / 2, y + TICK + 24, words, width=width, size=SMALL, color=GREY, ha="center")
