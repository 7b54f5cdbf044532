"""The table of before and after says which epoch "before" was."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

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


def fit(folder, epochs, max_epochs, ckpt_path=None, module=None):
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
    trainer.fit(module or Module(), DataLoader(DATA, 8), DataLoader(DATA, 8), ckpt_path=ckpt_path)
    summary = (folder / "compression" / "summary.md").read_text().splitlines()
    (row,) = ([cell.strip() for cell in line.split("|")[2:4]] for line in summary if "val/epoch" in line)
    assert summary[0].split("|")[2].strip() == "dense"
    (moments,) = (line for line in summary if line.startswith("Dense: "))
    return moments, row


@pytest.mark.parametrize(
    ("epochs", "when", "before"),
    [
        ((0, 0), "as the run began", "-"),
        ((0, 1), "as the run began", "-"),  # and not that of between the cuts
        ((1, 2), "after 1 of 3 epochs", "0"),
        ((2, 2), "after 2 of 3 epochs", "1"),
    ],
)
def test_before_is_the_epoch_before_the_first_cut(epochs, when, before, tmp_path):
    moments, row = fit(tmp_path, epochs, 3)
    assert row == [before, "2"]
    assert when in moments
    assert moments.endswith("Final: after 3 epochs.")


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # ModelCheckpoint's
def test_after_a_resume_nothing_is_taken_for_it(tmp_path):
    fit(tmp_path / "first", (1, 2), 3)
    # The second cut is still to come, and what the resumed run knows then is of the first one's network.
    moments, row = fit(tmp_path / "second", (1, 2), 4, tmp_path / "first" / "ckpt" / "epoch=1.ckpt")
    assert row == ["-", "3"]
    assert "before this run was resumed" in moments


class OfEachClass(Metric):
    """Computes a number for each class."""

    def __init__(self):
        super().__init__()
        self.add_state("seen", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, labels):
        self.seen += torch.bincount(labels, minlength=2)

    def compute(self):
        return self.seen


class Stages(nn.Sequential):
    """Knows the widths of all its stages, like an encoder of segmentation-models-pytorch."""

    out_channels = (4, 8, 2)

    @property
    def out_features(self):
        return list(self.out_channels)


class Odd(Module):
    """Logs what is no number, and has parts whose width is none."""

    def __init__(self):
        super().__init__()
        self.net = Stages(*self.net)
        self.of_each_class = OfEachClass()

    def validation_step(self, batch, batch_idx):
        self.of_each_class.update(batch[1])
        self.log("val/of_each_class", self.of_each_class)
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize("epochs", [(0, 0), (1, 2)])
def test_what_is_no_number_is_left_out(epochs, tmp_path):
    assert fit(tmp_path, epochs, 3, module=Odd())[1][1] == "2"


def test_no_report_ends_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_xai.pruning.report.log_scalars", lambda *args: 1 / 0)
    with pytest.warns(UserWarning, match="report is incomplete, training continues. ZeroDivisionError"):
        fit(tmp_path, (1, 2), 3)
