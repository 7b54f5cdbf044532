"""A module is loaded in the structure in which it was saved."""

import subprocess
import sys


def test_another_process_needs_the_class_alone(tmp_path):
    module_code = """
import torch, torch.nn.functional as F
from torch import nn
from lightning.pytorch import LightningModule
class Mine(LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 3)
    def forward(self, x):
        return self.b(F.relu(self.a(x)))
"""
    (tmp_path / "mine.py").write_text(module_code)
    save = """
import torch, mine
from lightning.pytorch import Trainer
from lit_xai.pruning.pruning import prune_step
from lit_xai.recipe import attach, take_step_
module = mine.Mine(width=12)
attach(module, "test")
take_step_(module, prune_step(module, torch.zeros(1, 4)))
trainer = Trainer(logger=False, accelerator="cpu")
trainer.strategy.connect(module)
trainer.save_checkpoint("mine.ckpt")
torch.save(module(torch.ones(2, 4)), "expected.pt")
"""
    load = """
import torch, mine, lit_xai
module = lit_xai.load_from_checkpoint(mine.Mine, "mine.ckpt")
assert module.a.out_features == 6
assert torch.equal(module(torch.ones(2, 4)), torch.load("expected.pt"))
"""
    for code in (save, load):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
