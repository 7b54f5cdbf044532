"""How long a run is, and how many steps its first optimizer has taken."""

import math
from typing import Any

from lightning.pytorch import Trainer

from lit_xai.trainer.access import callbacks_of, is_a
from lit_xai.trainer.scheduling import Point, RunLength, Unit
from lit_xai.trainer.structure_change import bare_optimizers


def run_length(trainer: Trainer) -> RunLength:
    """Return the length of a run, as ``trainer.estimated_stepping_batches`` gives it, and in epochs.

    With several optimizers, steps are those of the first; each of them is taken to step once a batch, since nobody can
    know beforehand what a module does in manual optimization. Accumulation that changes by a
    ``GradientAccumulationScheduler`` is followed.

    Args:
        trainer: from ``on_train_start`` on, when its loaders exist.
    """
    is_automatic = trainer.lightning_module.automatic_optimization
    epochs = _limit(trainer.max_epochs)
    most = _limit(trainer.max_steps)
    if most is not None and not is_automatic:  # max_steps counts the steps of all optimizers
        most = math.ceil(most / max(1, len(trainer.optimizers)))
    batches = trainer.num_training_batches
    accumulated = _accumulated(trainer, epochs or 1)
    lengths = None if math.isinf(batches) else [math.ceil(batches / each) for each in accumulated]
    one = lengths[0] if is_automatic and lengths is not None and len(set(accumulated)) == 1 else None
    by_epochs = None if lengths is None or epochs is None else sum(lengths)
    ends_by_steps = most is not None and (by_epochs is None or most < by_epochs)
    steps = most if ends_by_steps else by_epochs
    return RunLength(epochs, steps, one, "step" if ends_by_steps or epochs in (None, 1) else "epoch")


def length_ahead(trainer: Trainer) -> RunLength | None:
    """Return the length of a run of several epochs, before its data are known; ``None`` for one that ends by steps.

    Args:
        trainer: in ``setup``.
    """
    epochs = _limit(trainer.max_epochs)
    return None if epochs in (None, 1) or _limit(trainer.max_steps) is not None else RunLength(epochs, is_final=False)


def _limit(most: int | None) -> int | None:
    return None if most is None or most < 0 else most


def _accumulated(trainer: Trainer, epochs: int) -> list[int]:
    """Return how many batches make a step, in each epoch."""
    for callback in callbacks_of(trainer):
        if is_a(callback, "GradientAccumulationScheduler"):
            return [callback.get_accumulate_grad_batches(epoch) for epoch in range(epochs)]
    return [trainer.accumulate_grad_batches] * epochs


def is_within_epoch(trainer: Trainer) -> bool:
    """Return whether batches of the present epoch have been used; asked at the start of an epoch or a batch."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    # At the start of an epoch these are still those of the last one, which are all complete.
    return batches.ready > batches.completed > 0


class Progress:
    """Where a run is: its epoch, and the steps that its first optimizer has taken.

    ``trainer.global_step`` counts those of all optimizers, and no public name of Lightning tells them apart: in manual
    optimization they are counted here. A step has been taken at the end of its batch, so the start of the next one is
    always between two steps, and never within accumulated gradients.
    """

    def __init__(self) -> None:
        self._own: int | None = None
        self._depth = 0
        self._handles: list[Any] = []

    def start(self, trainer: Trainer, known: int | None = None) -> None:
        """Begin to count; call it in ``on_train_start``.

        Args:
            trainer: its optimizers are built.
            known: the steps in the state of a run that is resumed.
        """
        self.stop()
        self._own, self._depth = None, 0
        optimizers = bare_optimizers(trainer)
        if trainer.lightning_module.automatic_optimization or not optimizers:
            return
        # A checkpoint that was saved without this counter says only what all optimizers did together.
        self._own = trainer.global_step // len(optimizers) if known is None else known
        before = optimizers[0].register_step_pre_hook(self._begin)
        self._handles = [before, optimizers[0].register_step_post_hook(self._end)]

    def stop(self) -> None:
        """Leave the optimizer as it was; the count stays for a checkpoint that is saved after the run."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, *_: Any) -> None:
        self._depth += 1

    def _end(self, *_: Any) -> None:
        assert self._own is not None  # set with the hooks
        # A subclass that calls super().step() runs the hooks twice, one pair inside the other.
        self._depth -= 1
        self._own += self._depth == 0

    def steps(self, trainer: Trainer) -> int:
        """Return the steps of the first optimizer so far."""
        return trainer.global_step if self._own is None else self._own

    def point(self, trainer: Trainer, unit: Unit) -> Point:
        """Return the present epoch or step."""
        return Point(trainer.current_epoch if unit == "epoch" else self.steps(trainer), unit)
