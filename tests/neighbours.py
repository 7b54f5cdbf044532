"""Features of Lightning that share a run with the callbacks: what to run, and how to tell that both had their effect.

The rows are those of the table in docs/neighbours.md.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import (
    AttributionMonitor,
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    StructuredPruning,
)

WIDTH = 16
SAMPLES = 64


class Rows(LightningDataModule):
    """Rows of 8 numbers of 4 classes; an attribute for the batch size, as the batch size finders want it."""

    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(SAMPLES, 8, generator=generator)
        self.data = TensorDataset(x, x[:, :4].argmax(1))

    def train_dataloader(self) -> Any:
        return DataLoader(self.data, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.data, self.batch_size)


class Module(LightningModule):
    """A backbone and a head, as the finetuning callback wants them, and a learning rate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lr = 0.01
        self.backbone = nn.Sequential(nn.Linear(8, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4))
        self.batch_sizes: set[int] = set()
        self.steps = 0

    def forward(self, x: Any) -> Any:
        return self.head(self.backbone(x))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.steps += 1
        self.batch_sizes.add(len(batch[0]))
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, self.lr, momentum=0.9)


MAKE: dict[str, Callable[[Any], Any]] = {
    "AttributionMonitor": lambda folder: AttributionMonitor("InputXGradient", probe=4, on_error="raise"),
    "StructuredPruning": lambda folder: StructuredPruning(
        0.5, start_epoch=1, end_epoch=1, every_n_epochs=1, report_latency=False
    ),
    "QuantizationAwareTraining": lambda folder: QuantizationAwareTraining(2, calibration_batches=1, freeze_epoch=3),
    "KnowledgeDistillation": lambda folder: KnowledgeDistillation("ema", ema_decay=0.5),
    "ModelExport": lambda folder: ModelExport(folder / "export", program=False, calibrate=16),
}
"""The five callbacks, by the columns of the table."""
