"""The base of callbacks that change the structure of a module while it trains."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lit_xai.structure.kinds import Step
from lit_xai.structure.recipe import attach, detach, recipe_of, save_structure_
from lit_xai.trainer.access import callbacks_of, refuse_strategies
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.best import find_best_again, start_over
from lit_xai.trainer.random_states import gathered_states, renew_batches_, restore_random_states_
from lit_xai.trainer.structure_change import averaged_copies, bare_optimizers, change_structure


class StructuralCallback(AnyCallback):
    """Change the structure of any LightningModule in ``fit``, so that every checkpoint of the run loads again.

    A subclass overrides :meth:`change`, which is called at the start of each training epoch and calls
    :meth:`take_step` if something is due. The rest is done here: optimizers, schedulers, gradient scaling, averaged
    copies, DDP and compiled code go on with the new parameters; checkpoints hold the recipe, the order of the
    optimizers' parameters and the random generators' states, so that a resumed run continues bit for bit;
    ModelCheckpoint's "best", EarlyStopping's patience and ReduceLROnPlateau start over; and nothing is left on the
    module afterwards. What else a resumed run has to know goes through :meth:`state` and :meth:`load_state`.

    A subclass that overrides a hook of Lightning's calls ``super()`` first.

    Example:
        >>> class HalveOnce(StructuralCallback):
        ...     def change(self, trainer, pl_module):
        ...         if trainer.current_epoch == 3:
        ...             self.take_step(trainer, pl_module, {"kind": "my_package.halve", "layer": "network.0"})
        >>> HalveOnce().last_change(max_epochs=10) is None
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._resumed: dict[str, Any] | None = None

    # --- for subclasses -----------------------------------------------------------------------------------------------

    def change(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps that are due at the start of an epoch; called on every process.

        Args:
            trainer: in ``on_train_epoch_start``.
            pl_module: its module.
        """

    def last_change(self, max_epochs: int | None) -> int | None:
        """Return the epoch of the last step in a run of so many epochs, ``None`` if that is not known beforehand.

        Whatever must come later, such as quantization, is planned by it.
        """
        return None

    def changes_structure(self) -> bool:
        """Return whether steps will be taken, which a ``"dense"`` teacher or reference waits for."""
        return True

    def state(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what else a resumed run has to know, as plain values and tensors."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned in the run that is resumed."""

    def take_step(self, trainer: Trainer, pl_module: LightningModule, *steps: Step) -> None:
        """Take steps of a recipe, one after the other, in a running ``fit``; call it on every process.

        Args:
            trainer: in ``on_train_epoch_start``: no batch is on its way then.
            pl_module: its module.
            steps: the same on every process.

        Raises:
            ValueError: a step does not fit the module, or comes too late.
        """
        label = recipe_of(pl_module).label
        for step in steps:
            change_structure(trainer, pl_module, step)
        start_over(trainer, label)

    @property
    def is_resumed(self) -> bool:
        """Whether the run was resumed and its first epoch has not begun yet."""
        return self._resumed is not None

    # --- what Lightning calls -----------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that checkpoints carry the recipe, and that those with one can be loaded."""
        if stage == "fit":
            self._resumed = None
            if self.changes_structure():
                refuse_strategies(trainer, type(self).__name__)
        attach(pl_module, self, lambda: averaged_copies(trainer), lambda: bare_optimizers(trainer))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in what a resumed run has to know.

        With ``state_dict`` instead, Lightning would refuse two of these before we can say what to do.
        """
        state = self.state(trainer, pl_module) | {"random": gathered_states()}
        checkpoint.setdefault("callbacks", {})[self.state_key] = state
        # After fit the module no longer says so itself, and may still be saved.
        save_structure_(pl_module, checkpoint, bare_optimizers(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self._resumed = state_dict
        self.load_state(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have ModelCheckpoint know the files that were renamed after the checkpoint that is resumed was written."""
        if self._resumed is not None:
            find_best_again(trainer, recipe_of(pl_module).label)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change what is due, with the random generators where an uninterrupted run has them."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            # Nothing draws between the end of an epoch, where a checkpoint is written, and this hook of the next one.
            states = resumed["random"]
            restore_random_states_(states[trainer.global_rank % len(states)])
        self.change(trainer, pl_module)
        if resumed is not None:
            renew_batches_(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let go of the states of a run that was resumed within an epoch: they belong to no later one."""
        self._resumed = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module with nothing of ours but its structure."""
        detach(pl_module, self)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module so also where Lightning does not tear down."""
        self.teardown(trainer, pl_module, "exception")


class FollowRecipe(StructuralCallback):
    """Load, resume and save modules whose structure was changed, whether or not what changed them is in the Trainer.

    Changes nothing itself. ``lit-xai`` puts one into every Trainer.

    Example:
        >>> trainer = Trainer(callbacks=[FollowRecipe()], logger=False)
    """

    def changes_structure(self) -> bool:
        """Return that it changes nothing."""
        return False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in the recipe alone: a run that changes nothing writes plain Lightning's checkpoints."""
        save_structure_(pl_module, checkpoint, bare_optimizers(trainer))


def structural_callbacks(trainer: Trainer) -> list[StructuralCallback]:
    """Return a Trainer's callbacks that change the structure of its module."""
    return [one for one in callbacks_of(trainer) if isinstance(one, StructuralCallback) and one.changes_structure()]
