"""The space of a study: the values of each option, and the cells of a grid."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_xai.network.check import is_number, refusal
from lit_xai.network.spelling import nearest

if TYPE_CHECKING:
    from optuna.trial import Trial

Stored = str | int | float | bool | None
"""What Optuna's storages hold of a value."""

MOST = 10_000
"""Cells of a grid."""

_RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Choices:
    """Values, one of which an option has.

    Args:
        values: numbers, words, or anything else that a configuration may hold.
    """

    values: tuple[Any, ...]

    @property
    def stored(self) -> list[Stored]:
        """As Optuna holds them: of a list or mapping its JSON."""
        return [_stored(one) for one in self.values]

    def suggest(self, trial: "Trial", name: str) -> Stored:
        """Return what a trial takes."""
        found: Stored = trial.suggest_categorical(name, self.stored)
        return found

    def value(self, stored: Any) -> Any:
        """Return the value that a storage holds, which may have been written by anybody.

        Raises:
            ValueError: it is none of these.

        Example:
            >>> Choices((["pruning"], ["quantization"])).value('["pruning"]')
            ['pruning']
        """
        for one, known in zip(self.values, self.stored, strict=True):
            if type(stored) is type(known) and stored == known:
                return one
        raise ValueError(f"the storage holds {stored!r}, which is none of {list(self.values)}.")

    def plain(self) -> list[Any]:
        """Return it as it is written."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Args:
        low: the least.
        high: the greatest.
        log: as likely between 1 and 10 as between 10 and 100.
        step: between two of them; ``None`` for any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether they are integers."""
        return type(self.low) is int and type(self.high) is int and type(self.step) in (int, type(None))

    def suggest(self, trial: "Trial", name: str) -> Stored:
        """Return what a trial takes."""
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def value(self, stored: Any) -> Any:
        """Return the number that a storage holds.

        Raises:
            ValueError: it is no number between the ends.

        Example:
            >>> Range(0.1, 0.5).value(0.9)
            Traceback (most recent call last):
            ...
            ValueError: the storage holds 0.9, which does not lie between 0.1 and 0.5.
        """
        if not is_number(stored) or not self.low <= stored <= self.high:
            raise ValueError(f"the storage holds {stored!r}, which does not lie between {self.low} and {self.high}.")
        return stored

    def plain(self) -> dict[str, Any]:
        """Return it as it is written."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


def read_space(search: Mapping[str, Any]) -> dict[str, Choices | Range]:
    """Return the values of each option.

    Args:
        search: a list, or a mapping with ``low`` and ``high``, by the option's dotted name.

    Raises:
        ValueError: one is neither; one sentence.

    Example:
        >>> read_space({"model.lr": {"low": 0.001, "high": 0.1, "log": True}})
        {'model.lr': Range(low=0.001, high=0.1, log=True, step=None)}
    """
    return {name: _read(f"search['{name}']", given) for name, given in search.items()}


def as_grid(name: str, one: Choices | Range) -> Choices:
    """Return all values of an option.

    Args:
        name: of the option, for errors.
        one: its values; a range needs a step unless it is one of integers.

    Raises:
        ValueError: there is no end of them.

    Example:
        >>> as_grid("depth", Range(2, 8, step=3)).values, as_grid("share", Range(0.1, 0.5, step=0.2)).values
        ((2, 5, 8), (0.1, 0.3, 0.5))
    """
    if isinstance(one, Choices):
        return one
    if one.step is None and not one.is_whole:
        raise ValueError(
            f"search['{name}'] expected a list of values, or a step, for a grid: a range has no end of them."
        )
    step = one.step or 1
    n = math.floor((one.high - one.low) / step + 1e-9) + 1
    if n > MOST:
        raise refusal(f"search['{name}']", f"at most {MOST:,} values", n)
    return Choices(tuple(one.low + i * step if one.is_whole else round(one.low + i * step, 12) for i in range(n)))


def cells(search: Mapping[str, Choices | Range]) -> list[dict[str, Stored]]:
    """Return the cells of a grid, as Optuna holds them; the last option changes fastest.

    Args:
        search: the values of each option.

    Raises:
        ValueError: there are too many.

    Example:
        >>> cells({"a": Choices((1, 2)), "b": Choices(("x",))})
        [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    several = [one.stored for one in search.values() if isinstance(one, Choices)]
    if (n := math.prod(map(len, several))) > MOST:
        raise refusal("search", f"at most {MOST:,} cells", n)
    return [dict(zip(search, values, strict=True)) for values in itertools.product(*several)]


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the last part of each option's name, or all of it where two would be the same.

    Example:
        >>> short_names(["model.lr", "trainer.callbacks.A.seed", "data.seed"])
        {'model.lr': 'lr', 'trainer.callbacks.A.seed': 'trainer.callbacks.A.seed', 'data.seed': 'data.seed'}
    """
    last = {name: name.rpartition(".")[2] for name in names}
    return {name: one if list(last.values()).count(one) == 1 else name for name, one in last.items()}


def shown(value: Any) -> str:
    """Return a value as a reader sees it.

    Example:
        >>> shown(["pruning", "quantization"]), shown(0.25), shown({"class_path": "torch.optim.SGD"})
        ('pruning + quantization', '0.25', 'SGD')
    """
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " + ".join(value) or "nothing"
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        return str(value["class_path"].rpartition(".")[2])
    return str(value) if isinstance(value, str) else json.dumps(value)


def _read(argument: str, given: Any) -> Choices | Range:
    if isinstance(given, Mapping):
        return _range(argument, given)
    if not isinstance(given, list) or not given:
        raise refusal(argument, "a list of values, or {low: .., high: ..}", given)
    choices = Choices(tuple(given))
    if any(isinstance(one, float) and not math.isfinite(one) for one in given):
        raise refusal(argument, "finite numbers", given)
    keys = [json.dumps(one, sort_keys=True) for one in map(_stored, given)]
    if len(set(keys)) < len(keys):
        raise refusal(argument, "values that differ", given)
    return choices


def _range(argument: str, given: Mapping[str, Any]) -> Range:
    for name in given:
        if name not in _RANGE:
            hint = nearest(str(name), _RANGE) or " It has low, high, log and step."
            raise ValueError(f"{argument} has no entry {name!r}.{hint}")
    if not is_number(given.get("low")) or not is_number(given.get("high")) or given["low"] >= given["high"]:
        raise refusal(argument, "low and high, the lower number first", dict(given))
    log, step = given.get("log", False), given.get("step")
    if not isinstance(log, bool) or (step is not None and (not is_number(step) or step <= 0)):
        raise refusal(argument, "log: true or false, and a step above 0", dict(given))
    if log and (step is not None or given["low"] <= 0):
        raise refusal(argument, "no step, and low above 0, with log: true", dict(given))
    return Range(given["low"], given["high"], log, step)


def _stored(value: Any) -> Stored:
    return (
        value
        if value is None or isinstance(value, (str, int, float))
        else json.dumps(value, sort_keys=True, default=str)
    )
