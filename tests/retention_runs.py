"""Runs of a small network on data of its own, with the monitor of retention."""

import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
FAST = {"n": 40, "nulls": 3, "ladder": (8, 3), "second_explainer": None, "time_share": 1e9, "time_budget": 1e9}


class Module(LightningModule):
    def __init__(self, width=16):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(12, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
        )

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.3, momentum=0.9)


def data(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=generator)
    y = (x @ torch.randn(12, 3, generator=generator)).argmax(1)
    return TensorDataset(x, y)


def run(folder, *callbacks, module=None, epochs=4, train=None, val=None, ckpt_path=None, **options):
    torch.manual_seed(0)
    module = Module() if module is None else module
    trainer = Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), **{**QUIET, **options})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*num_training_batches|.*The number of training batches")
        train = DataLoader(data(), 16) if train is None else train
        val = DataLoader(data(50, 1), 16) if val is None else val
        trainer.fit(module, train, val, ckpt_path=ckpt_path)
    return trainer, module
