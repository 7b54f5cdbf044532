"""The base of callbacks that change the structure of a module during training."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NotRequired

from lightning.pytorch import LightningModule, Trainer

from lit_xai.network.spec import Network
from lit_xai.structure.attachment import attach, detach, take_step_
from lit_xai.structure.kinds import Step
from lit_xai.structure.recipe import recipe_of, save_structure_
from lit_xai.structure.schema import NonNegative, entries
from lit_xai.structure.twins import Twins
from lit_xai.trainer.access import callbacks_of, rank_zero_warn, refuse_strategies
from lit_xai.trainer.best import find_best_again, start_over
from lit_xai.trainer.progress import Progress
from lit_xai.trainer.random_states import RANDOM_STATES, gathered_states, renew_batches_, restore_random_states_
from lit_xai.trainer.saved_state import FIX, check_saved_state, check_state
from lit_xai.trainer.scheduling import Point, RunLength, Unit
from lit_xai.trainer.structure_change import averaged_copies, bare_optimizers, change_structure, refuse_masks
from lit_xai.trainer.watched_callback import WatchedCallback
from lit_xai.trainer.watching import seen_in_step


class StructuralCallback(WatchedCallback):
    """Change the structure of any LightningModule in ``fit``, such that every checkpoint of the run loads again.

    A subclass overrides :meth:`change`, which is called at the start of each training epoch, and there calls
    :meth:`take_step` when a structural step is due. With ``unit = "step"`` it is called between any two steps of the
    first optimizer as well. This class does the rest: optimizers, schedulers, gradient scalers, averaged
    copies, DDP and compiled code continue with the new parameters; checkpoints hold the recipe, the order of the
    optimizers' parameters and the states of the random generators, so that a resumed run continues bit for bit;
    ModelCheckpoint's ranking, EarlyStopping's patience and ReduceLROnPlateau restart; a training that a step has
    wrecked is told so, with the ``remedy`` of the subclass; nothing stays on the module afterwards. Further state of a
    run goes through :meth:`state` and :meth:`load_state`.

    A subclass that overrides a hook of Lightning calls ``super()`` in it.

    Example:
        >>> class HalveOnce(StructuralCallback):
        ...     def change(self, trainer, pl_module):
        ...         if trainer.current_epoch == 3:
        ...             self.take_step(trainer, pl_module, {"kind": "my_package.halve", "layer": "network.0"})
        >>> HalveOnce().last_change(RunLength(epochs=10)) is None
        True
    """

    unit: Unit = "epoch"
    """When :meth:`change` is called: at the start of each epoch, or also between steps of the first optimizer."""

    state_entries: ClassVar[Mapping[str, Any] | None] = None
    """The types of what :meth:`state` returns, by entry, as for
    :func:`~lit_xai.structure.kinds.check_entries`; ``None`` if :meth:`load_state` checks it itself."""

    instead_of_sharding: ClassVar[str] = "train on one device"
    """What to do with a network that is too large for one process, for the refusal of such strategies."""

    before_step: "Callable[[StructuralCallback], bool] | None" = None
    """Asked with this callback before it takes a step, on every process. Where it returns ``False`` it has brought the
    module back to an earlier moment: the step is not taken, and :meth:`change` begins anew unless it was
    :meth:`stopped <stop>`."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = ""
        self._resumed: dict[str, Any] | None = None
        self._progress = Progress()
        self._last_seen: Point | None = None
        self._has_begun = False
        self._twins: Twins | None = None
        self._compared: dict[str, str] = {}

    # --- for subclasses -----------------------------------------------------------------------------------------------

    def change(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the structural steps that are due now, see :meth:`now`; called on every process.

        Args:
            trainer: in ``on_train_epoch_start``, or with ``unit = "step"`` in ``on_train_batch_start``, when the steps
                of the optimizers up to here are complete and the batch has not been used.
            pl_module: its module.
        """

    def now(self, trainer: Trainer) -> Point:
        """Return the present epoch, or with ``unit = "step"`` how many steps the first optimizer has taken."""
        return self._progress.point(trainer, self.unit)

    def last_change(self, run: RunLength) -> Point | int | None:
        """Return the point of the last structural step, ``None`` if it is not known beforehand; an integer is an epoch.

        Callbacks whose steps must come later, such as quantization, refuse a plan that contradicts it.

        Args:
            run: the length of the run.
        """
        return None

    def changes_structure(self) -> bool:
        """Return whether this callback takes steps, which a ``"dense"`` teacher waits for."""
        return True

    def is_watched(self) -> bool:
        """Return whether it takes steps."""
        return self.changes_structure()

    def state(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return further state for a resumed run, as plain values and tensors."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned in the run that is resumed; it has the :attr:`state_entries`."""

    def take_step(self, trainer: Trainer, pl_module: LightningModule, *steps: Step) -> None:
        """Take steps one after the other; call it from :meth:`change`, on every process.

        Args:
            trainer: as in :meth:`change`.
            pl_module: its module.
            steps: the same on every process. Where they depend on data, decide in one process and use
                ``trainer.strategy.broadcast(step)``.

        Raises:
            ValueError: a step does not fit the module, or comes too late.
        """
        if self.before_step is not None and not self.before_step(self):
            raise _SteppedBack
        label = recipe_of(pl_module).label
        self.say_change(f"by its step {self.now(trainer).place}")
        for step in steps:
            change_structure(trainer, pl_module, self._with_twins(trainer, step))
        start_over(trainer, label)

    def _with_twins(self, trainer: Trainer, step: Step) -> Step:
        """Return a step that also cuts target networks, and whatever else follows the weights of what it cuts."""
        if self._twins is None:
            return step
        for name, model in self._twins.resting(step).items() if trainer.global_step == 0 else ():
            rank_zero_warn(
                f"{type(self).__name__} cuts {model!r} before the first step and leaves {name!r} whole, which has the"
                " same architecture and is not trained: if that follows the weights of the other, as a target network"
                " does, cut later (start_epoch=1)."
            )
        return self._twins.in_step(step)

    def stop(self, reason: str) -> None:
        """Take no further step in this run, nor in one that resumes it.

        Args:
            reason: kept as ``stopped``; not empty.
        """
        self.stopped = reason

    def _change(self, trainer: Trainer, pl_module: LightningModule) -> None:
        while not self.stopped:
            try:
                return self.change(trainer, pl_module)
            except _SteppedBack:  # what it was about to do was meant for another network
                continue

    @property
    def compared_outputs(self) -> Mapping[str, str]:
        """The parts of the module whose outputs have to keep their width, with the part that may follow each.

        Known from ``on_train_start`` on: the training step compares the result of that with something of this width.
        """
        return self._compared

    @property
    def is_resumed(self) -> bool:
        """True if the run is resumed and its first epoch has not begun yet."""
        return self._resumed is not None

    # --- what Lightning calls -----------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach to the module, so that its checkpoints carry the recipe and such checkpoints load."""
        if stage == "fit":
            self._resumed, self._has_begun, self.stopped = None, False, ""
            if self.changes_structure():
                refuse_strategies(trainer, type(self).__name__, self.instead_of_sharding)
                refuse_masks(trainer, type(self).__name__)
        # In every stage, and here: Lightning reads a checkpoint between this hook and the first one of the stage.
        super().setup(trainer, pl_module, stage)
        attach(pl_module, self, lambda: averaged_copies(trainer), lambda: bare_optimizers(trainer))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the state for a resumed run.

        Not in ``state_dict``: with two callbacks of one class Lightning would refuse their equal keys before this one
        can say what to do.
        """
        # Tuners save a checkpoint before the run begins, and load it after their trials: what was not decided yet must
        # not come back as a decision.
        state = self._resumed
        if self._has_begun:
            state = self.state(trainer, pl_module) | {
                "random": gathered_states(),
                "optimizer_steps": self._progress.steps(trainer),
            }
            state |= {"stopped": self.stopped} if self.stopped else {}
        if state is not None:
            checkpoint.setdefault("callbacks", {})[self.state_key] = state
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        # After fit the module is detached, and trainer.save_checkpoint may still be called.
        save_structure_(pl_module, checkpoint, bare_optimizers(trainer))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a damaged state before anything is restored from it."""
        check_saved_state(self, checkpoint, self._check_state)
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until the first epoch begins.

        Raises:
            ValueError: it is damaged; names the entry. Nothing is changed then.
        """
        self._check_state(state_dict)
        try:
            self.load_state(state_dict)
        except ValueError:
            raise
        except Exception as error:  # a callback of somebody else's may raise anything
            reason = f"{type(self).__name__} cannot load its state in the checkpoint ({type(error).__name__}: {error})"
            raise ValueError(f"{reason}. {FIX}") from error
        self._resumed, self.stopped = state_dict, state_dict.get("stopped", "")

    def _check_state(self, state: Any) -> None:
        own = {"random": RANDOM_STATES, "optimizer_steps": NotRequired[NonNegative]}  # 0.1 counted none
        own["stopped"] = NotRequired[str]
        if self.state_entries is None and isinstance(state, dict):
            state = {key: value for key, value in state.items() if key in own}
        check_state(type(self).__name__, state, entries({**own, **(self.state_entries or {})}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count steps, and point ModelCheckpoint to files that were renamed since the resumed checkpoint."""
        self._progress.start(trainer, (self._resumed or {}).get("optimizer_steps"))
        self._last_seen, self._has_begun = None, True
        if self.changes_structure():

            def follow(step: Step) -> None:  # within a training step, which has gradients that are not to be dropped
                take_step_(pl_module, step, copies=averaged_copies(trainer))

            seen = seen_in_step(trainer, pl_module, getattr(self, "given", Network()))
            self._twins = Twins(pl_module, lambda: bare_optimizers(trainer), follow, seen.written, seen.untaught)
            self._compared = self._twins.compared(seen.others)
        if self._resumed is not None:
            find_best_again(trainer, recipe_of(pl_module).label)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps that are due, with the random generators as in an uninterrupted run."""
        # At the start of an epoch, not at the end: a run that resumes from a checkpoint of the validation never calls
        # on_train_epoch_end of that epoch, and a step in it would be lost.
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            # Nothing draws random numbers between the end of an epoch, where a checkpoint is written, and this hook.
            states = resumed["random"]
            # A run may be resumed on more processes than it was saved by.
            restore_random_states_(states[trainer.global_rank % len(states)])
        self._last_seen = self.now(trainer)
        self._change(trainer, pl_module)
        if resumed is not None:
            renew_batches_(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take the structural steps that are due between two steps of the first optimizer."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        # The states of a run that was resumed within an epoch belong to no later epoch.
        self._resumed = None
        # Not at the end of a batch: whether a checkpoint that is saved there holds the change would depend on the order
        # of callbacks. Gradients are never halfway, as the count moves with a step.
        if self.unit == "step" and (now := self.now(trainer)) != self._last_seen:
            self._last_seen = now
            self._change(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach from the module, which keeps its structure."""
        super().teardown(trainer, pl_module, stage)
        self._progress.stop()
        if self._twins is not None:
            self._twins.detach()
            self._twins = None
        detach(pl_module, self)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Detach also after an exception, when Lightning calls no ``teardown``."""
        self.teardown(trainer, pl_module, "exception")


class _SteppedBack(Exception):  # noqa: N818 - no error: it ends a change that became void
    """The module is at an earlier moment again."""


class FollowRecipe(StructuralCallback):
    """Load, resume and save modules with a changed structure, without the callback that changed them.

    It changes nothing itself. ``lit-xai`` adds one to every Trainer.

    Example:
        >>> trainer = Trainer(callbacks=[FollowRecipe()], logger=False)
    """

    def changes_structure(self) -> bool:
        """Return False: it changes nothing."""
        return False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the recipe alone: checkpoints of a run that changes nothing stay plain Lightning checkpoints."""
        save_structure_(pl_module, checkpoint, bare_optimizers(trainer))


def structural_callbacks(trainer: Trainer) -> list[StructuralCallback]:
    """Return the callbacks of a Trainer that change the structure of its module."""
    return [one for one in callbacks_of(trainer) if isinstance(one, StructuralCallback) and one.changes_structure()]
