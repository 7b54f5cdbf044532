import os
import sys
from pathlib import Path

import pytest
import torch

from lit_xai.cli import main

MODULE = """
import torch
from torch import nn
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset


class Net(LightningModule):
    def __init__(self, width: int = 4, lr: float = 0.1, built_in: str = "init"):
        super().__init__()
        self.save_hyperparameters()
        self.width, self.lr, self.built_in = width, lr, built_in
        if built_in == "init":
            self.build()

    def build(self):
        self.layers = nn.Sequential(nn.Linear(3, self.width), nn.ReLU(), nn.Linear(self.width, 2))

    def setup(self, stage):
        if self.built_in == "setup" and not hasattr(self, "layers"):
            self.build()

    def configure_model(self):
        if self.built_in == "configure_model" and not hasattr(self, "layers"):
            self.build()

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Data(LightningDataModule):
    def __init__(self, n: int = 16):
        super().__init__()
        self.n = n

    def loader(self, shuffle=False):
        x = torch.arange(3.0 * self.n).view(self.n, 3).sin()
        return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader(shuffle=True)

    val_dataloader = test_dataloader = predict_dataloader = loader


class Broken(Net):
    def training_step(self, batch, batch_idx):
        raise ValueError("the user's own mistake")


class BrokenInit(Net):
    def __init__(self):
        raise ValueError("the user's own mistake")


class NoModule:
    pass
"""

FAST = (
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with somebody's own module in it, as working directory."""
    (tmp_path / "own_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    environment = dict(os.environ)
    # Lightning's LightningCLI calls jsonargparse by names that its newest releases call deprecated.
    os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"
    yield tmp_path
    for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(tmp_path))]:
        del sys.modules[name]
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def lit_xai(folder):
    """``lit_xai("fit", ...)`` in that folder, without bar and summary; returns the exit code."""

    def run(command, *options):
        try:
            return main([command, *FAST, *options])
        except SystemExit as end:
            return end.code

    return run


@pytest.fixture
def fit(lit_xai):
    """Fit the own module for one epoch, or as the options say; returns the exit code."""

    def run(*options):
        return lit_xai("fit", "--model=own_module.Net", "--data=own_module.Data", "--trainer.max_epochs=1", *options)

    return run


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.rglob(pattern)
    return found
