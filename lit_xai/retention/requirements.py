"""Requirements on numbers by name: ``{"val_acc": "drop<=0.01", "retention": ">=0.4"}``, which all have to be met."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_xai.network.check import refusal

MEASURED = ("retention", "similarity", "flips", "negative_flips", "accuracy")
"""Names of what is measured on the samples; every other name is a metric that the run logs in validation."""

_COUNTED_CHANGES = ("flips", "negative_flips")
_HIGHER_IS_BETTER = ("accuracy", "retention", "similarity")
_COSTS = ("latency", "size", "macs", "params")
_ERROR = re.compile(
    # Not of "error_free_rate", say, of which more is better.
    r"(?!.*(?:free|reduction|improvement))"
    r"(?:.*[^a-z])?(?:loss|error|err|mae|mse|rmse|nll|brier|ece|perplexity)(?:$|[^a-z])",
    re.IGNORECASE,
)
_UNITS = {"": 1.0, "%": 0.01, "points": 0.01, "ms": 1.0, "s": 1000.0, "kB": 1.0, "MB": 1000.0}
_FORM = re.compile(
    r"\s*(drop\s*<=|rise\s*<=|ratio\s*<=|>=|<=)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%|points|ms|s|kB|MB|)\s*",
    re.ASCII,
)
_HINT = (
    ": write 'drop<=0.01' or 'drop<=1 %' for at most so much below the first reading, 'rise<=0.01' for at most so much"
    " above it, as of a loss, 'ratio<=0.5' for at most so many times that, '>=0.4', '<=0.1', or '<=3 ms'"
)


@dataclass(frozen=True)
class Value:
    """A number that was read.

    Args:
        value: NaN where it could not be measured.
        low: the lower end of its 95% interval; ``None`` without one.
        high: its upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return the number, with its interval if it has one.

        Example:
            >>> print(Value(0.5, 0.4, 0.6), Value(0.25))
            0.5 [0.4, 0.6] 0.25
        """
        interval = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}{interval}"


@dataclass(frozen=True)
class Requirement:
    """One line of a guard.

    Args:
        name: of the number.
        relation: ``"drop<="``, ``"rise<="``, ``"ratio<="``, ``">="`` or ``"<="``.
        bound: what it is held against.

    Example:
        >>> one = Requirement.read("retention", ">= 0.4")
        >>> str(one), one.missed_by(Value(0.5, 0.35, 0.65)) > 0, one.missed_by(Value(0.5, 0.45, 0.55))
        ('retention >=0.4', True, 0.0)
    """

    name: str
    relation: str
    bound: float

    @classmethod
    def read(cls, name: str, text: Any, argument: str = "guard") -> "Requirement":
        """Return the requirement that a text says.

        Args:
            name: of the number.
            text: such as ``"drop<=0.01"``.
            argument: for the error.

        Raises:
            ValueError: one sentence that names the line.

        Example:
            >>> Requirement.read("val_acc", "drop<0.01")
            Traceback (most recent call last):
            ...
            ValueError: guard['val_acc'] expected a requirement, but got 'drop<0.01': write 'drop<=0.01' or ...
        """
        where = f"{argument}[{name!r}]"
        found = _FORM.fullmatch(text) if isinstance(text, str) and len(text) < 100 else None
        bound = float(found[2]) * _UNITS[found[3]] if found else math.nan
        if found is None or not math.isfinite(bound):
            raise refusal(where, "a requirement", text, _HINT)
        relation = "".join(found[1].split())
        if relation in _OF_FIRST and bound < 0:
            raise refusal(where, f"a {relation.removesuffix('<=')} of 0 or more", text)
        if (instead := _instead(name, relation)) is not None:
            raise refusal(where, instead, text)
        return cls(name, relation, bound)

    @property
    def needs_first(self) -> bool:
        """Whether it is about the change from a first reading."""
        return self.relation in _OF_FIRST

    def missed_by(self, now: Value, first: Value | None = None) -> float:
        """Return by how much a number misses the requirement: 0.0 if it meets it, NaN if it was not measured.

        The end of the interval counts that is harder to meet it with: the lower one for ``>=`` and ``drop<=``, the
        upper one for all others.

        Args:
            now: the number.
            first: at the first reading, for changes from it; that number itself, without its interval.
        """
        if self.relation in ("<=", "ratio<=", "rise<="):
            high = now.value if now.high is None else now.high
            if self.relation == "ratio<=":
                high = math.nan if first is None or first.value <= 0 else high / first.value
            if self.relation == "rise<=":
                high -= math.nan if first is None else first.value
            short = high - self.bound
        else:
            low = now.value if now.low is None else now.low
            least = self.bound if self.relation == ">=" else (math.nan if first is None else first.value) - self.bound
            short = least - low
        return short if math.isnan(short) else max(0.0, short)

    def __str__(self) -> str:
        """Return the line as one writes it."""
        return f"{self.name} {self.relation}{self.bound:g}"


_OF_FIRST = ("drop<=", "rise<=", "ratio<=")


def _instead(name: str, relation: str) -> str | None:
    """Return what to write where a limit on the harmless direction is given, which any loss would pass."""
    allowed: tuple[str, ...]
    if name in _HIGHER_IS_BETTER:
        allowed, why = ("drop<=", ">="), "more is better"
    elif name in _COUNTED_CHANGES:
        allowed, why = ("<=",), "fewer are better"
    elif name in _COSTS:
        allowed, why = ("ratio<=", "<="), "less is better"
    elif _ERROR.match(name):
        allowed, why = ("rise<=", "ratio<=", "<="), "less is better"
    else:  # a metric of the user's own, of which nothing is known
        return None
    return None if relation in allowed else f"{' or '.join(f'{one}X' for one in allowed)}, as {why}"


def read_requirements(given: Any, argument: str = "guard") -> list[Requirement]:
    """Return requirements as they are given, all of which have to be met.

    Args:
        given: a text for each name.
        argument: for errors.

    Raises:
        ValueError: there are none, or one is malformed; one sentence.

    Example:
        >>> [str(one) for one in read_requirements({"val_acc": "drop<=0.01", "flips": "<=0.1"})]
        ['val_acc drop<=0.01', 'flips <=0.1']
    """
    if not isinstance(given, Mapping) or not given or not all(isinstance(name, str) and name for name in given):
        raise refusal(argument, "requirements by name", given, ": write {'val_acc': 'drop<=0.01'}, say")
    return [Requirement.read(name, text, argument) for name, text in given.items()]
