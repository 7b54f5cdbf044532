"""Points in a run: an integer counts epochs, a fraction is a share of ``max_epochs``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from lit_xai.network.check import check_choice, is_number, refusal

Epochs: TypeAlias = Annotated[int | float, "epochs, or a fraction of max_epochs"]
"""A number of epochs, or a fraction of ``max_epochs``: the type of every such argument of a callback.

``Annotated`` keeps YAML's integers integers. ``typing`` caches unions without regard to their order: in a parser which
has met ``float | int | None`` (Lightning's Trainer brings it) ``int | float | None`` becomes that one, and jsonargparse
then reads ``end_epoch: 3`` as 3.0, and 1 as the whole run.
"""


def resolve_epochs(value: Epochs, max_epochs: int | None, argument: str) -> int:
    """Return a number of epochs.

    Args:
        value: an integer of at least 0, or a fraction of ``max_epochs`` between 0 and 1.
        max_epochs: of the Trainer; ``None`` or -1 for training without end.
        argument: the name of the argument, for the error.

    Raises:
        ValueError: the value is neither, or a fraction of an unknown number.

    Example:
        >>> resolve_epochs(5, 20, "every_n_epochs"), resolve_epochs(0.1, 20, "every_n_epochs")
        (5, 2)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{argument} expected a number of epochs, or a fraction of max_epochs, but got {value!r}.")
    if isinstance(value, int):
        return value
    if value > 1:
        raise ValueError(f"{argument} expected an integer, or a fraction from 0 to 1 of max_epochs, but got {value}.")
    if max_epochs is None or max_epochs < 0:
        raise ValueError(f"{argument}={value} is a fraction of max_epochs, which is not set: give a number of epochs.")
    return round(value * max_epochs)


CURVES = {"linear": lambda share: share, "cubic": lambda share: 1 - (1 - share) ** 3}
"""The share of a plan that is done after a share of its steps. Cubic: Zhu and Gupta 2017, arxiv.org/abs/1710.01878."""


def plan_steps(
    start_epoch: Epochs,
    end_epoch: Epochs | None,
    every_n_epochs: Epochs,
    max_epochs: int | None,
    schedule: str = "linear",
) -> dict[int, float]:
    """Return the epochs that begin with a step, and the share of the whole plan that is done after each.

    Args:
        start_epoch: the first, counted from 0; an integer or a fraction of ``max_epochs``.
        end_epoch: the last, included; ``None`` for the middle of the run, or ``start_epoch`` if that is later.
        every_n_epochs: the distance from one step to the next.
        max_epochs: of the Trainer.
        schedule: ``"linear"`` or ``"cubic"`` (most of it early).

    Raises:
        ValueError: an argument is out of range, or a step would come after the last epoch.

    Example:
        >>> plan_steps(2, 8, 2, 20)
        {2: 0.25, 4: 0.5, 6: 0.75, 8: 1.0}
        >>> plan_steps(0.1, None, 0.1, 10, "cubic")
        {1: 0.488, 2: 0.784, 3: 0.936, 4: 0.992, 5: 1.0}
    """
    check_choice("schedule", schedule, CURVES)
    start = resolve_epochs(start_epoch, max_epochs, "start_epoch")
    middle = max(start, (max_epochs or 0) // 2)
    end = middle if end_epoch is None else resolve_epochs(end_epoch, max_epochs, "end_epoch")
    every = max(1, resolve_epochs(every_n_epochs, max_epochs, "every_n_epochs"))
    if end < start:
        raise ValueError(f"end_epoch expected an epoch from start_epoch={start} on, but got {end}.")
    if max_epochs is not None and 0 <= max_epochs <= end:
        argument, given = ("end_epoch", end) if max_epochs > start else ("start_epoch", start)
        raise ValueError(
            f"{argument} expected an epoch of the run, which are 0 to {max_epochs - 1}, but got {given}: a step there"
            " would never be taken."
        )
    epochs = [*range(start, end, every), end]  # the last one is always reached
    # Rounded, so that a share is 0.488 and not 0.4879999999999999 in logs and checkpoints.
    return {epoch: round(CURVES[schedule]((i + 1) / len(epochs)), 12) for i, epoch in enumerate(epochs)}


@dataclass(frozen=True)
class Schedule:
    """The epochs at whose start something happens, given before the length of the run is known.

    Args:
        start_epoch: see :func:`plan_steps`.
        end_epoch: as above.
        every_n_epochs: as above.
        schedule: as above.

    Raises:
        ValueError: an argument is wrong for a run of any length.

    Example:
        >>> Schedule(2, 8, 2).plan(max_epochs=20)
        {2: 0.25, 4: 0.5, 6: 0.75, 8: 1.0}
    """

    start_epoch: Epochs = 0.1
    end_epoch: Epochs | None = None
    every_n_epochs: Epochs = 0.1
    schedule: str = "linear"

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, CURVES)
        for argument in ("start_epoch", "end_epoch", "every_n_epochs"):
            if (value := getattr(self, argument)) is not None:
                # A run of 1 epoch stands for any: only types and ranges are checked here.
                resolve_epochs(value, 1, argument)

    def plan(self, max_epochs: int | None) -> dict[int, float]:
        """Return the epochs that begin with a step and the share that is done after each; see :func:`plan_steps`."""
        return plan_steps(self.start_epoch, self.end_epoch, self.every_n_epochs, max_epochs, self.schedule)


def value_at(values: float | Sequence[float], epoch: int, max_epochs: int | None, argument: str) -> float:
    """Return a setting's value in an epoch: constant, or interpolated between values spread evenly over the run.

    Args:
        values: a number, or several: the first holds in the first epoch, the last in the last.
        epoch: counted from 0.
        max_epochs: of the Trainer.
        argument: the name of the argument, for the error.

    Raises:
        ValueError: several values, and the run has no known end.

    Example:
        >>> [value_at([0.9, 0.5, 0.1], epoch, 5, "alpha") for epoch in range(5)]
        [0.9, 0.7, 0.5, 0.3, 0.1]
    """
    if isinstance(values, (int, float)):
        return float(values)
    if max_epochs is None or max_epochs < 0:
        raise ValueError(f"{argument}={list(values)} is spread over max_epochs, which is not set: give one number.")
    # The last epoch is max_epochs - 1; a run of one epoch has the first value.
    place = (len(values) - 1) * min(1.0, epoch / max(1, max_epochs - 1))
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
