"""Checkpoint files at the command line: read with clear errors, resumed from, or started from."""

import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_xai.cli.files import require_file
from lit_xai.recipe import attach, detach
from lit_xai.spelling import nearest


def read_checkpoint(path: str, weights_only: bool | None = None) -> dict[str, Any]:
    """Read a Lightning checkpoint; its tensors are mapped from the file rather than copied, where its format allows.

    Args:
        path: a file that a Trainer wrote.
        weights_only: ``False`` to unpickle objects of any class, which runs code of the file's author; otherwise
            tensors and plain values alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no Lightning checkpoint, is damaged, or holds other than tensors and plain values.
    """
    require_file(path)
    try:
        trusted = weights_only is False
        checkpoint = torch.load(path, map_location="cpu", weights_only=not trusted, mmap=is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle end in any error there is
        raise ValueError(_why_unreadable(path, str(error))) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"'{path}' is no checkpoint of a Lightning Trainer: it has no 'state_dict'.")
    return checkpoint


def _why_unreadable(path: str, reason: str) -> str:
    foreign = re.search(r"GLOBAL (\S+)", reason)
    if foreign:
        return (
            f"'{path}' holds an object of {foreign[1]}, whose unpickling may run code of the file's author: if you"
            " trust the file, add --weights_only false."
        )
    newest = newest_whole_checkpoint(path)
    instead = "" if newest is None else f" The newest whole checkpoint in that folder is '{newest}'."
    return f"'{path}' is damaged, or no checkpoint of a Lightning Trainer.{instead}"


def newest_whole_checkpoint(path: str | Path) -> Path | None:
    """Return the checkpoint written last in a folder that can be read to its end, or ``None``.

    Args:
        path: the folder, or a checkpoint in it, damaged or not. A link counts as the file that it points to.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    files = [file for file in folder.glob("*.ckpt") if file.is_file() and not file.is_symlink()]
    newest_first = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return next((file for file in newest_first if _is_whole(file)), None)


def _is_whole(file: Path) -> bool:
    try:
        with ZipFile(file) as archive:
            # Read to the end: what is damaged in the middle is found by its checksum alone.
            return archive.testzip() is None and any(Path(n).name == "data.pkl" for n in archive.namelist())
    except (BadZipFile, OSError, EOFError, NotImplementedError):
        return False


def epochs_trained(checkpoint: dict[str, Any]) -> int:
    """Return how many epochs a checkpoint's training had completed, wherever in the last one it was written.

    Source: ``_FitLoop.update_restart_stage`` and ``_FitLoop.reset``.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop")
    if loop is None:
        return 0
    epoch = loop["epoch_progress"]["current"]
    # Within an epoch's last validation it does not count as processed yet, but nothing is left to train in it.
    last_batch = loop["epoch_loop.batch_progress"]["is_last_batch"]
    return epoch["processed"] + int(epoch["processed"] < epoch["started"] and last_batch)


class InitFrom(Callback):
    """Start from a checkpoint's weights: a fresh optimizer, fresh schedulers and epoch 0.

    The weights are loaded once every layer exists, also those built in ``setup`` or ``configure_model``, and before
    Lightning wraps the module and builds its optimizers. The module's ``on_load_checkpoint`` is called first, as in a
    resume: what changes the structure there has done so by then.

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
            del pl_module.configure_model
            configure_model()
            load_weights(pl_module, self.path, self.weights_only)

        pl_module.configure_model = configure_model_then_load  # type: ignore[method-assign]  # on this instance, once


class FollowRecipe(Callback):
    """Lets every command load checkpoints of a pruned module, whether or not a compression callback is there."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the module replay the recipe of a checkpoint that is loaded."""
        attach(pl_module, self)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        detach(pl_module, self)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave it so also where Lightning does not tear down."""
        detach(pl_module, self)


def load_weights(pl_module: LightningModule, path: str, weights_only: bool | None = None) -> None:
    """Load a checkpoint's weights, and nothing else of it, into a module that fits them exactly.

    Raises:
        ValueError: names or shapes do not fit; the first that does not is named.
    """
    checkpoint = read_checkpoint(path, weights_only)
    pl_module.on_load_checkpoint(checkpoint)
    try:
        pl_module.load_state_dict(checkpoint["state_dict"], strict=pl_module.strict_loading)
    except RuntimeError as error:
        mismatch = _first_mismatch(checkpoint["state_dict"], pl_module.state_dict())
        raise ValueError(f"the weights of '{path}' do not fit this model: {mismatch or error}") from error


def _first_mismatch(saved: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    for name, tensor in own.items():
        if name not in saved:
            return f"'{name}' is missing in the file.{nearest(name, saved)}"
        if saved[name].shape != tensor.shape:
            return f"'{name}' has shape {tuple(saved[name].shape)} in the file, but {tuple(tensor.shape)} in the model."
    surplus = next((name for name in saved if name not in own), None)
    return "" if surplus is None else f"'{surplus}' of the file is not in the model.{nearest(surplus, own)}"
