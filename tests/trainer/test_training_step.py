"""What a training step calls, in words."""

import torch
from taught import Conv, Module
from torch import nn

from lit_xai.trainer.training_step import candidates, say_what_is_called


def test_of_what_is_compiled_the_wrapper_is_the_one_that_is_called():
    module = Module(Conv())
    module.network = torch.compile(module.network, backend="eager")
    assert candidates(module, "network") == {"network": module.network}
    assert candidates(module, "network.head") == {"network.head": module.network._orig_mod.head}
    assert candidates(module, "") == {"": module}


def test_what_is_said():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert "Sequential.training_step calls itself and '0': name" in say_what_is_called(module, ["", "0"], None)
    assert "does not call '0': name the network" in say_what_is_called(module, [], "0")
    assert "one of ['0']" in say_what_is_called(module, [], None)
