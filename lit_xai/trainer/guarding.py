"""Checkpoints checked before a Trainer reads them: torch verifies no checksum, and Lightning nothing else."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lit_xai.structure.checkpoints import read_checkpoint
from lit_xai.trainer.logging import outlived
from lit_xai.trainer.run_page import begin_page, end_page

_TRUST = "add weights_only=False to the call of the Trainer"


def guard(trainer: Trainer) -> None:
    """Make a Trainer refuse a damaged checkpoint in one sentence, before anything in it is used.

    Call it in ``setup``, on every process: Lightning reads the file right after. The callbacks of the library share one
    guard; :func:`unguard` removes it. A fit's page in TensorBoard begins and ends with it.

    Args:
        trainer: any; ``ckpt_path`` of its ``fit``, ``validate``, ``test`` and ``predict`` is what is checked.
    """
    strategy = trainer.strategy
    begin_page(trainer, outlived)
    if hasattr(strategy.load_checkpoint, "guards"):
        return
    load = strategy.load_checkpoint

    def load_checkpoint(checkpoint_path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        # Sharded checkpoints are folders, and those on remote disks are left to Lightning.
        if Path(checkpoint_path).is_file():
            weights_only = options.get("weights_only", args[0] if args else None)
            read_checkpoint(checkpoint_path, weights_only, trust=_TRUST)
        return load(checkpoint_path, *args, **options)

    # Other code may have wrapped the method of this instance too.
    guarded = vars(strategy).get("load_checkpoint")
    load_checkpoint.guards = guarded  # type: ignore[attr-defined]  # functions take attributes
    strategy.load_checkpoint = load_checkpoint  # type: ignore[method-assign]  # on this instance, until unguard


def unguard(trainer: Trainer) -> None:
    """Undo :func:`guard`, and do nothing the second time."""
    end_page(trainer)
    strategy = trainer.strategy
    guarded: Any = vars(strategy).get("load_checkpoint")
    if hasattr(guarded, "guards"):
        del strategy.load_checkpoint
        if guarded.guards is not None:
            strategy.load_checkpoint = guarded.guards  # type: ignore[method-assign]  # as it was
