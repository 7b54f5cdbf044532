"""The losses of a training, kept at next to no cost: on their device, and read in blocks."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor

from lit_xai.structure.schema import NonNegative, Row, entries
from lit_xai.trainer.saved_state import AnyNumber
from lit_xai.trainer.wreck import median

WINDOW = 50
"""How many losses a median is taken of, and are read at a time: a step that waited for the device would be slower."""

FIRST = 5
"""How many losses stand for the untrained network, and for the first reaction to a change."""


@dataclass
class Mark:
    """A place in a history at which something changed.

    Args:
        count: the losses before it.
        before: the last of them; where there are too few, the first ones of the run.
        shock: the first ones after it.
    """

    count: int
    before: list[float]
    shock: list[float] = field(default_factory=list)


STATE = entries(
    {
        "count": NonNegative,
        "first": list[AnyNumber],
        "recent": list[AnyNumber],
        "lowest": AnyNumber,
        "marks": list[Annotated[Any, Row((NonNegative, list[AnyNumber], list[AnyNumber]))]],
    }
)
"""What :meth:`LossHistory.state` returns."""


class LossHistory:
    """What the losses of a run were: at its start, around each mark, and lately.

    Example:
        >>> history = LossHistory()
        >>> for value in (2.3, 2.1, 1.9):
        ...     history.add(torch.tensor(value))
        >>> history.read()
        >>> history.count, [round(value, 1) for value in history.late(4)]
        (3, [2.1, 1.9])
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[float] = []
        self.recent: list[float] = []
        self.lowest = float("inf")
        self.marks: list[Mark] = []
        self._block: list[Tensor] = []
        self._last_epoch: list[float] = []

    def add(self, loss: Tensor) -> None:
        """Add the loss of a step; nothing is read from its device."""
        if self._block and self._block[0].device != loss.device:
            self.read()
        # A copy, as compiled code with CUDA graphs writes the next loss to the same memory.
        self._block.append(loss.detach().clone())
        if len(self._block) == WINDOW:
            self.read()

    def read(self) -> None:
        """Read what was added since the last time."""
        if not self._block:
            return
        values = torch.cat([loss.reshape(1) for loss in self._block]).tolist()
        self._block = []
        last_epoch, self._last_epoch = self._last_epoch, []
        if last_epoch and len(values) >= 3:
            self._follow_jump(last_epoch, values[:3])
        self.count += len(values)
        self.first += values[: max(0, FIRST - len(self.first))]
        self.recent = (self.recent + values)[-WINDOW:]
        if len(self.recent) == WINDOW:
            self.lowest = min(self.lowest, median(self.recent))
        if self.marks:
            self.marks[-1].shock += values[: max(0, FIRST - len(self.marks[-1].shock))]

    def mark(self) -> None:
        """Remember this place."""
        self.read()
        # At most half of a short history, whose first losses are still falling from the untrained network's.
        size = min(WINDOW, max(FIRST, self.count // 2))
        self.marks.append(Mark(self.count, self.recent[-size:] if self.count >= FIRST else []))

    def start_epoch(self) -> None:
        """Keep the end of an epoch for the comparison with the start of the next one."""
        self.read()
        # A jump after a mark is its effect.
        is_marked = bool(self.marks) and self.marks[-1].count == self.count
        self._last_epoch = [] if is_marked else self.recent[-10:]

    def before(self, mark: Mark) -> list[float]:
        """Return the losses before a mark; if there were too few, the first ones of the run."""
        return mark.before or self.first

    def since(self, mark: Mark) -> int:
        """Return how many losses followed a mark."""
        return self.count - mark.count

    def late(self, steps: int) -> list[float]:
        """Return the later half of so many last losses, a window of them at most: the earlier half is for recovery."""
        return self.recent[-min(WINDOW, max(1, steps // 2)) :]

    def _follow_jump(self, last_epoch: list[float], values: list[float]) -> None:
        """Shift what is remembered if the loss jumps from one epoch to the next: it has another term from there on.

        A training that diverges takes several steps, and the first loss of an epoch is still one of the old weights.
        """
        gap = max(min(values) - max(last_epoch), min(last_epoch) - max(values))
        progress = median(self.first) - median(last_epoch)
        # A training that was above its start is diverging, and has no level.
        if progress < -abs(median(self.first)):
            return
        if gap > max(0.5 * progress, max(last_epoch) - min(last_epoch)) and gap < float("inf"):
            shift = median(values) - median(last_epoch)
            self.lowest += shift
            self.first = [value + shift for value in self.first]
            for mark in self.marks:
                mark.before = [value + shift for value in mark.before]
                mark.shock = [value + shift for value in mark.shock]

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        self.read()
        marks = [[mark.count, list(mark.before), list(mark.shock)] for mark in self.marks]
        return {"count": self.count, "first": self.first, "recent": self.recent, "lowest": self.lowest, "marks": marks}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "LossHistory":
        """Return the history with this state."""
        history = cls()
        history.count, history.lowest = state["count"], state["lowest"]
        history.first, history.recent = list(state["first"]), list(state["recent"])
        history.marks = [Mark(count, list(before), list(shock)) for count, before, shock in state["marks"]]
        return history
