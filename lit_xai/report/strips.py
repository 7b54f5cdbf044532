"""Where an interval lies against a margin, in percent of a strip's width: drawn by the page, at any width."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict


class Strip(TypedDict):
    """Places on a strip, in percent of its width; ``None`` is not drawn."""

    value: float
    low: float
    high: float
    margin: float | None
    zero: float | None
    allowed: tuple[float, float] | None


def strip(numbers: Mapping[str, Any], margin: float | None = None, relation: str = "") -> Strip | None:
    """Return the strip of one number; ``None`` where it is unknown.

    Args:
        numbers: ``value``, and its bounds ``low`` and ``high`` if it has any; ``None`` reaches to the strip's end.
        margin: that it is held against.
        relation: ``">="`` if it may lie above, else it may lie below.

    Example:
        >>> one = strip({"value": 0.5, "low": 0.0, "high": 1.0}, 0.75, "<=")
        >>> one["low"], one["value"], one["high"], one["allowed"]
        (6.0, 50.0, 94.0, (0, 72.0))
    """
    found = strips([numbers], margin, relation)
    return found[0]


def strips(
    rows: Iterable[Mapping[str, Any] | None], margin: float | None = None, relation: str = ""
) -> list[Strip | None]:
    """Return strips of several numbers on one scale, that they can be compared by eye.

    Args:
        rows: as for :func:`strip`.
        margin: that all are held against.
        relation: ``">="`` if they may lie above.
    """
    rows = list(rows)
    known = [one for one in rows if one is not None and one.get("value") is not None]
    every = [v for one in known for key in ("value", "low", "high") if (v := one.get(key)) is not None]
    every += [margin] if margin is not None else []
    if not known:
        return [None] * len(rows)
    low, high = min(every), max(every)
    if min(abs(low), abs(high)) < 2 * (high - low):  # zero is near
        low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        low, high = low - 1, high + 1

    def place(value: float | None, otherwise: float) -> float:
        if value is None or not math.isfinite(value):
            return otherwise
        return round(6 + 88 * (value - low) / (high - low), 2)

    at = None if margin is None else place(margin, 50)
    allowed = None if at is None or not relation else (at, 100) if relation == ">=" else (0, at)
    zero = place(0.0, 0) if low <= 0 <= high else None
    return [
        None
        if one is None or one.get("value") is None
        else {
            "value": place(one["value"], 50),
            "low": place(one.get("low", one["value"]), 0),
            "high": place(one.get("high", one["value"]), 100),
            "margin": at,
            "zero": zero,
            "allowed": allowed,
        }
        for one in rows
    ]
