"""When an observer evaluates: every so many epochs or steps of a run, and at its end."""

from typing import NamedTuple

from lightning.pytorch import Trainer

from lit_xai.network.check import refusal
from lit_xai.trainer.access import logged_step
from lit_xai.trainer.progress import Progress, length_ahead, run_length
from lit_xai.trainer.scheduling import WHOLE, Point, Times


class Moment(NamedTuple):
    """A moment of a run.

    Args:
        point: the epoch that ended, or how many steps were taken.
        step: its place on the loggers' axis.
    """

    point: Point
    step: int


class Regular:
    """The moments at which an observer evaluates.

    Args:
        times: with ``every_n_epochs`` or ``every_n_steps``; counted from 1, as those of Lightning's callbacks.
    """

    def __init__(self, times: Times) -> None:
        self._times = times
        self._progress = Progress()
        self.forget()

    def forget(self) -> None:
        """Drop what belongs to one ``fit``."""
        self._last: Moment | None = None
        self._is_over = True

    def check(self, trainer: Trainer) -> None:
        """Refuse what can be refused before the data are loaded; call it in ``setup``.

        Raises:
            ValueError: names the argument.
        """
        if 0 in self._times.values.values():
            one = f"1 or more {self._times.unit}s, or a fraction of {WHOLE[self._times.unit]}"
            raise refusal(self._times.argument("every"), one, 0)
        if (run := length_ahead(trainer)) is not None and self._times.is_settled(run):
            self._times.point("every", run)

    def start(self, trainer: Trainer, taken: int | None = None) -> None:
        """Begin to count.

        Args:
            trainer: in ``on_train_start``.
            taken: steps of the run that is resumed.
        """
        self._every = self._times.point("every", run_length(trainer))
        self._progress.start(trainer, taken)
        self._steps = self._progress.steps(trainer)

    def stop(self) -> None:
        """Stop counting."""
        self._progress.stop()

    def steps(self, trainer: Trainer) -> int:
        """Return how many steps the first optimizer has taken."""
        return self._progress.steps(trainer)

    def after_batch(self, trainer: Trainer) -> Moment | None:
        """Return this moment if it is one; call it in ``on_train_batch_end``."""
        steps, every = self._progress.steps(trainer), max(1, self._every.count)
        # With accumulated gradients, not every batch steps; in manual optimization, some step more than once.
        if self._every.unit != "step" or steps == self._steps:
            return None
        is_due = steps // every > self._steps // every
        self._steps = steps
        return self._reach(trainer, Point(steps, "step"), is_due)

    def after_epoch(self, trainer: Trainer) -> Moment | None:
        """Return this moment if it is one; call it in ``on_train_epoch_end``."""
        if self._every.unit != "epoch":
            return None
        is_due = (trainer.current_epoch + 1) % max(1, self._every.count) == 0
        return self._reach(trainer, Point(trainer.current_epoch), is_due)

    def at_end(self) -> Moment | None:
        """Return the last moment of the run, if it was none of these."""
        return None if self._is_over else self._last

    @property
    def last(self) -> Moment | None:
        """The last moment of the run so far."""
        return self._last

    def _reach(self, trainer: Trainer, point: Point, is_due: bool) -> Moment | None:
        # Kept for on_train_end, in which logged_step is not valid.
        self._last, self._is_over = Moment(point, logged_step(trainer)), is_due
        return self._last if is_due else None
