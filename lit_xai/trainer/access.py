"""Access to a Trainer where Lightning offers no public name, or two package names: here and nowhere else.

Lightning is published as ``lightning.pytorch`` and as ``pytorch_lightning``, with two sets of classes. A callback
written against one runs under the other's Trainer, but ``isinstance`` is then silently false. And the x-axis of
Lightning's own scalars is no public property.

Private names in use: ``_TrainingEpochLoop._batches_that_stepped``, ``LightningModule._current_fx_name``,
``LightningModule._on_before_batch_transfer`` and ``Strategy._lightning_optimizers``.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info as rank_zero_info
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities import rank_zero_warn as rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

_PACKAGES = ("lightning", "pytorch_lightning")


def is_a(obj: object, *class_names: str) -> bool:
    """Return whether ``obj`` is an instance of one of these Lightning classes, from either of its two packages.

    Args:
        obj: a logger, a callback, a module ...
        class_names: bare names; subclasses count, classes of other packages with the same name do not.

    Example:
        >>> from lightning.pytorch.callbacks import ModelCheckpoint
        >>> is_a(ModelCheckpoint(), "EarlyStopping", "ModelCheckpoint"), is_a("a string", "ModelCheckpoint")
        (True, False)
    """
    return any(
        base.__name__ in class_names and base.__module__.partition(".")[0] in _PACKAGES for base in type(obj).__mro__
    )


def callbacks_of(trainer: Trainer) -> list[Any]:
    """Return a Trainer's callbacks: the list itself, which its connector sets in ``Trainer.__init__``."""
    found: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # no annotation in Lightning
    return found


def refuse_strategies(trainer: Trainer, name: str, otherwise: str = "train on one device") -> None:
    """Refuse strategies under which no process holds the whole module.

    Args:
        trainer: its strategy is checked.
        name: the callback, for the error.
        otherwise: advice for a module that is too large for DDP.

    Raises:
        MisconfigurationException: names the strategy.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> refuse_strategies(Trainer(logger=False, accelerator="cpu"), "AttributionMonitor")
    """
    if is_a(trainer.strategy, "FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"):
        raise MisconfigurationException(
            f"{name} cannot work with {type(trainer.strategy).__name__}, which spreads the weights over processes: take"
            f" strategy='ddp', or {otherwise}."
        )


def logged_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs the epoch metrics of ``self.log``, seen from the same hook.

    It counts batches that stepped. ``trainer.global_step`` is ahead of it by one in a validation during ``fit``, and by
    a multiple with several optimizers. Valid in ``on_train_start``, in the batch hooks, and in ``on_*_epoch_end`` of
    ``fit``, ``validate`` and ``test``, unless the user logs a metric named ``step``, which moves Lightning's scalars.

    Source: ``_LoggerConnector.log_metrics`` and ``_FitLoop.on_advance_end``.
    """
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    # At the end of the epoch the count is past the last batch, and Lightning subtracts one to log epoch metrics. The
    # name of the hook is the only reliable sign: the counters of the epoch stay one apart after some resumes.
    return step - 1 if trainer.lightning_module._current_fx_name == "on_train_epoch_end" else step


def step_optimizers(trainer: Trainer) -> list[Any]:
    """Return the optimizers as a step gets them from ``self.optimizers()``, in Lightning's wrappers."""
    return list(trainer.strategy._lightning_optimizers)


def to_model(trainer: Trainer, batch: Any, loader: str) -> Any:
    """Return a batch of a loader as the steps of the module get it: precision, data hooks and device applied.

    Args:
        trainer: inside a stage.
        batch: as the loader yields it.
        loader: ``"train"``, ``"val"`` or ``"test"``, since hooks that augment ask the Trainer for its stage.

    Source: ``_TrainingEpochLoop.advance``.
    """
    stage = trainer.state.stage
    assert stage is not None  # hooks of a stage call this
    trainer.state.stage = type(stage)({"train": "train", "val": "validate", "test": "test"}[loader])
    try:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    finally:
        trainer.state.stage = stage


@contextlib.contextmanager
def without_log(pl_module: LightningModule) -> Iterator[None]:
    """Ignore what ``forward`` logs during a probe, which would mix with the metrics of the run."""
    own: dict[str, Any] = {k: v for k, v in vars(pl_module).items() if k in ("log", "log_dict")}
    for name in ("log", "log_dict"):
        vars(pl_module)[name] = lambda *_, **__: None
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            del vars(pl_module)[name]
        vars(pl_module).update(own)


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of this run, the same on every rank; call it on every rank.

    That is the ``log_dir`` of the first TensorBoardLogger or CSVLogger that writes to a local disk, else the folder
    under which ModelCheckpoint puts its ``checkpoints`` for the first logger, else ``trainer.default_root_dir``.

    Raises:
        MisconfigurationException: the folder is not on a local disk.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> run_folder(Trainer(logger=False, accelerator="cpu", default_root_dir="runs")).name
        'runs'
    """
    # As ModelCheckpoint does: loggers number their versions by the folders that each process finds.
    folder: str = trainer.strategy.broadcast(_find_run_folder(trainer))
    if _is_remote(folder):
        raise MisconfigurationException(
            f"The run's folder must be on a local disk, but got {folder!r}: set `Trainer(default_root_dir=...)`, or the"
            " `save_dir` of its logger, to a local path."
        )
    return Path(folder)


def _find_run_folder(trainer: Trainer) -> str:
    for logger in trainer.loggers:
        if is_a(logger, "TensorBoardLogger", "CSVLogger") and logger.log_dir and not _is_remote(logger.log_dir):
            return logger.log_dir
    if not trainer.loggers:
        return trainer.default_root_dir
    logger = trainer.loggers[0]
    # From here on as in ModelCheckpoint.
    save_dir = trainer.default_root_dir if logger.save_dir is None else logger.save_dir
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return os.path.join(save_dir, str(logger.name), version)


def _is_remote(folder: str) -> bool:
    return "://" in folder


@rank_zero_only
def require_writable(folder: Path) -> None:
    """Create ``folder`` if necessary, and refuse one in which no file can be written.

    Raises:
        OSError: the folder cannot be created, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"The run's folder must be writable, but got '{folder}' ({error.strerror}): set"
            " `Trainer(default_root_dir=...)`, or the `save_dir` of its logger, to another."
        ) from error
