"""Run by test_resume.py: a pruned fit that kills itself, without a word to anyone, at a given point.

    python pruned_run.py FOLDER POINT

POINT: ``whole``; ``train:EPOCH:BATCH``; ``prune:EPOCH`` (right after the cut); ``save:EPOCH`` (a checkpoint is half
written); ``random:SEED`` (any batch or any moment of a hook). Resumes from the newest checkpoint, if there is one. With
``THEN_QUANTIZE=1`` in the environment the last two epochs train for integers; with ``PARTIAL=1`` a shuffle keeps half
of the layers whole.
"""

import os
import random
import signal
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from lit_xai import QuantizationAwareTraining, StructuredPruning

warnings.simplefilter("ignore")
EPOCHS, BATCHES = 5, 6


class Noisy(Dataset):
    """Draws from the global generators, as augmentation does."""

    def __len__(self):
        return 8 * BATCHES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(1, 8, 8, generator=generator) + 0.1 * torch.randn(1, 8, 8) + 0.01 * random.random()
        return x, index % 4


class ByEpoch(Sampler):
    """An order that depends on the epoch alone."""

    def __init__(self, trainer):
        self.trainer = trainer

    def __len__(self):
        return 8 * BATCHES

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.trainer.current_epoch)
        return iter(torch.randperm(len(self), generator=generator).tolist())


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.3))
        self.more = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.between = nn.ChannelShuffle(4) if os.environ.get("PARTIAL") == "1" else nn.Identity()
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.more(self.between(self.body(x))).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def train_dataloader(self):
        return DataLoader(Noisy(), batch_size=8, sampler=ByEpoch(self.trainer))

    def val_dataloader(self):
        return DataLoader(Noisy(), batch_size=16)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(Callback):
    """Comes after the pruning callback in the list."""

    def __init__(self, point):
        self.kind, *numbers = point.split(":")
        self.numbers = [int(number) for number in numbers]
        if self.kind == "random":
            drawn = random.Random(self.numbers[0])
            self.kind = drawn.choice(["train", "train", "train", "prune", "save"])
            self.numbers = [drawn.randrange(1, EPOCHS), drawn.randrange(BATCHES)]
            if self.kind == "prune":
                self.numbers = [drawn.choice([1, 2, 3])]

    def on_train_epoch_start(self, trainer, pl_module):
        if self.kind == "prune" and trainer.current_epoch == self.numbers[0]:
            die()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.kind == "train" and [trainer.current_epoch, batch_idx] == self.numbers:
            die()

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if self.kind == "save" and trainer.current_epoch == self.numbers[0]:
            # What a writer that is killed half way leaves.
            (Path(trainer.default_root_dir) / f"epoch={trainer.current_epoch}-half.ckpt").write_bytes(b"PK\x03\x04half")
            die()


def main():
    folder, point = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    whole = [path for path in folder.glob("*.ckpt") if "half" not in path.name]
    newest = max(whole, key=lambda path: path.stat().st_mtime, default=None)
    at_end = os.environ.get("SAVE_AT", "train") == "train"
    saving = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=at_end)
    quantizes = os.environ.get("THEN_QUANTIZE") == "1"
    cuts = {"start_epoch": 1, "end_epoch": 2 if quantizes else 3, "every_n_epochs": 1}
    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=[
            StructuredPruning(0.5, **cuts, round_to=1, report_latency=False),
            *([QuantizationAwareTraining(3, freeze_epoch=4, calibration_batches=2)] if quantizes else []),
            Killer(point),
            saving,
        ],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    trainer.fit(module, ckpt_path=newest)
    torch.save({"weights": module.state_dict(), "rng": torch.get_rng_state()}, folder / "end.pt")


if __name__ == "__main__":
    main()
