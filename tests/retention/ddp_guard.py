"""Run by test_guard.py in two processes: a cut that is undone on both at the end."""

import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from processes import leave_together
from test_guard import FAST, MISSED, QUIET, Cut, Module, Witness, data

from lit_xai import RetentionMonitor


def weights(found):
    # Statistics of BatchNorms and counters are each process's own.
    return {name: value for name, value in found.items() if "running" not in name and "num_batches" not in name}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    module, before = Module(), Witness()
    monitor = RetentionMonitor(guard=MISSED | {"val_acc": "drop<=1"}, **FAST)
    trainer = Trainer(
        max_epochs=3, default_root_dir=folder, callbacks=[before, Cut(1), monitor], strategy="ddp", devices=2, **QUIET
    )
    trainer.fit(module, DataLoader(data(), 16), DataLoader(data(50, 1), 25))
    accepted, end = weights(before.at[1]), weights(before.at["end"])
    torch.save({"accepted": accepted, "end": end}, folder / f"{trainer.global_rank}.pt")
    leave_together()
