"""The table of before and after says which epoch "before" was."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import StructuredPruning

DATA = TensorDataset(torch.randn(16, 4), torch.arange(16) % 2)


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/epoch", float(self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, epochs, max_epochs, ckpt_path=None):
    first, last = epochs
    pruning = StructuredPruning(0.5, start_epoch=first, end_epoch=last, round_to=1, report_latency=False)
    trainer = Trainer(
        max_epochs=max_epochs,
        callbacks=[pruning, ModelCheckpoint(folder / "ckpt", "{epoch}", save_top_k=-1)],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), DataLoader(DATA, 8), DataLoader(DATA, 8), ckpt_path=ckpt_path)
    summary = (folder / "compression" / "summary.md").read_text().splitlines()
    (row,) = ([cell.strip() for cell in line.split("|")[1:4]] for line in summary if "val/epoch" in line)
    return row


@pytest.mark.parametrize(
    ("epochs", "name", "before"),
    [
        ((0, 0), "val/epoch (at the start, now)", "-"),
        ((0, 1), "val/epoch (at the start, now)", "-"),  # and not that of between the cuts
        ((1, 2), "val/epoch (before the cuts, epoch 0, now)", "0"),
        ((2, 2), "val/epoch (before the cuts, epoch 1, now)", "1"),
    ],
)
def test_before_is_the_epoch_before_the_first_cut(epochs, name, before, tmp_path):
    assert fit(tmp_path, epochs, 3) == [name, before, "2"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # ModelCheckpoint's
def test_after_a_resume_nothing_is_taken_for_it(tmp_path):
    fit(tmp_path / "first", (1, 2), 3)
    # The second cut is still to come, and what the resumed run knows then is of the first one's network.
    row = fit(tmp_path / "second", (1, 2), 4, tmp_path / "first" / "ckpt" / "epoch=1.ckpt")
    assert row == ["val/epoch (before the cuts, now)", "-", "3"]
