"""Numbers and requirements as a report writes them, on its page and in its model card."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

MINUS, NOTHING = "\N{MINUS SIGN}", "\N{EN DASH}"

OUTCOMES = {"passed": "Passed", "failed": "Failed", "inconclusive": "Inconclusive", None: "No verdict"}
SYMBOLS = {"passed": "\u2713", "failed": "\u2715", "inconclusive": "?", None: NOTHING}
SENTENCES = {
    "passed": "Every requirement is met, each of them surely.",
    "failed": "At least one requirement is surely not met.",
    "inconclusive": "The samples show neither that every requirement is met nor that one is not.",
    None: "Nothing was required of the candidate, so nothing is passed or failed.",
}
BEFORE = "Requirements stated before the run."
AFTERWARDS = "Requirements stated afterwards: they may have been chosen to fit these numbers."

_RELATIONS = {
    "drop<=": "may drop by at most {}",
    "rise<=": "may rise by at most {}",
    "ratio<=": "may be at most {} times the reference's",
    "<=": "may be at most {}",
    ">=": "has to be at least {}",
}


def number(value: float | None, decimals: int | None = None) -> str:
    """Return a number in four digits, or in so many decimals.

    Example:
        >>> number(0.98125), number(1234567.0), number(None) == NOTHING, number(0.5, 3)
        ('0.9812', '1,234,567', True, '0.500')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    form = f",.{decimals}f" if decimals is not None else ",.0f" if abs(value) >= 1000 else ".4g"
    text = format(value, form)
    return text.replace("-", MINUS)


def interval(numbers: Mapping[str, Any] | None, decimals: int | None = None) -> str:
    """Return a number with its bounds, in as many decimals as these are sure of, or as its column has.

    Example:
        >>> interval({"value": 0.0105, "low": 0.003112, "high": 0.014179})
        '0.011 [0.003, 0.014]'
        >>> interval({"value": 0.5, "low": None, "high": None}, 3)
        '0.500'
    """
    if numbers is None or numbers.get("value") is None:
        return NOTHING
    sure = _sure_decimals(numbers)
    if sure is None:
        return number(numbers["value"], decimals)
    decimals = sure if decimals is None else decimals
    ends = [number(numbers.get(end), decimals) for end in ("low", "high")]
    return f"{number(numbers['value'], decimals)} [{ends[0]}, {ends[1]}]"


def decimals(cells: Iterable[Mapping[str, Any] | None]) -> int | None:
    """Return the decimals of a column or row of numbers: as many as the bounds of half of them are sure of.

    Without bounds four digits of the largest, two of the smallest, and no zeros that all of them end in.

    Args:
        cells: numbers with bounds or without; ``None`` where there is none.

    Example:
        >>> decimals([{"value": 0.5, "low": 0.41, "high": 0.6}, {"value": 0.9}]), decimals([{"value": 2.25}])
        (2, 2)
    """
    known = [one for one in cells if one is not None and one.get("value") is not None]
    sure = sorted(found for one in known if (found := _sure_decimals(one)) is not None)
    if sure:
        return sure[(len(sure) - 1) // 2]
    sizes = [abs(one["value"]) for one in known if one["value"]]
    if not sizes:
        return None
    most = max(_digits(max(sizes), 4), _digits(min(sizes), 2))
    while most and all(number(one["value"], most).endswith("0") for one in known):
        most -= 1
    return most


def _digits(size: float, significant: int) -> int:
    """Return the decimals in which a size has so many significant digits."""
    return min(max(significant - 1 - math.floor(math.log10(size)), 0), 6)


def _sure_decimals(numbers: Mapping[str, Any]) -> int | None:
    """Return the decimals that a number's bounds are sure of; ``None`` without bounds."""
    low, high = numbers.get("low"), numbers.get("high")
    if (low is None and high is None) or low == high:
        return None
    spread = high - low if low is not None and high is not None else abs(numbers["value"])
    return _digits(spread, 2) if spread > 0 else 4


def requirement(line: Mapping[str, Any]) -> str:
    """Return what a line of a verdict requires, in words.

    Example:
        >>> requirement({"name": "accuracy", "relation": "drop<=", "margin": 0.01})
        'accuracy may drop by at most 0.01'
    """
    return f"{line['name'].replace('_', ' ')} {_RELATIONS[line['relation']].format(number(line['margin']))}"


def deciding(line: Mapping[str, Any]) -> str:
    """Return what would decide an inconclusive line.

    Example:
        >>> deciding({"outcome": "inconclusive", "name": "accuracy", "reason": "", "needed": 5120})
        'about 5,120 samples would decide, if the number is what it seems to be'
    """
    if line["outcome"] != "inconclusive" or line["reason"]:
        return ""
    if line["needed"] is None:
        return "no number of samples decides: the number is the margin itself"
    how_many = f"{number(float(line['needed']), 0)} {line.get('unit', 'samples')}"
    return f"about {how_many} would decide, if the number is what it seems to be"


def plain_text(value: Any) -> str:
    """Return a fact as text.

    Example:
        >>> plain_text(["a", "b"]), plain_text(True), plain_text({"train": 0.5})
        ('a, b', 'yes', 'train: 0.5')
    """
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {plain_text(one)}" for name, one in value.items())
    return number(value) if isinstance(value, float) else str(value)
