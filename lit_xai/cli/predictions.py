"""The file that ``lit-xai predict`` writes."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit_xai.network.saving import unused
from lit_xai.trainer.access import callbacks_of, is_a, require_writable, run_folder


def save_predictions(trainer: Trainer) -> Path | None:
    """Save what ``predict_step`` returned, batch by batch, as ``predictions.pt`` in the run's folder; return its path.

    With several processes each saves its own batches, as ``predictions-rank0.pt`` and so on. ``None`` if nothing is
    saved: nothing was returned, a callback writes the predictions, or ``fast_dev_run`` only tried the run out.

    Args:
        trainer: after its ``predict``.
    """
    batches = trainer.predict_loop.predictions
    written = any(is_a(callback, "BasePredictionWriter") for callback in callbacks_of(trainer))
    tried_out = trainer.fast_dev_run  # type: ignore[attr-defined]  # set in Trainer.__init__, by a connector
    if written or tried_out or all(batch is None for batch in batches):
        return None
    folder = run_folder(trainer)
    require_writable(folder)
    rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
    path = unused(folder / f"predictions{rank}.pt")
    try:
        TorchCheckpointIO().save_checkpoint(batches, path)  # type: ignore[arg-type]  # whatever torch.save takes
    except BaseException:
        path.unlink()  # the empty file that held the name
        raise
    return path
