"""Run by test__structure.py in two processes and in one: the same total batch, two changes of structure."""

import os
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.trainer.structure_change import change_structure

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

warnings.simplefilter("ignore")
torch.set_num_threads(1)

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))


class Change(Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch in (1, 2):
            size = pl_module.net[0].out_features
            # Every process decides by itself, the first one's decision counts.
            kept = pl_module.net[0].weight.norm(dim=1).argsort()[1:].sort().values.tolist()
            kept = trainer.strategy.broadcast(kept)
            rows = [[name, 0, size, kept] for name in ("net.0.weight", "net.0.bias")] + [
                ["net.2.weight", 1, size, kept]
            ]
            attributes = [["net.0", "out_features", size, len(kept)], ["net.2", "in_features", size, len(kept)]]
            change_structure(trainer, pl_module, {"kind": "prune", "kept": rows, "attributes": attributes})

    def on_train_epoch_end(self, trainer, pl_module):
        name = f"epoch{trainer.current_epoch}-rank{trainer.global_rank}.pt"
        torch.save(pl_module.state_dict(), self.folder / name)


class Module(LightningModule):
    def __init__(self, by_hand):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.automatic_optimization = not by_hand

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def main(folder, by_hand, static_graph):
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(32, 6, generator=generator), torch.arange(32) % 3)
    trainer = Trainer(
        max_epochs=4,
        strategy=DDPStrategy(static_graph=static_graph, process_group_backend="gloo") if WORLD_SIZE > 1 else "auto",
        devices=WORLD_SIZE,
        accelerator="cpu",
        logger=False,
        callbacks=[Change(folder)],
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Of two processes' batches, rows 0, 2, 4, 6 and 1, 3, 5, 7 make up that of one.
    rows = range(int(os.environ.get("RANK", "0")), 32, WORLD_SIZE)
    trainer.fit(Module(by_hand), DataLoader(data, batch_size=8 // WORLD_SIZE, sampler=list(rows)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--by-hand" in sys.argv, "--static-graph" in sys.argv)
    leave_together()
