"""Features of Lightning that share a run with the callbacks: what to run, and how to tell that both had their effect.

The rows are those of the table in docs/neighbours.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
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
    "AttributionMonitor": lambda folder: AttributionMonitor(
        "InputXGradient", probe=4, every_n_epochs=4, on_error="raise"
    ),
    "StructuredPruning": lambda folder: StructuredPruning(
        target_params=0.5, start_epoch=1, end_epoch=1, every_n_epochs=1, report_latency=False
    ),
    "QuantizationAwareTraining": lambda folder: QuantizationAwareTraining(3, calibration_batches=1, freeze_epoch=4),
    "KnowledgeDistillation": lambda folder: KnowledgeDistillation("ema", ema_decay=0.5),
    "ModelExport": lambda folder: ModelExport(folder / "export", program=False, calibrate=16),
}
"""The five callbacks, by the columns of the table."""


class Late(BackboneFinetuning):
    """Unfreezes after the cut of epoch 1, so that the parameters that it adds have to be the pruned ones."""

    def __init__(self) -> None:
        super().__init__(unfreeze_backbone_at_epoch=2, lambda_func=lambda epoch: 1.0)


class Stop(Callback):
    """Ends a run by an error after the cut and before quantization."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 2:
            raise KeyError("stop")


@dataclass(frozen=True)
class Neighbour:
    """A row of the table.

    Args:
        callbacks: of Lightning, given the run's folder.
        options: of the Trainer.
        check: that it had its effect, given the run's folder, its Trainer, its module and these callbacks.
        ignored: warnings that it gives by itself.
        batch_size: of the data module.
    """

    callbacks: Callable[[Any], list[Any]] = lambda folder: []
    options: dict[str, Any] = field(default_factory=dict)
    check: Callable[..., None] = lambda folder, trainer, module, callbacks: None
    ignored: tuple[str, ...] = ()
    batch_size: int = 16


def is_averaged(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    """The module has the weights of the average, whose shapes are the module's."""
    average = callbacks[0]._average_model
    average = getattr(average, "module", average)
    for mine, mean in zip(module.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(mine, mean)


def found_a_batch_size(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    assert trainer.datamodule.batch_size == callbacks[0].optimal_batch_size == 8
    assert len(module.batch_sizes) >= 1
    assert trainer.global_step == 4 * SAMPLES // 8
    assert not list(folder.glob(".scale_batch_size*"))


def found_a_rate(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    suggested = callbacks[0].optimal_lr.suggestion()
    assert suggested is not None
    assert module.lr == suggested != 0.01
    assert {group["lr"] for group in trainer.optimizers[0].param_groups} == {suggested}
    assert trainer.global_step == 4 * SAMPLES // 4
    assert not list(folder.glob(".lr_find*"))


def has_unfrozen(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    first, second = trainer.optimizers[0].param_groups
    trained = [parameter for group in (first, second) for parameter in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in module.parameters()}
    assert {id(p) for p in module.backbone[0].parameters()} <= {id(p) for p in second["params"]}
    moved = trainer.optimizers[0].state[module.backbone[0].weight]["momentum_buffer"]
    assert moved.shape == module.backbone[0].weight.shape
    assert moved.abs().sum() > 0


def steps_less_often(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    assert trainer.global_step == 4 + 3 * 2
    assert trainer.accumulate_grad_batches == 2


def has_masks(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    weights = torch.cat([module.get_parameter(f"head.{place}.weight").flatten() for place in (0, 2)])
    assert (weights == 0).float().mean() > 0.3


def has_logged(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    assert "DeviceStatsMonitor" in (folder / "logs/lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]


def has_profiled(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    assert "run_training_epoch" in trainer.profiler.summary()


def has_traced(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
    assert "aten::" in trainer.profiler.summary()


def takes(steps: int) -> Callable[..., None]:
    def check(folder: Any, trainer: Any, module: Any, callbacks: Any) -> None:
        assert trainer.global_step == steps

    return check


ROWS = {
    "`WeightAveraging`": Neighbour(lambda folder: [WeightAveraging()], check=is_averaged),
    "`EMAWeightAveraging`": Neighbour(lambda folder: [EMAWeightAveraging(decay=0.5)], check=is_averaged),
    "`StochasticWeightAveraging`": Neighbour(
        lambda folder: [StochasticWeightAveraging(0.01, swa_epoch_start=2, annealing_epochs=1)], check=is_averaged
    ),
    "`BatchSizeFinder`": Neighbour(
        lambda folder: [BatchSizeFinder(max_trials=2, steps_per_trial=1, init_val=4)], check=found_a_batch_size
    ),
    "`LearningRateFinder`": Neighbour(
        lambda folder: [LearningRateFinder(1e-4, 0.1, num_training_steps=30)], check=found_a_rate, batch_size=4
    ),
    "`BackboneFinetuning`": Neighbour(
        lambda folder: [Late()], check=has_unfrozen, ignored=(".*params to be frozen already exist",)
    ),
    "`GradientAccumulationScheduler`": Neighbour(
        lambda folder: [GradientAccumulationScheduler({1: 2})], check=steps_less_often
    ),
    "`ModelPruning`": Neighbour(lambda folder: [ModelPruning("l1_unstructured", amount=0.2)], check=has_masks),
    "`DeviceStatsMonitor`": Neighbour(
        lambda folder: [DeviceStatsMonitor()], {"log_every_n_steps": 1, "logger": True}, has_logged
    ),
    '`profiler="simple"`': Neighbour(options={"profiler": "simple"}, check=has_profiled),
    '`profiler="pytorch"`': Neighbour(
        options={"profiler": "pytorch"}, check=has_traced, ignored=("The PyTorch Profiler default schedule",)
    ),
    "`overfit_batches`": Neighbour(
        options={"overfit_batches": 2}, check=takes(8), ignored=("You requested to overfit but enabled",)
    ),
    "`limit_train_batches`, `limit_val_batches`": Neighbour(
        options={"limit_train_batches": 2, "limit_val_batches": 1}, check=takes(8)
    ),
    "`limit_val_batches=0`": Neighbour(options={"limit_val_batches": 0}, check=takes(16)),
    "`check_val_every_n_epoch=None`": Neighbour(
        options={"check_val_every_n_epoch": None, "val_check_interval": 3}, check=takes(16)
    ),
}
"""The rows that one run tells all about; test_neighbours.py has a test for each of the others."""
