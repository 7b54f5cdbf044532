"""Student and teacher on the same validation batches: a teacher that knows less is worth a word."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_xai.distillation.teacher import Teacher
from lit_xai.network.calling import OutputSpec, find_logits
from lit_xai.network.recording import Call
from lit_xai.trainer.access import logged_step
from lit_xai.trainer.logging import log_scalars


class Comparison:
    """Accuracy (of classes) or mean squared error (of numbers), of the teacher once and of the student every epoch."""

    def __init__(self) -> None:
        self.teacher: float | None = None
        self._name = ""
        self._is_warned = False
        self._sums: Tensor | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to find out."""
        return self._is_warned

    def start(self) -> None:
        """Begin an epoch."""
        self._sums = None

    def update(self, calls: Sequence[Call], target: Tensor, output: OutputSpec, teacher: Teacher) -> None:
        """Take in a batch of the validation.

        Args:
            calls: of the student's network.
            target: classes, or numbers shaped like the outputs.
            output: where the student's logits are.
            teacher: asked the same, unless its own metric is known.
        """
        for call in calls:
            student = find_logits(call.result, output)
            ours = _score(student, target)
            if ours is None:
                return
            self._name, mine = ours
            theirs = mine.new_zeros(()) if self.teacher is not None else _score(teacher.logits(call), target)[1]  # type: ignore[index]  # its logits are of the same kind
            sums = torch.stack([mine, theirs, mine.new_tensor(float(len(target)))])
            self._sums = sums if self._sums is None else self._sums + sums

    def end(self, trainer: Trainer, tag: str) -> None:
        """Log the teacher's metric, once, and warn of one that is behind; call it on every process."""
        if self._sums is None:
            return
        sums: Any = trainer.strategy.reduce(self._sums, reduce_op="sum")
        student, theirs, n = sums.tolist()
        student /= n
        if self.teacher is None:
            self.teacher = theirs / n
            log_scalars(trainer, {f"{tag}/teacher_{self._name}": self.teacher}, logged_step(trainer))
        is_behind = student > self.teacher if self._name == "accuracy" else student < self.teacher
        if is_behind and not self._is_warned:
            self._is_warned = True
            rank_zero_warn(
                f"KnowledgeDistillation: the student is ahead of its teacher, {self._name} {student:.4g} against"
                f" {self.teacher:.4g} on the validation data: lower alpha from here on, or take another teacher."
            )


def _score(logits: Tensor, target: Tensor) -> tuple[str, Tensor] | None:
    """Return the sum over samples of right answers, or of squared errors; ``None`` where they cannot be compared."""
    logits = logits.detach().float()  # MPS has no float64
    if not target.is_floating_point() and logits.dim() == target.dim() + 1 and logits.shape[1] > 1:
        right = (logits.argmax(1) == target).float()
        return "accuracy", right.flatten(1).mean(1).sum() if right.dim() > 1 else right.sum()
    if target.is_floating_point() and logits.numel() == target.numel():
        return "mse", (logits.reshape(len(target), -1) - target.reshape(len(target), -1)).square().mean(1).sum()
    return None
