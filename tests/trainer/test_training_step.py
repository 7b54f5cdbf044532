"""What a training step calls, tried before it runs."""

import pytest
import torch
from taught import Conv, Module, data
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.trainer.training_step import called_by_step, candidates, say_what_is_called

BATCH = data().tensors


class Inside(Module):
    def training_step(self, batch, batch_idx):
        return self.network(batch[0]).square().mean()


class Fails(Module):
    def training_step(self, batch, batch_idx):
        self(batch[0])
        raise RuntimeError("on purpose")


class Manual(Module):
    automatic_optimization = False


@pytest.mark.parametrize(("kind", "expected"), [(Module, [""]), (Inside, ["network"]), (Fails, []), (Manual, [])])
def test_a_step_is_tried_and_nothing_moves(kind, expected):
    module = kind(Conv())
    before = digest([module_state(module), rng_state()])
    assert called_by_step(module, BATCH) == expected
    assert digest([module_state(module), rng_state()]) == before


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
