"""Find out whether a change of the network, or a teacher, has wrecked a training: from the losses it is trained on."""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from torch import Tensor

from lit_xai.structure.schema import Of, check_schema, entries
from lit_xai.trainer.loss_history import FIRST, STATE, LossHistory
from lit_xai.trainer.wreck import has_learned, lost_share, median

RECOVERED = 500
"""Steps after which a training that has lost nearly everything is no longer expected to recover by itself."""

ENOUGH = 30
"""Steps after the last change that a verdict at the end of a run needs."""

ENOUGH_TAUGHT = 100
"""Steps of a run, at whose end a student should have learned something."""

LOST, NEARLY_ALL = 0.6, 0.9
"""Shares of what was learned that are lost: at the end of a run, and while it may still recover.

In 66 healthy runs of 40 to 2,600 steps (cuts of 70%, integers of 3 bits) at most 0.3 were lost for good, and 0.53 by a
cut 40 steps before the end; 26 wrecked ones lost 0.8 and more.
"""

LAST = 16
"""Losses at the end of a run that are lost by themselves: a training may diverge shortly before its end."""

MOST = 8
"""Backward passes of one batch whose losses are watched."""


@dataclass(frozen=True)
class Change:
    """A change of a callback that a training may not survive.

    Args:
        callback: the name of its class.
        where: in words, ``"at the start of epoch 4"``.
        remedy: what its users can do, in one sentence or two.
        is_teacher: the callback adds a teacher, and changes the loss itself.
    """

    callback: str
    where: str
    remedy: str
    is_teacher: bool = False


_CHANGE = entries({"callback": str, "where": str, "remedy": str, "is_teacher": bool})
_STATE = entries(
    {
        "changes": list[Annotated[Any, Of(_CHANGE)]],
        "is_over": bool,
        "histories": list[Annotated[Any, Of(STATE)]],
        "teacher": STATE,
    }
)


