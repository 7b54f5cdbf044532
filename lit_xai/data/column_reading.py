"""A column of text as numbers or as categories, with what is missing in it."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lit_xai.data.categories import UNKNOWN, category_codes, find_categories
from lit_xai.network.check import check_choice, check_integer

MISSING = "missing"
"""The category of rows that have no value."""
MOST_CATEGORIES = 100
"""Different texts in a column that is not said to be categorical: names and keys have more, and explain nothing."""


@dataclass(frozen=True)
class ColumnReader:
    """How columns of text are read.

    Args:
        missing: what becomes of rows without a value: ``"refuse"``, or ``"fill"`` for the median of the training rows
            (numbers) or a category ``"missing"``.
        missing_values: the texts that stand for no value.
        unknown: what becomes of a category that no training row has: ``"refuse"``, or ``"column"`` for a category
            ``"unknown"``.
        min_count: training rows that a category needs; rarer ones count as unknown.

    Raises:
        ValueError: an argument is out of range.
    """

    missing: Literal["refuse", "fill"] = "refuse"
    missing_values: Collection[str] = ("", "?", "NA", "N/A", "NaN", "nan", "null")
    unknown: Literal["refuse", "column"] = "refuse"
    min_count: int = 1

    def __post_init__(self) -> None:
        check_choice("missing", self.missing, ("refuse", "fill"))
        check_choice("unknown", self.unknown, ("refuse", "column"))
        check_integer("min_count", self.min_count)
        if self.min_count > 1 and self.unknown == "refuse":
            raise ValueError(
                f"min_count expected 1 with unknown='refuse', but got {self.min_count}: rarer categories"
                " become unknown ones, so set unknown='column'."
            )

    def are_numbers(self, name: str, values: Sequence[str], place: Callable[[int], str]) -> bool:
        """Return whether a column holds numbers: all that is not missing is one.

        Args:
            name: of the column.
            values: of all rows.
            place: of a row, in words.

        Raises:
            ValueError: most of it are numbers and some are not, or there are too many categories.
        """
        present = [row for row, value in enumerate(values) if value not in self.missing_values]
        others = [row for row in present if to_number(values[row]) is None]
        if not others:
            return bool(present)
        if len(others) < len(present) / 2:
            raise ValueError(
                f"Column {name!r} expected numbers, as most of it are, but got {values[others[0]]!r} in"
                f" {place(others[0])}: name that in missing_values if it means that there is none, or the column in"
                " categorical."
            )
        different = len({values[row] for row in present})
        if different > MOST_CATEGORIES:
            raise ValueError(
                f"Column {name!r} expected at most {MOST_CATEGORIES} categories, but got {different} different texts in"
                f" {len(values)} rows: name it in ignore, or in categorical to have a column for each."
            )
        return False

    def numbers(
        self, name: str, values: Sequence[str], training: Sequence[int], place: Callable[[int], str]
    ) -> np.ndarray:
        """Return a column of numbers ``(N,)``.

        Args:
            name: of the column.
            values: of all rows.
            training: the rows to take the median of.
            place: of a row, in words.

        Raises:
            ValueError: a value is missing and not filled in.
        """
        self._refuse_missing(name, values, place)
        found = [None if value in self.missing_values else to_number(value) for value in values]
        known = [value for row in training if (value := found[row]) is not None]
        if not known:
            raise ValueError(f"Column {name!r} expected numbers, but has none in the training rows: name it in ignore.")
        middle = float(np.median(known))
        return np.array([middle if value is None else value for value in found])

    def categories(
        self, name: str, values: Sequence[str], training: Sequence[int], place: Callable[[int], str]
    ) -> tuple[np.ndarray, list[str]]:
        """Return a column of category codes ``(N,)``, and the categories of the training rows.

        Args:
            name: of the column.
            values: of all rows.
            training: the rows whose categories are known.
            place: of a row, in words.

        Raises:
            ValueError: a value is missing and not filled in, or a category is unknown and refused.
        """
        self._refuse_missing(name, values, place)
        texts = [MISSING if value in self.missing_values else value for value in values]
        known = find_categories([texts[row] for row in training], self.min_count)
        if self.unknown == "column":
            known = [*(one for one in known if one != UNKNOWN), UNKNOWN]
        for row, text in enumerate(texts):
            if self.unknown == "refuse" and text not in known:
                raise ValueError(
                    f"Column {name!r} expected one of the {len(known)} categories of the training rows, but got"
                    f" {text!r} in {place(row)}: set unknown='column' for a category of such values, or name the"
                    " column in ignore."
                )
        return np.array(category_codes(name, texts, known)), known

    def _refuse_missing(self, name: str, values: Sequence[str], place: Callable[[int], str]) -> None:
        without = [row for row, value in enumerate(values) if value in self.missing_values]
        if without and self.missing == "refuse":
            raise ValueError(
                f"Column {name!r} expected a value in every row, but got {values[without[0]]!r} in {place(without[0])}"
                f" ({len(without)} of {len(values)} rows have none): fill it in, set missing='fill', or name the column"
                " in ignore."
            )


def to_number(text: str) -> float | None:
    """Return the finite number that a text is, or ``None``.

    Example:
        >>> to_number("1e3"), to_number("3,5"), to_number("inf")
        (1000.0, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None
