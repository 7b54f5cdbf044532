"""The base of callbacks that a training may not survive: they say so when it does not."""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_xai.trainer.access import callbacks_of, rank_zero_warn
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.loss_watch import Change, LossWatch

KEY = "lit_xai_losses"
"""Where a checkpoint holds the watch of its run."""


class WatchedCallback(AnyCallback):
    """Warn once, with what to do about it, if this callback or another of the library has wrecked a training.

    The loss that is trained on is compared: its median over 50 steps before a change (a cut, the start of
    quantization) with that over up to 50 steps after it, when half of the steps since were for recovery, and with the
    untrained network's. A training is wrecked if it has lost 60% of what it had learned at the end of the run, or 90%
    after 500 steps without a sign of recovery, or as soon as its losses are no numbers any more. With a teacher, whose
    terms change the loss, the module's own loss counts, and the distance from the teacher: one of them has to have
    fallen by a fifth since the start.

    All callbacks of a Trainer share one watch, which only reads: a run with it is bit for bit the run without it, at a
    cost of tens of microseconds a step, and nothing it meets ends a run. It needs no validation loader, and works with
    manual optimization through ``self.manual_backward``. Under DDP it reads the losses of the first process.

    What it does not see: a metric that falls while the training loss does not; a loss that rises again long after it
    had recovered by less than this; two losses of which only one is lost (opponents rise and fall by turns); a change
    in the last 30 steps of a run; a change before the first step, unless losses rise from then on; a student of a
    running average that learns nothing.

    A subclass calls ``super()`` in the hooks that it overrides, and :meth:`say_change` when it changes something.
    """

    remedy: ClassVar[str] = "Make the change smaller, make it later, or lower the learning rate from there on."
    """What users of this callback can do about a wrecked training, in a sentence or two."""

    _watch: LossWatch | None = None
    _is_first = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Share the watch of the callbacks before this one, or begin one."""
        guard(trainer)
        if stage == "fit":
            earlier = itertools.takewhile(lambda one: one is not self, callbacks_of(trainer))
            shared = next((one._watch for one in earlier if isinstance(one, WatchedCallback) and one._watch), None)
            self._is_first = shared is None
            self._watch = (shared or LossWatch()) if trainer.is_global_zero and self.is_watched() else None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the Trainer as it was."""
        unguard(trainer)

    def is_watched(self) -> bool:
        """Return whether this callback changes anything that a training may not survive."""
        return True

    def say_change(self, where: str, is_teacher: bool = False) -> None:
        """Tell the watch that this callback changes something.

        Args:
            where: in words, ``"at the start of epoch 4"``.
            is_teacher: a teacher's terms are added to the loss from here on.
        """
        change = Change(type(self).__name__, where, self.remedy, is_teacher)
        if self._watch is not None and not (is_teacher and change in self._watch.changes):  # in a resumed run
            self._observe(self._watch.change, change)

    def say_taught(self, own: Tensor, distance: Tensor | None) -> None:
        """Tell the watch a step's own loss before a backward pass of a loss that is mixed with a teacher's.

        Args:
            own: the loss of the module's own step.
            distance: from the teacher; ``None`` if that does not tell how much was learned.
        """
        if self._watch is not None:
            self._observe(self._watch.teach, own, distance)

    # --- what Lightning calls -----------------------------------------------------------------------------------------

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue the watch of a resumed run."""
        if self._is_first and self._watch is not None and KEY in checkpoint:
            try:
                self._watch.load_state(checkpoint[KEY])
            except ValueError as error:
                rank_zero_warn(f"{error} It only observes: training continues, and it starts afresh.")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the watch's state, of a few hundred numbers."""
        if self._is_first and self._watch is not None:
            checkpoint[KEY] = self._observe(self._watch.state)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Say what the losses up to here tell."""
        if self._is_first and self._watch is not None:
            self._observe(self._watch.start_batch, batch_idx == 0)
            self._warn()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Read the loss."""
        if self._is_first and self._watch is not None:
            self._observe(_add, self._watch, trainer, loss)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what the losses of the run tell."""
        if self._is_first and self._watch is not None:
            self._warn(at_end=True)

    def _warn(self, at_end: bool = False) -> None:
        assert self._watch is not None  # checked by the callers
        verdict = self._observe(self._watch.verdict, at_end)
        if verdict is not None:
            rank_zero_warn(verdict)

    def _observe(self, action: Callable[..., Any], *args: Any) -> Any:
        """Do something that must not end the run."""
        try:
            return action(*args)
        except Exception as error:
            self._watch = None
            failure = f"{type(error).__name__}: {error}"
        rank_zero_warn(
            f"{type(self).__name__} cannot read the training loss ({failure}): a wrecked training goes unnoticed."
        )
        return None


def _add(watch: LossWatch, trainer: Trainer, loss: Tensor) -> None:
    """Add a loss as the training step returned it."""
    loss = loss.detach()
    # Lightning's hook comes after the scaling of mixed precision, and after the division by accumulated batches, which
    # a scheduler may change on the way. GradScaler.get_scale would wait for the device, its scale of a one does not.
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None:
        loss = loss / scaler.scale(torch.ones_like(loss))
    if trainer.lightning_module.automatic_optimization and trainer.accumulate_grad_batches > 1:
        loss = loss * trainer.accumulate_grad_batches
    watch.add(loss)
