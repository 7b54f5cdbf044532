"""Run by test_ddp_export.py in two processes: a fit that ends in an export, and one whose export is refused."""

import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import ModelExport, QuantizationAwareTraining

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

warnings.simplefilter("ignore")


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(n):
    generator = torch.Generator().manual_seed(n)
    return TensorDataset(torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 10)


def fit(folder):
    seed_everything(0, verbose=False)
    export = ModelExport(folder / "export", program=False)
    trainer = Trainer(
        max_epochs=2,
        strategy="ddp",
        devices=2,
        accelerator="cpu",
        logger=False,
        callbacks=[QuantizationAwareTraining(1), export],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    # 41 samples do not come in two equal shares.
    trainer.fit(module, DataLoader(data(64), batch_size=8), DataLoader(data(41), batch_size=8))
    return trainer, module, export


def main():
    folder = Path(sys.argv[1])
    trainer, module, export = fit(folder)
    try:
        fit(folder)  # the files are there now
        refused = ""
    except MisconfigurationException as error:
        refused = str(error)
    samples = None if export.report is None else export.report.samples
    found = {"weights": module.state_dict(), "samples": samples, "refused": refused}
    torch.save(found, folder / f"{trainer.global_rank}.pt")
    leave_together()


if __name__ == "__main__":
    main()
