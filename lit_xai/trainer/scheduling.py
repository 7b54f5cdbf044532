"""Points in a run, in epochs or in optimizer steps: an integer counts them, a fraction is a share of the run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from lit_xai.network.check import check_choice, is_number, refusal

Unit: TypeAlias = Literal["epoch", "step"]
"""What a run is counted in: epochs, or steps of its first optimizer."""

Epochs: TypeAlias = Annotated[int | float, "epochs, or a fraction of max_epochs"]
"""A number of epochs, or a fraction of the run: the type of every such argument of a callback.

``Annotated`` keeps YAML's integers integers. ``typing`` caches unions without regard to their order: in a parser which
has met ``float | int | None`` (Lightning's Trainer brings it) ``int | float | None`` becomes that one, and jsonargparse
then reads ``end_epoch: 3`` as 3.0, and 1 as the whole run.
"""

Steps: TypeAlias = Annotated[int | float, "optimizer steps, or a fraction of those of the run"]
"""A number of steps of the first optimizer, or a fraction of the run, likewise."""

WHOLE = {"epoch": "max_epochs", "step": "the optimizer steps of the run"}
"""What a fraction is a fraction of."""

CURVES = {"linear": lambda share: share, "cubic": lambda share: 1 - (1 - share) ** 3}
"""The share of a plan that is done after a share of its steps. Cubic: Zhu and Gupta 2017, arxiv.org/abs/1710.01878."""


@dataclass(frozen=True)
class Point:
    """A point in a run, counted from 0: the start of an epoch, or of the first batch after so many optimizer steps.

    Args:
        count: of epochs or steps before it.
        unit: which of the two.

    Example:
        >>> str(Point(1200, "step")), Point(4).place
        ('step 1200', 'at the start of epoch 4')
    """

    count: int
    unit: Unit = "epoch"

    def __str__(self) -> str:
        return f"{self.unit} {self.count}"

    @property
    def place(self) -> str:
        """The point in words, for messages."""
        return f"at the start of {self}" if self.unit == "epoch" else f"at {self}"


@dataclass(frozen=True)
class RunLength:
    """The length of a run; see :func:`~lit_xai.trainer.progress.run_length`.

    Args:
        epochs: ``None`` without end.
        steps: of the first optimizer; ``None`` if that is not known.
        steps_per_epoch: ``None`` if that is not known, or not the same in all epochs.
        unit: in which fractions count: steps where the run has a single epoch, or ends by ``max_steps``.
        is_final: ``False`` before the data are loaded, when the number of steps is not known yet.

    Example:
        >>> run = RunLength(epochs=10, steps=1000, steps_per_epoch=100)
        >>> run.is_before(Point(3), Point(301, "step")), run.is_before(Point(3), Point(300, "step"))
        (True, False)
    """

    epochs: int | None = None
    steps: int | None = None
    steps_per_epoch: int | None = None
    unit: Unit = "epoch"
    is_final: bool = True

    def of(self, unit: Unit) -> int | None:
        """Return the number of epochs or steps."""
        return self.epochs if unit == "epoch" else self.steps

    def is_before(self, first: Point, second: Point) -> bool | None:
        """Return whether one point is before another; ``None`` if one is an epoch of unknown length."""
        if first.unit == second.unit:
            return first.count < second.count
        if self.steps_per_epoch is None:
            return None
        return self._in_steps(first) < self._in_steps(second)

    def _in_steps(self, point: Point) -> int:
        assert self.steps_per_epoch is not None  # is_before checks it
        return point.count * self.steps_per_epoch if point.unit == "epoch" else point.count


def resolve(value: int | float, total: int | None, argument: str, unit: Unit = "epoch") -> int:
    """Return a number of epochs or steps.

    Args:
        value: an integer of at least 0, or a fraction of the run between 0 and 1. A fraction under 1 stays inside the
            run.
        total: the epochs or steps of the run; ``None`` if that is not known.
        argument: the name of the argument, for the error.
        unit: of the result.

    Raises:
        ValueError: the value is neither, or a fraction of an unknown number.

    Example:
        >>> resolve(5, 20, "every_n_epochs"), resolve(0.1, 20, "every_n_epochs"), resolve(0.9, 3, "start_epoch")
        (5, 2, 2)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise refusal(argument, f"a number of {unit}s, or a fraction of {WHOLE[unit]}", value)
    if isinstance(value, int):
        return value
    if value > 1:
        raise refusal(argument, f"an integer, or a fraction from 0 to 1 of {WHOLE[unit]}", value)
    if total is None:
        raise ValueError(f"{argument}={value} is a fraction of {WHOLE[unit]}, {_how_to_set(argument, unit)}.")
    count = round(value * total)
    # Rounded up to the end of a short run, a start would never come.
    return min(count, max(0, total - 1)) if value < 1 else count


def one_of(unit: Unit) -> str:
    """Return a unit with its article."""
    return "an epoch" if unit == "epoch" else "a step"


def _how_to_set(argument: str, unit: Unit) -> str:
    if unit == "epoch":
        return "which is not set: give a number of epochs"
    in_steps = argument.replace("epoch", "step")
    return f"whose number is not known: set max_steps of the Trainer, or {in_steps} to a number of steps"


@dataclass(frozen=True)
class Times:
    """Points in a run and distances between them, as arguments of a callback give them: all in epochs, or all in steps.

    Where fractions are given in epochs alone, and the run ends by steps or has a single epoch, they are fractions of
    its steps.

    Args:
        values: by the names of the arguments, which begin with ``start``, ``end``, ``freeze`` or ``every``; ``None``
            for one that is left to the callback.
        unit: of these arguments.

    Raises:
        ValueError: a value is wrong for a run of any length.

    Example:
        >>> times = Times({"start_epoch": 0.5, "freeze_epoch": 0.9})
        >>> times.point("start", RunLength(epochs=10)), times.point("start", RunLength(1, steps=500, unit="step"))
        (Point(count=5, unit='epoch'), Point(count=250, unit='step'))
    """

    values: Mapping[str, int | float | None]
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        for argument, value in self.values.items():
            if value is not None:
                # A run of 1 epoch or step stands for any: only types and ranges are checked here.
                resolve(value, 1, argument, self.unit)

    @classmethod
    def given(
        cls,
        defaults: Sequence[int | float | None],
        epochs: Mapping[str, int | float | None],
        steps: Mapping[str, int | float | None],
    ) -> "Times":
        """Return the times that a user has given in one of the two units.

        Args:
            defaults: fractions of the run, or ``None``, that stand for what is not given.
            epochs: values by argument; those that are defaults count as not given.
            steps: likewise; ``None`` is not given.

        Raises:
            ValueError: some are given in epochs and others in steps.

        Example:
            >>> Times.given([0.1, None], {"start_epoch": 0.1, "end_epoch": None}, {"start_step": 50, "end_step": None})
            Times(values={'start_step': 50, 'end_step': None}, unit='step')
        """
        in_steps = [name for name, value in steps.items() if value is not None]
        if not in_steps:
            return cls(epochs)
        pairs = zip(epochs.items(), defaults, strict=True)
        in_epochs = [name for (name, value), default in pairs if (type(value), value) != (type(default), default)]
        if in_epochs:
            both = ", ".join(f"{name}={({**epochs, **steps})[name]!r}" for name in [*in_epochs, *in_steps])
            raise ValueError(f"Expected all times in epochs, or all in steps, but got {both}: leave one kind out.")
        filled = zip(steps.items(), defaults, strict=True)
        return cls({name: default if value is None else value for (name, value), default in filled}, "step")

    def argument(self, which: str) -> str:
        """Return the name of the argument that begins with a word."""
        return next(name for name in self.values if name.startswith(which))

    def is_settled(self, run: RunLength) -> bool:
        """Return whether they can be told in a run whose length is not final."""
        return run.is_final or self.unit == "epoch"

    def unit_in(self, run: RunLength) -> Unit:
        """Return the unit that they are counted in, in a run."""
        are_fractions = all(value is None or isinstance(value, float) for value in self.values.values())
        return run.unit if are_fractions and self.unit == "epoch" else self.unit

    def point(self, which: str, run: RunLength, default: int = 0) -> Point:
        """Return the point in a run, or the distance, that an argument stands for.

        Args:
            which: the first word of its name.
            run: its length.
            default: what ``None`` stands for.

        Raises:
            ValueError: a fraction of a run without a known end.
        """
        unit, argument = self.unit_in(run), self.argument(which)
        value = self.values[argument]
        return Point(default if value is None else resolve(value, run.of(unit), argument, unit), unit)


@dataclass(frozen=True)
class Schedule:
    """The points of a run at which something happens, a share of the whole each time.

    Args:
        times: ``start``, the first; ``end``, the last, included, by default the middle of the run, or the start if that
            is later; ``every``, the distance from one to the next.
        schedule: ``"linear"`` or ``"cubic"`` (most of it early).

    Raises:
        ValueError: an argument is wrong for a run of any length.

    Example:
        >>> schedule = Schedule(Times({"start_epoch": 2, "end_epoch": 8, "every_n_epochs": 2}))
        >>> [(str(point), share) for point, share in schedule.plan(RunLength(epochs=20)).items()]
        [('epoch 2', 0.25), ('epoch 4', 0.5), ('epoch 6', 0.75), ('epoch 8', 1.0)]
        >>> schedule = Schedule(Times({"start_step": 0.1, "end_step": None, "every_n_steps": 0.1}, "step"), "cubic")
        >>> [(str(point), share) for point, share in schedule.plan(RunLength(steps=1000)).items()][:2]
        [('step 100', 0.488), ('step 200', 0.784)]
    """

    times: Times
    schedule: str = "linear"

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, CURVES)

    def plan(self, run: RunLength) -> dict[Point, float]:
        """Return the points in order, and the share of the whole plan that is done after each.

        Raises:
            ValueError: a point is outside the run, or a fraction of a run without a known end.
        """
        times, unit = self.times, self.times.unit_in(run)
        start, total = times.point("start", run).count, run.of(unit)
        end = times.point("end", run, default=max(start, (total or 0) // 2)).count
        self._check(start, end, total, unit)
        # A single point needs no distance, which may be a fraction of a run without end.
        every = max(1, times.point("every", run).count) if end > start else 1
        counts = [*range(start, end, every), end]  # the last one is always reached
        # Rounded, so that a share is 0.488 and not 0.4879999999999999 in logs and checkpoints.
        shares = [round(CURVES[self.schedule]((i + 1) / len(counts)), 12) for i in range(len(counts))]
        return {Point(count, unit): share for count, share in zip(counts, shares, strict=True)}

    def _check(self, start: int, end: int, total: int | None, unit: Unit) -> None:
        first, last, one = (
            self.times.argument("start"),
            self.times.argument("end"),
            one_of(unit),
        )
        if end < start:
            raise ValueError(f"{last} expected {one} from {first}={start} on, but got {end}.")
        if total is not None and end >= total:
            argument, given = (last, end) if total > start else (first, start)
            raise ValueError(
                f"{argument} expected {one} of the run, which are 0 to {total - 1}, but got {given}: that would never"
                " be reached."
            )


def value_at(values: float | Sequence[float], now: Point, run: RunLength, argument: str) -> float:
    """Return a setting's value at a point: constant, or interpolated between values spread evenly over the run.

    Args:
        values: a number, or several: the first holds in the first epoch or step, the last in the last.
        now: the point.
        run: its length.
        argument: the name of the argument, for the error.

    Raises:
        ValueError: several values, and the run has no known end.

    Example:
        >>> [value_at([0.9, 0.5, 0.1], Point(epoch), RunLength(epochs=5), "alpha") for epoch in range(5)]
        [0.9, 0.7, 0.5, 0.3, 0.1]
    """
    if isinstance(values, (int, float)):
        return float(values)
    total = run.of(now.unit)
    if total is None:
        raise ValueError(
            f"{argument}={list(values)} is spread over the run, which has no known end: set max_epochs or max_steps of"
            " the Trainer, or give one number."
        )
    # Counted from 0; a run of one epoch or step has the first value.
    place = (len(values) - 1) * min(1.0, now.count / max(1, total - 1))
    before = min(int(place), len(values) - 1)
    after = min(before + 1, len(values) - 1)
    return round(values[before] + (place - before) * (values[after] - values[before]), 12)


def check_values(values: Any, argument: str, expected: str, is_valid: Callable[[float], bool]) -> None:
    """Refuse values for :func:`value_at` unless all are numbers in range.

    Args:
        values: a number, or several in a list.
        argument: the argument's name, for the error.
        expected: what each may be, in words.
        is_valid: tells whether a number is in range.

    Raises:
        ValueError: names the argument.

    Example:
        >>> check_values([0.9, 1.5], "alpha", "numbers in [0, 1]", lambda value: 0 <= value <= 1)
        Traceback (most recent call last):
        ...
        ValueError: alpha expected numbers in [0, 1], but got [0.9, 1.5].
    """
    several = list(values) if isinstance(values, (list, tuple)) else [values]
    if not several or not all(is_number(value) and is_valid(value) for value in several):
        raise refusal(argument, expected, values)
