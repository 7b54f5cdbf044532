"""Run by test_ddp.py in two processes: one monitored fit, and one that fails on the second process alone."""

import os
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from lit_xai.callbacks import AttributionMonitor

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

warnings.simplefilter("ignore")


class Total(Metric):
    """The sum of absolute attributions, and which samples it was shown: the first pixel of each input."""

    def __init__(self, broken_rank=None):
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("pixels", [], dist_reduce_fx="cat")
        self.broken_rank = broken_rank

    def update(self, network, inputs, attributions, target):
        if self.broken_rank is not None and torch.distributed.get_rank() == self.broken_rank:
            raise RuntimeError("broken metric")
        self.total += attributions.abs().sum()
        self.pixels.append(inputs[:, 0, 0, 0])

    def compute(self):
        pixels = torch.cat([p.reshape(-1) for p in self.pixels]) if isinstance(self.pixels, list) else self.pixels
        return {"total": self.total, "samples": len(pixels), "pixels": pixels.sum()}


class BrokenMetric(Total):
    def __init__(self):
        super().__init__(broken_rank=1)


class Module(LightningModule):
    def __init__(self, broken_rank=None):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.broken_rank = broken_rank

    def forward(self, x):
        if not self.training and self.broken_rank == self.global_rank and len(x) > 1:
            raise RuntimeError("broken here")
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, module, probe=5):
    seed_everything(0, verbose=False)
    data = TensorDataset(torch.randn(32, 1, 8, 8), torch.arange(32) % 10)
    trainer = Trainer(
        max_epochs=2,
        strategy="ddp",
        devices=int(os.environ["WORLD_SIZE"]),
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        log_every_n_steps=1,
        callbacks=[AttributionMonitor(probe=probe, metrics=[BrokenMetric, Total])],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=4))
    if trainer.is_global_zero:
        torch.save(module.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fit(folder / "whole", Module())
    fit(folder / "fewer", Module(), probe=1)  # the second process has no sample of its own
    fit(folder / "broken", Module(broken_rank=1))
    leave_together()
