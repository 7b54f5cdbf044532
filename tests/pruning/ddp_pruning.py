"""Run by test_ddp_pruning.py in one or two processes: a pruned fit without BatchNorm, and each process' weights."""

import os
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import StructuredPruning

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

warnings.simplefilter("ignore")


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        # Adam divides rounding errors by small moments: only SGD stays close to itself in another order of summation.
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Weights(Callback):
    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})

    on_train_epoch_end = on_train_epoch_start


def fit(folder, importance):
    seed_everything(0, verbose=False)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    data = TensorDataset(torch.randn(64, 1, 8, 8), torch.arange(64) % 10)
    weights = Weights()
    trainer = Trainer(
        max_epochs=4,
        strategy="ddp" if world_size > 1 else "auto",
        devices=world_size,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        callbacks=[
            StructuredPruning(
                0.5, start_epoch=1, end_epoch=2, every_n_epochs=1, importance=importance, report_latency=False
            ),
            weights,
        ],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Both processes together see the batches of the one.
    order = torch.arange(64).reshape(-1, world_size, 16 // world_size)[:, trainer.global_rank].flatten().tolist()
    trainer.fit(Module(), DataLoader(data, batch_size=16 // world_size, sampler=order))
    torch.save(weights.seen, folder / f"{importance}-{world_size}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        fit(Path(sys.argv[1]), name)
    leave_together()
