"""Run by test_agreement.py in two processes: set-up work that fails in one of them ends both with one sentence."""

import os
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lit_xai import (
    AttributionMonitor,
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    StructuredPruning,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

warnings.simplefilter("ignore")
torch.set_num_threads(1)


class Module(LightningModule):
    """One whose network fails in one process, from its n-th forward outside of training on."""

    def __init__(self, broken_rank):
        super().__init__()
        self.network, self.broken_rank = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), broken_rank

    def forward(self, x):
        if int(os.environ["RANK"]) == self.broken_rank:
            raise RuntimeError("this process has no luck")
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    validation_step = None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Torn(Dataset):
    """Data that one process cannot read."""

    def __init__(self, broken_rank):
        self.broken_rank = broken_rank

    def __len__(self):
        return 16

    def __getitem__(self, place):
        if int(os.environ["RANK"]) == self.broken_rank:
            raise OSError("this process sees no disk")
        return torch.ones(6) * place, place % 3


class Teacher(nn.Module):
    """One that cannot be copied in one process."""

    def __init__(self, broken_rank):
        super().__init__()
        self.layer, self.broken_rank = nn.Linear(6, 3), broken_rank

    def forward(self, x):
        return self.layer(x)

    def __deepcopy__(self, memo):
        if int(os.environ["RANK"]) == self.broken_rank:
            raise ValueError("this process has no teacher")
        return Teacher(self.broken_rank)


def cases(folder):
    def pruning():
        return StructuredPruning(0.5, start_epoch=0, end_epoch=0, round_to=1, report_latency=False)

    def quantization(module=None):
        return QuantizationAwareTraining(start_epoch=0, module=module)

    def monitor():
        return AttributionMonitor("Saliency", probe=2)

    # The first process decides what is pruned, and exports.
    yield "pruning, network, 0", pruning(), Module(0), Torn(None)
    yield "export, network, 0", ModelExport(folder / "first"), Module(0), Torn(None)
    yield "quantization, network, 1", quantization(""), Module(1), Torn(None)
    yield "monitor, network, 1", monitor(), Module(1), Torn(None)
    yield "pruning, data, 1", pruning(), Module(None), Torn(1)
    yield "export, data, 1", ModelExport(folder / "second"), Module(None), Torn(1)
    yield "quantization, data, 0", quantization(), Module(None), Torn(0)
    yield "monitor, data, 0", monitor(), Module(None), Torn(0)
    yield "distillation, teacher, 1", KnowledgeDistillation(Teacher(1)), Module(None), Torn(None)


def fit(folder, callback, module, data):
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=1,
        strategy="ddp",
        devices=2,
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start, refused = time.perf_counter(), ""
    try:
        trainer.fit(module, DataLoader(data, batch_size=4))
    except Exception as error:
        refused = f"{type(error).__name__}: {error}"
    return refused, time.perf_counter() - start


if __name__ == "__main__":
    folder, found = Path(sys.argv[1]), {}
    for name, callback, module, data in cases(folder):
        found[name] = fit(folder, callback, module, data)
    whole = TensorDataset(torch.ones(16, 6), torch.arange(16) % 3)
    found["whole"] = fit(folder, StructuredPruning(0.5, round_to=1, report_latency=False), Module(None), whole)
    torch.save(found, folder / f"{os.environ['RANK']}.pt")
    leave_together()
