"""Run by test_ddp.py in one or two processes: a fit with distillation, which saves the weights of each process."""

import os
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import leave_together
from taught import Conv, Module, data

from lit_xai import ExplanationMatching, KnowledgeDistillation, StructuredPruning

SETTINGS = {
    "adapters": lambda: [KnowledgeDistillation(Conv(12, seed=2), features=["first", "second"])],
    "explained": lambda: [KnowledgeDistillation(Conv(12, seed=2), explanation=ExplanationMatching(every_n_steps=2))],
    "ema": lambda: [KnowledgeDistillation("ema", ema_decay=0.5)],
    "dense": lambda: [
        StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False),
        KnowledgeDistillation("dense", features=["second"]),
    ],
    "cached": lambda: [KnowledgeDistillation(Conv(12, seed=2), cache="memory")],
}


class Weights(Callback):
    """The weights of the student and of the adapters, each epoch."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        (kept,) = (one for one in trainer.callbacks if isinstance(one, KnowledgeDistillation))
        adapters = {f"adapter {i}": p.detach().clone() for i, p in enumerate(kept._adapters.parameters())}
        self.seen.append({name: p.detach().clone() for name, p in pl_module.named_parameters()} | adapters)


def fit(folder, setting):
    seed_everything(0, verbose=False)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    weights = Weights()
    trainer = Trainer(
        max_epochs=4,
        strategy="ddp" if world_size > 1 else "auto",
        devices=world_size,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        callbacks=[*SETTINGS[setting](), weights],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Both processes together see the batches of the one.
    order = torch.arange(64).reshape(-1, world_size, 16 // world_size)[:, trainer.global_rank].flatten().tolist()
    loaders = [DataLoader(data(), batch_size=16 // world_size, sampler=order) for _ in range(2)]
    trainer.fit(Module(Conv()), *loaders)
    found = {"weights": weights.seen, "logged": float(trainer.callback_metrics["val/loss"])}
    torch.save(found, folder / f"{setting}-{world_size}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in SETTINGS:
        fit(Path(sys.argv[1]), name)
    leave_together()
