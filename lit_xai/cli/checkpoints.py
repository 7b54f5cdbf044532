"""Checkpoint files at the command line: read with clear errors, resumed from, or started from."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_xai.structure import checkpoints
from lit_xai.structure.loading import load_weights_


def read_checkpoint(path: str, weights_only: bool | None = None) -> dict[str, Any]:
    """Read a Lightning checkpoint; errors name the command line's option, ``--weights_only``."""
    return checkpoints.read_checkpoint(path, weights_only, trust="add --weights_only false")


def epochs_trained(checkpoint: dict[str, Any]) -> int:
    """Return how many epochs of training a checkpoint has completed, even if it was written during the last one.

    Source: ``_FitLoop.update_restart_stage`` and ``_FitLoop.reset``.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop")
    if loop is None:
        return 0
    epoch = loop["epoch_progress"]["current"]
    # Within an epoch's last validation it does not count as processed yet, but nothing is left to train in it.
    last_batch = loop["epoch_loop.batch_progress"]["is_last_batch"]
    return epoch["processed"] + int(epoch["processed"] < epoch["started"] and last_batch)


def short_schedule(checkpoint: dict[str, Any], max_epochs: int) -> int | None:
    """Return the steps of a schedule of fixed length, such as OneCycleLR's, that ends before a resumed run would.

    A checkpoint written within an epoch does not tell the steps per epoch: only an ended schedule is reported then.

    Args:
        checkpoint: the one to resume.
        max_epochs: of the run.

    Example:
        >>> short_schedule({"lr_schedulers": [{"total_steps": 42, "last_epoch": 42}]}, 4)
        42
    """
    loop, done = checkpoint.get("loops", {}).get("fit_loop"), epochs_trained(checkpoint)
    is_whole = loop is not None and loop["epoch_loop.batch_progress"]["is_last_batch"]
    for state in (state for state in checkpoint.get("lr_schedulers", ()) if isinstance(state, dict)):
        length, taken = state.get("total_steps"), state.get("last_epoch", 0)
        if isinstance(length, int) and (taken >= length or (is_whole and taken * max_epochs > length * done)):
            return length
    return None


class InitFrom(Callback):
    """Start from a checkpoint's weights: a fresh optimizer, fresh schedulers and epoch 0.

    The weights are loaded once every layer exists, also those built in ``setup`` or ``configure_model``, and before
    Lightning wraps the module and builds its optimizers. The module's ``on_load_checkpoint`` is called first, as in a
    resume, so that structure restored there is restored by then.

    Args:
        path: a Lightning checkpoint.
        weights_only: see :func:`read_checkpoint`.
    """

    def __init__(self, path: str, weights_only: bool | None = None) -> None:
        self.path = path
        self.weights_only = weights_only

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the weights at the end of ``configure_model``, the last hook before optimizers are built."""
        if stage != "fit":
            return
        configure_model = pl_module.configure_model

        def configure_model_then_load() -> None:
            # Before the call: if it fails, nothing stays on the instance.
            del pl_module.configure_model
            configure_model()
            load_weights(pl_module, self.path, self.weights_only)

        pl_module.configure_model = configure_model_then_load  # type: ignore[method-assign]  # on this instance, once


def load_weights(pl_module: LightningModule, path: str, weights_only: bool | None = None) -> None:
    """Load only a checkpoint's weights into a module that they fit exactly.

    Raises:
        ValueError: names or shapes do not fit; the first mismatch is named.
    """
    checkpoint = read_checkpoint(path, weights_only)
    checkpoint.pop("optimizer_states", None)  # a fresh optimizer keeps its own order of parameters
    pl_module.on_load_checkpoint(checkpoint)
    try:
        load_weights_(pl_module, checkpoint["state_dict"], pl_module.strict_loading)
    except ValueError as error:
        raise ValueError(f"the run cannot start from '{path}': {error}") from error
