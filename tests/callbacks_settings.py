"""The fits that the side-effect tests compare: real digits, a small CNN, each Trainer setting."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torchmetrics import Metric
from witness import Witness

from lit_xai.callbacks import AttributionMonitor
from lit_xai.data import Digits


class Careless(Metric):
    """Do everything that a metric must not have an effect with: draw, write to its arguments, switch modes."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, network, inputs, attributions, target):
        torch.rand(3), np.random.rand(3), random.random()
        network.train()
        with torch.enable_grad():
            inputs.requires_grad_()
            self.total += torch.autograd.grad(network(inputs + torch.randn_like(inputs)).sum(), inputs)[0].sum()
        for tensor in (attributions, inputs.detach(), target):
            tensor.zero_()

    def compute(self):
        return self.total + torch.rand(())


METHODS: dict[str, dict[str, Any]] = {
    "IntegratedGradients": {"attribute_args": {"n_steps": 8}, "metrics": [Careless]},
    "DeepLift": {},
    "LayerGradCam": {"layer": "network.0"},
    "Occlusion": {"attribute_args": {"sliding_window_shapes": [1, 2, 2]}, "metrics": [Careless]},
    "KernelShap": {"attribute_args": {"feature_mask": 4, "n_samples": 8}},
    "LRP": {},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm and dropout": {},
    "compiled": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "accumulation": {"accumulate_grad_batches": 3},
    "ddp": {"strategy": "ddp", "devices": 2},
}


def network(setting: str) -> nn.Sequential:
    extra = [nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)] if setting != "plain" else [nn.ReLU()]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *extra, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))


class Plain(LightningModule):
    """A user's module, without anything of the library, and small to compile."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("loss", outputs["loss"])  # not in the step: the compiler cannot look into Lightning's log

    def validation_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def monitor(method: str) -> AttributionMonitor:
    return AttributionMonitor(method, probe=5, on_error="raise", **METHODS[method])


def fit(
    setting: str, callback: Any, folder: Path, backend: str = "aot_eager", further: Sequence[Any] = ()
) -> dict[str, Any]:
    seed_everything(1, verbose=False)
    model: Any = Plain(network(setting))
    if setting == "compiled":
        torch._dynamo.reset()
        model = torch.compile(model, backend=backend)
    witness = Witness()
    trainer = Trainer(
        max_epochs=2,
        limit_train_batches=4,
        limit_val_batches=1,
        callbacks=[*([callback] if callback else []), *further, witness],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"devices": 1} | SETTINGS[setting]),
    )
    trainer.fit(model, datamodule=Digits(batch_size=32))
    if callback and trainer.is_global_zero:  # the other process does not wait for the files
        is_retention = list(folder.rglob("retention.json"))
        assert is_retention or len(list(folder.rglob("attributions.npz"))) >= 2
    return witness.seen()
