"""Run by test_ddp.py in two processes: SGD 0.1, one-cycle, synchronized BatchNorms; in float and trained for integers.

torch refuses its own SyncBatchNorm on CPUs. The class here computes what that does on GPUs, with its gradients.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce

from lit_xai import QuantizationAwareTraining
from lit_xai.data import Digits
from lit_xai.models import Classifier, ResNet

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together

warnings.simplefilter("ignore")
EPOCHS = 8


class Synchronized(nn.BatchNorm2d):
    """Normalizes by the statistics of the batches of all processes."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        n = distributed.get_world_size()
        mean = all_reduce(x.mean((0, 2, 3))) / n
        variance = all_reduce((x - mean[:, None, None]).square().mean((0, 2, 3))) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


def synchronized(network):
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                module.add_module(name, Synchronized(child.num_features))
    return network


def fit(callbacks):
    seed_everything(1, verbose=False)
    data = Digits(batch_size=32)
    data.setup("fit")
    network = synchronized(ResNet(depth=8, width=8, in_channels=1, num_classes=10))
    module = Classifier(network, num_classes=10)
    steps = EPOCHS * len(data.train_dataloader()) // 2

    def configure_optimizers():
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps + EPOCHS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module.configure_optimizers = configure_optimizers
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        default_root_dir=sys.argv[1],
        callbacks=callbacks,
        **quiet,
    )
    trainer.fit(module, data)
    norms = [value.tolist() for name, value in network.named_buffers() if name.endswith(("_mean", "_var"))]
    return {"accuracy": float(trainer.callback_metrics["val/accuracy"]), "norms": norms}


if __name__ == "__main__":
    starts = {"float": None, "0.25": 0.25, "0.7": 0.7}
    found = {k: fit([] if s is None else [QuantizationAwareTraining(s)]) for k, s in starts.items()}
    rank = distributed.get_rank()
    Path(sys.argv[1], f"norms-{rank}.json").write_text(json.dumps(found))
    leave_together()
