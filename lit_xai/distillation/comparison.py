"""Comparison of student and teacher on the same validation batches, which warns of a teacher that is worse."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_xai.distillation.teacher import Teacher
from lit_xai.network.calling import OutputSpec, find_logits
from lit_xai.network.outputs import class_dim
from lit_xai.network.recording import Call
from lit_xai.trainer.access import logged_step, rank_zero_warn
from lit_xai.trainer.logging import log_scalars

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Comparison:
    """Accuracy (of classes) or mean squared error (of numbers), of the teacher once and of the student every epoch.

    Attributes:
        teacher: the teacher's metric; ``None`` until it is known.
    """

    def __init__(self) -> None:
        self.teacher: float | None = None
        self._name = ""
        self._is_warned = False
        self._sums: Tensor | None = None

    @property
    def is_over(self) -> bool:
        """Whether the warning was given, after which nothing is compared."""
        return self._is_warned

    def start(self) -> None:
        """Begin an epoch."""
        self._sums = None

    def update(self, calls: Sequence[Call], target: Tensor, output: OutputSpec, teacher: Teacher) -> None:
        """Update both metrics with a validation batch; one that has no such metric is skipped.

        Args:
            calls: of the student's network.
            target: classes, or numbers shaped like the outputs.
            output: where the student's logits are.
            teacher: called with the same inputs, unless its metric is known.
        """
        for call in calls:
            score = _score(find_logits(call.result, output), target)
            if score is None:
                return
            self._name, of_student = score
            of_teacher = of_student.new_zeros(())
            if self.teacher is None:
                found = _score(teacher.logits(call), target)
                if found is None:
                    return
                of_teacher = found[1]
            # Kept on the device: reading a number in every batch would wait for it.
            sums = torch.stack([of_student, of_teacher, of_student.new_tensor(float(len(target)))])
            self._sums = sums if self._sums is None else self._sums + sums

    def end(self, trainer: "Trainer", tag: str) -> None:
        """Log the teacher's metric once, and warn if it is worse than the student's; call it on every process.

        Args:
            trainer: in ``on_validation_epoch_end``.
            tag: prefix of the metric's name.
        """
        if self._sums is None:
            return
        # Sums and counts are reduced rather than means, as ranks may have seen different numbers of samples.
        sums: Any = trainer.strategy.reduce(self._sums, reduce_op="sum")
        of_student, of_teacher, n = sums.tolist()
        student = of_student / n
        if self.teacher is None:
            self.teacher = of_teacher / n
            log_scalars(trainer, {f"{tag}/teacher_{self._name}": self.teacher}, logged_step(trainer))
        # Higher accuracy is better, lower squared error.
        is_behind = student > self.teacher if self._name == "accuracy" else student < self.teacher
        if is_behind and not self._is_warned:
            self._is_warned = True
            rank_zero_warn(
                f"KnowledgeDistillation: the student is ahead of its teacher, {self._name} {student:.4g} against"
                f" {self.teacher:.4g} on the validation data: lower alpha from here on, or use another teacher."
            )


def _score(logits: Tensor, target: Tensor) -> tuple[str, Tensor] | None:
    """Return the sum over samples of correct answers or of squared errors; ``None`` if the shapes allow neither."""
    logits = logits.detach().float()  # MPS has no float64
    if class_dim(logits, target) != 1:
        return None  # tokens may be labeled by those that follow them, of which only the loss knows
    if not target.is_floating_point() and logits.dim() == target.dim() + 1 and logits.shape[1] > 1:
        correct = (logits.argmax(1) == target).float()
        return "accuracy", correct.flatten(1).mean(1).sum() if correct.dim() > 1 else correct.sum()
    if target.is_floating_point() and logits.numel() == target.numel():
        return "mse", (logits.reshape(len(target), -1) - target.reshape(len(target), -1)).square().mean(1).sum()
    return None
