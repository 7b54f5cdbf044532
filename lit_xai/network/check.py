"""Checks of arguments, with one wording: ``NAME expected WHAT, but got VALUE.``

Each returns the value that passed. A ``bool`` is no number here, although it is an instance of ``int``:
``threads=True`` is a mistake.
"""

import math
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from lit_xai.network.spelling import nearest

T = TypeVar("T")

Name: TypeAlias = str | Path
"""A string that stands for itself: a path, a keyword, a name.

Write it in place of ``str`` in a union with a class. For ``str | nn.Module`` jsonargparse reads a file of that name as
YAML, and imports the ``class_path`` in it; with a path among the types it does not. The class comes first: in a saved
configuration jsonargparse writes a value as the first type that takes it, and a path takes the text of anything.
"""


def refusal(name: str, expected: str, value: object, hint: str = "") -> ValueError:
    """Return the error for an argument with an unexpected value.

    Args:
        name: of the argument.
        expected: the values it may have, in words.
        value: the one it has.
        hint: how to fix it; a sentence, or a clause that begins with a colon.

    Example:
        >>> refusal("threads", "a positive integer", 0)
        ValueError('threads expected a positive integer, but got 0.')
        >>> refusal("bits", "an integer from 2 to 8", 1, ": 8 is what runtimes compute in")
        ValueError('bits expected an integer from 2 to 8, but got 1: 8 is what runtimes compute in.')
    """
    clause = hint.rstrip(".") if hint.startswith(":") else ""
    sentence = f" {hint.strip()}" if hint and not clause else ""
    return ValueError(f"{name} expected {expected}, but got {value!r}{clause}.{sentence}")


def is_number(value: object) -> bool:
    """Return whether a value is a finite real number and no bool.

    Example:
        >>> is_number(1.5), is_number(True), is_number(math.nan), is_number("1")
        (True, False, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_flag(name: str, value: T) -> T:
    """Refuse anything but True and False.

    Raises:
        ValueError: names the argument.

    Example:
        >>> check_flag("overwrite", "yes")
        Traceback (most recent call last):
        ...
        ValueError: overwrite expected True or False, but got 'yes'.
    """
    if not isinstance(value, bool):
        raise refusal(name, "True or False", value)
    return value


def check_integer(name: str, value: T, low: int = 1, high: int | None = None) -> T:
    """Refuse anything but an integer from ``low`` to ``high``; the default is a positive one.

    Raises:
        ValueError: names the argument.

    Example:
        >>> check_integer("threads", 4)
        4
        >>> check_integer("bits", 1, 2, 8)
        Traceback (most recent call last):
        ...
        ValueError: bits expected an integer from 2 to 8, but got 1.
    """
    # Integral: NumPy's integers, which a size read from an array's shape may be, are no instances of int.
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):  # type: ignore[operator]  # an integer
        limits = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise refusal(name, "a positive integer" if (low, high) == (1, None) else limits, value)
    return value


def check_positive(name: str, value: T, unit: str = "number") -> T:
    """Refuse anything but a finite number above 0.

    Raises:
        ValueError: names the argument.

    Example:
        >>> check_positive("temperature", 0)
        Traceback (most recent call last):
        ...
        ValueError: temperature expected a number above 0, but got 0.
    """
    if not is_number(value) or value <= 0:  # type: ignore[operator]  # is_number lets numbers pass alone
        raise refusal(name, f"a {unit} above 0", value)
    return value


def check_share(name: str, value: T, low: float = 0.0, high: float = 1.0) -> T:
    """Refuse anything but a number from ``low`` to ``high``, both included.

    Raises:
        ValueError: names the argument.

    Example:
        >>> check_share("alpha", 1.5)
        Traceback (most recent call last):
        ...
        ValueError: alpha expected a number from 0 to 1, but got 1.5.
    """
    if not is_number(value) or not low <= value <= high:  # type: ignore[operator]  # as above
        raise refusal(name, f"a number from {low:g} to {high:g}", value)
    return value


def check_choice(name: str, value: T, known: Iterable[str]) -> T:
    """Refuse a name that is not among the known ones.

    Raises:
        ValueError: names the argument and the known names, and suggests the nearest.

    Example:
        >>> check_choice("schedule", "cubik", ["linear", "cubic"])
        Traceback (most recent call last):
        ...
        ValueError: schedule expected one of linear, cubic, but got 'cubik'. Did you mean 'cubic'?
    """
    names: list[Any] = list(known)
    if value not in names:
        raise refusal(name, f"one of {', '.join(names)}", value, nearest(str(value), names))
    return value
