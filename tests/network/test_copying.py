import lightning.pytorch as lightning
import torch
from torch import nn

from lit_xai.network.copying import copy_network


def test_copy_network_leaves_the_trainer_behind():
    module = lightning.LightningModule()
    module.inner = nn.Sequential(nn.Linear(2, 2))
    module._trainer = lightning.Trainer(logger=False, accelerator="cpu", barebones=True)
    copied = copy_network(module)
    assert copied._trainer is None  # Lightning leaves it out of copies too
    assert copied.inner[0].weight is not module.inner[0].weight
    assert torch.equal(copied.inner[0].weight, module.inner[0].weight)
