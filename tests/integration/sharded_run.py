"""Run by test_sharded.py in two processes: a network that is pruned, then sharded, in ``configure_model``.

python sharded_run.py FOLDER
"""

import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

from lit_xai.functional import prune_step
from lit_xai.recipe import take_step_


class Sharded(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.is_configured = False

    def configure_model(self):
        if self.is_configured:
            return
        self.is_configured = True
        take_step_(self.network, prune_step(self.network, torch.zeros(1, 8), pruning_ratio=0.5))
        if self.device_mesh is not None:  # there is none where a checkpoint is loaded
            from torch.distributed.fsdp import fully_shard

            fully_shard(self.network, mesh=self.device_mesh["data_parallel"])

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def main(folder):
    warnings.simplefilter("ignore")
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy=strategy, enable_checkpointing=False, **quiet
    )
    trainer.fit(Sharded(), DataLoader(TensorDataset(x, x[:, :4].argmax(1)), 8))
    trainer.save_checkpoint(folder / "sharded.ckpt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_together()
