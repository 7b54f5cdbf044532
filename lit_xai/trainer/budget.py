"""The time that an observer takes, held against that of the run."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Budget:
    """The time of a run, of its evaluations, and of what is measured once.

    Args:
        share: the largest share of the run's own time for evaluations.
        once: the share for what is measured once at the end.

    Attributes:
        recurring_seconds: of evaluations so far.
        once_seconds: of what is measured once.
    """

    def __init__(self, share: float, once: float) -> None:
        self._share, self._once = share, once
        self.start({})

    def start(self, resumed: Mapping[str, Any]) -> None:
        """Begin to count.

        Args:
            resumed: the :meth:`state` of the run that is resumed.
        """
        self._began = time.monotonic()
        self._before = float(resumed.get("run_seconds", 0.0))
        self.recurring_seconds = float(resumed.get("recurring_seconds", 0.0))
        self.once_seconds = float(resumed.get("once_seconds", 0.0))
        self._taken = 0.0  # in this process, by this observer
        self._last = 0.0
        self._open: float | None = None  # since when something is measured once

    @property
    def run_seconds(self) -> float:
        """The time of the run itself."""
        now = time.monotonic() if self._open is None else self._open
        return self._before + now - self._began - self._taken

    @contextmanager
    def recurring(self) -> Iterator[None]:
        """Count the body as an evaluation."""
        before = self.recurring_seconds
        with self.extra():
            yield
        self._last = self.recurring_seconds - before

    @contextmanager
    def extra(self) -> Iterator[None]:
        """Count the body with the evaluations, but not as one: what may be left out while they go on."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.recurring_seconds += self._take(began)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Count the body as something that is measured once."""
        began = self._open = time.monotonic()
        try:
            yield
        finally:
            self._open = None
            self.once_seconds += self._take(began)

    def _take(self, began: float) -> float:
        seconds = time.monotonic() - began
        self._taken += seconds
        return seconds

    def allows_another(self) -> bool:
        """Return whether one more evaluation like the last one keeps within the share."""
        return self.recurring_seconds + self._last <= self._share * self.run_seconds or not self._last

    def allows(self, seconds: float) -> bool:
        """Return whether evaluations keep within the share with so many seconds more."""
        return self.recurring_seconds + seconds <= self._share * self.run_seconds

    def allowed_once(self, done: float = 1.0) -> float:
        """Return the seconds that may be spent once.

        Args:
            done: the share of the run that is over.
        """
        return self._once * self.run_seconds / done

    def left_once(self, done: float = 1.0) -> float:
        """Return the seconds of these that are not spent yet, also not by the body of an open :meth:`once`.

        Args:
            done: the share of the run that is over.
        """
        spent = 0.0 if self._open is None else time.monotonic() - self._open
        return max(0.0, self.allowed_once(done) - self.once_seconds - spent)

    def share_of(self, seconds: float, done: float = 1.0) -> float:
        """Return the share of the run that what is measured once takes, with so many seconds more.

        Args:
            seconds: besides those that are spent.
            done: the share of the run that is over.
        """
        spent = self.once_seconds + (0.0 if self._open is None else time.monotonic() - self._open)
        return (spent + seconds) * done / max(self.run_seconds, 1e-9)

    def sentence(self) -> str:
        """Return in words what was taken.

        Example:
            >>> Budget(1.0, 1.0).sentence()
            "0.0 s, 0% of the run's own time"
        """
        seconds = self.recurring_seconds + self.once_seconds
        return f"{seconds:.1f} s, {sum(self.shares().values()):.0%} of the run's own time"

    def state(self) -> dict[str, float]:
        """Return the times for a resumed run."""
        return {
            "run_seconds": self.run_seconds,
            "recurring_seconds": self.recurring_seconds,
            "once_seconds": self.once_seconds,
        }

    def shares(self) -> dict[str, float]:
        """Return the shares of the run's own time that were taken."""
        run = max(self.run_seconds, 1e-9)
        return {"evaluations": self.recurring_seconds / run, "once": self.once_seconds / run}
