"""Run by test_ddp.py in two processes: a quantization-aware fit, and the ranges that each process ends with."""

import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import QuantizationAwareTraining

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

warnings.simplefilter("ignore")


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        # Statistics of BatchNorms are fixed at a low learning rate alone.
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [3], 0.1)]


class States(Callback):
    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.seen.append({name: value.detach().clone() for name, value in pl_module.state_dict().items()})


def fit(folder, broadcast):
    seed_everything(0, verbose=False)
    data = TensorDataset(torch.randn(64, 1, 8, 8), torch.arange(64) % 4)
    states = States()
    trainer = Trainer(
        max_epochs=4,
        strategy=DDPStrategy(broadcast_buffers=broadcast),
        devices=2,
        accelerator="cpu",
        logger=False,
        callbacks=[QuantizationAwareTraining(1, calibration_batches=2, freeze_epoch=3), states],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), DataLoader(data, batch_size=8), DataLoader(data, batch_size=16))
    torch.save(states.seen, folder / f"{broadcast}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    fit(Path(sys.argv[1]), True)
    fit(Path(sys.argv[1]), False)
    leave_together()
