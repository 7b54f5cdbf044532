"""What a run writes down for the study that it is a cell of."""

import json
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_xai.report.record import finite
from lit_xai.trainer.access import callbacks_of

EPOCHS, VALIDATION, LAST = "epochs.jsonl", "validation.json", "last.ckpt"
"""Files in a cell's folder: a line for each epoch, the metrics of ``lit-xai validate``, and the newest checkpoint."""


class CellCheckpoint(ModelCheckpoint):
    """Saves a checkpoint after every epoch, and a line with its metrics, by which a killed cell goes on.

    Args:
        dirpath: the cell's folder.
    """

    def __init__(self, dirpath: str) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=Path(LAST).stem,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save first, so that a line tells of a checkpoint that there is."""
        super().on_train_epoch_end(trainer, pl_module)
        line = {
            "epoch": trainer.current_epoch,
            "of": trainer.max_epochs,
            "checkpoint": self._chosen(trainer),
            "metrics": _metrics(trainer),
        }
        with self._folder.joinpath(EPOCHS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what ``lit-xai validate`` logged."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "validate":
            self._folder.joinpath(VALIDATION).write_text(json.dumps(_metrics(trainer)), encoding="utf-8")

    @property
    def _folder(self) -> Path:
        return Path(str(self.dirpath))

    def _chosen(self, trainer: Trainer) -> str:
        """Return the best checkpoint by the module's own choice, else the last, seen from the folder."""
        others = (one for one in callbacks_of(trainer) if isinstance(one, ModelCheckpoint) and one is not self)
        best = next((one.best_model_path for one in others if one.monitor and one.best_model_path), "")
        path = best if best and Path(best).is_file() else self._folder / LAST
        return os.path.relpath(path, self._folder)


def _metrics(trainer: Trainer) -> dict[str, Any]:
    return {name: finite(float(value)) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