class LossWatch:
    """The losses of one run, the changes on the way, and the verdict.

    Each backward pass of a batch has its own history: with two optimizers, each has its own loss. Only a change after
    which all of them are lost counts, as losses of opponents rise and fall by turns.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.is_over = False
        self._histories: list[LossHistory] = []
        self._teacher = LossHistory()
        self._own: Tensor | None = None
        self._place = 0
        self._judged = 0

    # --- what happens in the run --------------------------------------------------------------------------------------

    def change(self, change: Change) -> None:
        """Remember a change at this place of the run."""
        self.changes.append(change)
        for history in self._histories:
            history.mark()

    def start_batch(self, starts_epoch: bool) -> None:
        """Expect the losses of the next batch."""
        self._place, self._own = 0, None
        if starts_epoch:
            for history in self._histories:
                history.start_epoch()

    def teach(self, own: Tensor, distance: Tensor | None) -> None:
        """Take a step's own loss in place of the next one that is added, which is mixed with a teacher's.

        Args:
            own: the loss of the module's own step.
            distance: from the teacher; ``None`` for one whose distance does not tell how much was learned.
        """
        if self._own is None:  # of several teachers, the first one is given the step's own
            self._own = own
            if distance is not None and not self.is_over:
                self._teacher.add(distance)

    def add(self, loss: Tensor) -> None:
        """Add the loss of a backward pass."""
        own, self._own = self._own, None
        if self.is_over or self._place >= MOST:
            return
        if self._place == len(self._histories):
            self._histories.append(LossHistory())
            for _ in self.changes:
                self._histories[-1].mark()
        self._histories[self._place].add(loss if own is None else own)
        self._place += 1

    # --- the verdict --------------------------------------------------------------------------------------------------

    def verdict(self, at_end: bool = False) -> str | None:
        """Return what a wrecked training is told, once; ``None`` for one that is well, or of which nothing is certain.

        Args:
            at_end: the run is over, and nothing can recover any more.
        """
        seen = sum(history.count for history in self._histories)
        if self.is_over or not self.changes or (seen == self._judged and not at_end):
            return None
        self._judged = seen
        for history in [*self._histories, self._teacher] if at_end else []:
            history.read()
        place = self._wrecked_by(at_end)
        if place is None:
            return None
        self.is_over = True
        return self._in_words(place, at_end)

    def _wrecked_by(self, at_end: bool) -> int | None:
        """Return the place of the change that did it: of those before which losses were better, the steepest rise."""
        places = [
            place for place in range(len(self.changes)) if self._is_diverged(place) or self._is_lost(place, at_end)
        ]
        return max(places, key=lambda place: self._rise(place, at_end), default=None)

    def _rise(self, place: int, at_end: bool) -> float:
        """Return how far the loss has risen up to the next change."""

        def rise(history: LossHistory) -> float:
            following = history.marks[place + 1 :]
            then = history.before(following[0]) if following else self._after(history, at_end)
            return median(then) - median(history.before(history.marks[place]))

        return max(rise(history) for history in self._histories)

    def _is_diverged(self, place: int) -> bool:
        for history in self._histories:
            mark, after = history.marks[place], history.recent[-FIRST:]
            if history.since(mark) >= FIRST and not any(math.isfinite(value) for value in after):
                return math.isfinite(median(history.before(mark)))
        return False

    def _is_lost(self, place: int, at_end: bool) -> bool:
        if self.changes[place].is_teacher:
            return at_end and self._is_taught_nothing()
        least, limit = (ENOUGH, LOST) if at_end else (RECOVERED, NEARLY_ALL)
        shares = [
            lost_share(
                history.first, history.before(mark := history.marks[place]), mark.shock, self._after(history, at_end)
            )
            for history in self._histories
            # Since the last change: the network is given time to recover from that one.
            if history.since(history.marks[-1]) >= least
        ]
        # A student may leave its own loss for the teacher's answers, as with labels that are wrong.
        return bool(shares) and min(shares) >= limit and not (self._teacher.count >= ENOUGH and self._follows_teacher())

    def _after(self, history: LossHistory, at_end: bool) -> list[float]:
        """Return the losses after the last change, without those of its recovery."""
        late = history.late(history.since(history.marks[-1]))
        return max(late, history.recent[-LAST:], key=median) if at_end else late

    def _follows_teacher(self) -> bool:
        return has_learned(self._teacher.first, self._teacher.lowest, self._teacher.late(self._teacher.count))

    def _is_taught_nothing(self) -> bool:
        if self._teacher.count < ENOUGH_TAUGHT or self._follows_teacher():
            return False
        return not any(has_learned(one.first, one.lowest, one.late(one.count)) for one in self._histories)

    def _in_words(self, place: int, at_end: bool) -> str:
        change = self.changes[place]
        # The loss that shows it most.
        history = max(self._histories, key=lambda one: median(self._after(one, at_end)))
        mark = history.marks[place]
        before, after, steps = history.before(mark), self._after(history, at_end), history.since(mark)
        when = f"in the {len(before)} steps before" if mark.before else f"in the first {len(before)} steps"
        now = f"{median(after):.3g} in the last {len(after)}, {steps} steps later"
        words = [
            f"{change.callback} has wrecked this training, {change.where}.",
            f"The training loss{' of the step itself' if self._teacher.count else ''} was {median(before):.3g} {when}"
            f" (median), and is {now if math.isfinite(median(after)) else f'no finite number {steps} steps later'}.",
        ]
        if change.is_teacher and math.isfinite(median(after)):
            start, end = median(self._teacher.first), median(self._teacher.late(self._teacher.count))
            words.append(f"The distance from the teacher was {start:.3g}, and is {end:.3g}.")
        # A teacher takes part in whatever another change did.
        remedies = [change.remedy, *(other.remedy for other in self.changes if other.is_teacher)]
        return " ".join([*words, *dict.fromkeys(remedies)])

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "changes": [asdict(change) for change in self.changes],
            "is_over": self.is_over,
            "histories": [history.state() for history in self._histories],
            "teacher": self._teacher.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from such a state.

        Raises:
            ValueError: it is damaged; names the entry. Nothing is changed then.
        """
        check_schema(state, _STATE, "the watch of losses in the checkpoint")
        n = len(state["changes"])
        other = next((len(one["marks"]) for one in state["histories"] if len(one["marks"]) != n), None)
        if other is not None:
            raise ValueError(f"The watch of losses in the checkpoint expected {n} marks of changes, but got {other}.")
        self.changes = [Change(**change) for change in state["changes"]]
        self.is_over = state["is_over"]
        self._histories = [LossHistory.of(one) for one in state["histories"]]
        self._teacher = LossHistory.of(state["teacher"])
