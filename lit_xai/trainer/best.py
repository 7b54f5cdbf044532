"""Restart the ranking of epochs when the structure changes: the larger network would usually keep the best metric.

Private names in use: ``ModelCheckpoint._last_checkpoint_saved``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_xai.network.saving import unused
from lit_xai.structure.schema import entries
from lit_xai.trainer.access import callbacks_of, is_a


def start_over(trainer: Trainer, label: str) -> None:
    """Restart ModelCheckpoint's ranking, EarlyStopping's patience and ReduceLROnPlateau; call it on every process.

    The best files so far stay on disk under names that tell their structure (``epoch=3-step=100-dense.ckpt``). With
    ``save_top_k=-1`` every file stays under its own name.

    Args:
        trainer: inside ``fit``.
        label: the structure that ends here, such as ``"dense"`` or ``"pruned1"``.
    """
    for callback in callbacks_of(trainer):
        if is_a(callback, "ModelCheckpoint") and _ranks(callback):
            renamed = _rename_best(trainer, callback, label) if callback.save_top_k > 0 else {}
            _forget_best(callback, renamed)
        elif is_a(callback, "EarlyStopping"):
            callback.wait_count = 0
            callback.best_score = _worst(callback)
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.best = config.scheduler.mode_worse
            # Epochs of the former structure say nothing about a plateau of this one.
            config.scheduler.num_bad_epochs = 0


RANKING = entries(
    {
        "monitor": str | None,
        "best_model_score": Tensor | None,
        "best_model_path": str,
        "current_score": Tensor | None,
        "dirpath": str | None,
        "best_k_models": dict[str, Tensor],
        "kth_best_model_path": str,
        "kth_value": Tensor,
        "last_model_path": str,
    }
)
"""What :func:`rankings` returns of each ModelCheckpoint."""


def rankings(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the present ranking of each ModelCheckpoint, as plain values and tensors."""
    names = RANKING.__annotations__
    states = [one.state_dict() for one in callbacks_of(trainer) if is_a(one, "ModelCheckpoint") and _ranks(one)]
    return [{name: state.get(name) for name in names} | _as_text(state) for state in states]


def _as_text(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dirpath": None if state.get("dirpath") is None else str(state["dirpath"]),
        "best_k_models": dict(state["best_k_models"]),
    }


def return_to(trainer: Trainer, label: str, then: Sequence[Mapping[str, Any]], earlier: str) -> None:
    """Return to an earlier ranking of epochs, whose files :func:`start_over` has renamed since.

    Call it on every process.

    Args:
        trainer: inside ``fit``.
        label: the structure that ends here.
        then: the :func:`rankings` of that time.
        earlier: the structure of that time.
    """
    start_over(trainer, label)
    callbacks = [one for one in callbacks_of(trainer) if is_a(one, "ModelCheckpoint") and _ranks(one)]
    for callback, state in zip(callbacks, then, strict=False):
        callback.load_state_dict({**callback.state_dict(), **state, "last_model_path": callback.last_model_path})
    find_best_again(trainer, earlier)


def find_best_again(trainer: Trainer, label: str) -> None:
    """Point ModelCheckpoint to files that were renamed after the resumed checkpoint was written.

    Call it on every process, before the first epoch of a resumed ``fit``.

    Args:
        trainer: its callbacks have their state back.
        label: the structure of the checkpoint.
    """
    for callback in callbacks_of(trainer):
        if not is_a(callback, "ModelCheckpoint") or not _ranks(callback):
            continue
        ranked = [path for path in {*callback.best_k_models, callback.best_model_path} if path]
        pairs = {path: str(_labelled(Path(path), label)) for path in ranked}
        now = {old: new for old, new in pairs.items() if not os.path.exists(old) and os.path.exists(new)}
        # One process renamed the files, and one decides: others may not see its disk.
        now = trainer.strategy.broadcast(now)
        callback.best_k_models = {now.get(path, path): score for path, score in callback.best_k_models.items()}
        callback.best_model_path = now.get(callback.best_model_path, callback.best_model_path)
        callback.kth_best_model_path = now.get(callback.kth_best_model_path, callback.kth_best_model_path)


def _ranks(callback: Any) -> bool:
    return callback.monitor is not None and callback.save_top_k != 0


def _worst(callback: Any) -> torch.Tensor:
    return torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)


def _labelled(path: Path, label: str) -> Path:
    return path.with_stem(f"{path.stem}-{label}")


def _rename_best(trainer: Trainer, callback: Any, label: str) -> dict[str, str]:
    """Rename the ranked files in one process, and return new names by old ones in all of them."""
    renamed: dict[str, str] = {}
    if trainer.is_global_zero:
        for name in callback.best_k_models:
            # A missing file is on a remote disk, or was renamed by a run that was killed and that this one resumes.
            # The names of a resumed run come out of its checkpoint, which decides about no other folder.
            is_own = Path(name).resolve().is_relative_to(Path(callback.dirpath or "").resolve())
            if is_own and os.path.exists(name) and not Path(name).stem.endswith(f"-{label}"):
                renamed[name] = str(unused(_labelled(Path(name), label)))
                _rename(Path(name), Path(renamed[name]))
    return trainer.strategy.broadcast(renamed)


def _rename(path: Path, new: Path) -> None:
    links = [link for link in path.parent.iterdir() if link.is_symlink() and link.resolve() == path.resolve()]
    path.rename(new)
    for link in links:  # last.ckpt, with save_last="link"
        link.unlink()
        link.symlink_to(new.name)


def _forget_best(callback: Any, renamed: dict[str, str]) -> None:
    callback.best_k_models = {}
    callback.best_model_path = callback.kth_best_model_path = ""
    # As ModelCheckpoint.__init__ sets them.
    callback.best_model_score = callback.current_score = None
    callback.kth_value = _worst(callback)
    # The file that save_last="link" points to when an epoch is not among the best.
    callback._last_checkpoint_saved = renamed.get(callback._last_checkpoint_saved, callback._last_checkpoint_saved)
