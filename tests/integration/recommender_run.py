"""Run by test_recommenders.py: ratings in one run of all that shrinks and all that explains, killed at a batch.

    python recommender_run.py FOLDER [EPOCH:BATCH] [DATA_DIR]

Resumes from ``last.ckpt`` in the folder, if it is there. With a folder of MovieLens it trains on that.
"""

import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torchmetrics import MeanSquaredError

sys.path += [str(Path(__file__).parents[1])]

from processes import KillAt

from lit_xai import (
    AttributionMonitor,
    ExplanationMatching,
    KnowledgeDistillation,
    ModelExport,
    ModelReport,
    QuantizationAwareTraining,
    RankingMonitor,
    RetentionMonitor,
    StructuredPruning,
)
from lit_xai.data import MovieLens, Ratings, RatingsDataModule
from lit_xai.models import MatrixDecay, Regressor, TwoTower

EPOCHS = 4
USERS, ITEMS, GENRES = 40, 60, ("Drama", "War", "Western")


class Films(RatingsDataModule):
    """Users who like a genre or do not, and films that are better than others."""

    def read(self):
        rng = np.random.default_rng(0)
        users, items = np.divmod(rng.choice(USERS * ITEMS, 900, replace=False), ITEMS)
        genres = {k: [GENRES[k % 3]] for k in range(ITEMS)}
        taste, quality = rng.normal(size=(USERS, 3)), rng.normal(size=ITEMS)
        values = 3 + taste[users, items % 3] + quality[items] + 0.3 * rng.normal(size=len(users))
        titles = {k: f"film {k}" for k in range(ITEMS)}
        return Ratings(users, items, values.clip(1, 5), titles=titles, genres=genres)


def main(folder, point="", data_dir=""):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seed_everything(0, verbose=False)
    data = MovieLens(data_dir) if data_dir else Films(batch_size=64)
    data.setup()
    sizes = data.num_users, data.num_items, len(data.genre_names)
    network = TwoTower(*sizes, factors=32 if data_dir else 16, mean=3.5, dropout=0.3 if data_dir else 0.0)
    optimizer = partial(MatrixDecay, lr=0.005, weight_decay=1.0 if data_dir else 0.01)
    model = Regressor(network, metrics={"rmse": MeanSquaredError(squared=False)}, optimizer=optimizer)
    saving = ModelCheckpoint(folder, "{epoch}", monitor="val/rmse", save_last=True)
    callbacks = [
        StructuredPruning(pruning_ratio=0.5, start_epoch=1, end_epoch=2, round_to=1, report_latency=False),
        KnowledgeDistillation("dense", loss="l2", explanation=ExplanationMatching(every_n_steps=2)),
        QuantizationAwareTraining(start_epoch=3, calibration_batches=4),
        ModelExport(overwrite=True, program=False),
        AttributionMonitor(probe=4, every_n_epochs=EPOCHS, on_error="raise"),
        RetentionMonitor(n=16, nulls=2, ladder=[8], every_n_epochs=EPOCHS, time_share=1.0, on_error="raise"),
        RankingMonitor(k=3, users=10, shown=2),
        ModelReport(nulls=2, rounds=0),
        KillAt(point),
        saving,
    ]
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=callbacks,
        default_root_dir=folder,
        logger=CSVLogger(folder, name="", version="log"),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "last.ckpt"
    trainer.fit(model, datamodule=data, ckpt_path=last if last.exists() else None)
    torch.save({"weights": model.state_dict(), "rng": torch.get_rng_state()}, folder / "end.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
