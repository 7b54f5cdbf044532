"""A network after a change that failed: the same objects with the same values."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.structure.put_back import put_back_on_error


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.sizes = nn.Linear(4, 4), nn.BatchNorm1d(4), [4, 4]
        self.again = self.layer  # shared
        self.layer.register_forward_hook(lambda *_: None)


def everything(module):
    tensors = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    return (
        {name: (id(value), value.data_ptr(), value.requires_grad, value.tolist()) for name, value in tensors.items()},
        {name: (id(one), type(one), one.training) for name, one in module.named_modules(remove_duplicate=False)},
        {name: copy.copy(vars(one)["_forward_hooks"]) for name, one in module.named_modules()},
        list(module.sizes),
        sorted(vars(module)),
    )


CHANGES = {
    "a module": lambda block: setattr(block, "layer", nn.Linear(4, 2)),
    "a parameter": lambda block: setattr(block.layer, "weight", nn.Parameter(torch.zeros(2, 4))),
    "a parameter's data": lambda block: setattr(block.layer.weight, "data", torch.zeros(2, 4)),
    "values": lambda block: block.layer.weight.data.zero_(),
    "a buffer": lambda block: block.norm.running_mean.fill_(7),
    "no gradient": lambda block: block.layer.weight.requires_grad_(False),
    "an attribute": lambda block: setattr(block, "extra", 3),
    "a list": lambda block: block.sizes.append(5),
    "hooks": lambda block: block.layer._forward_hooks.clear(),
    "a mode": lambda block: block.eval(),
    "a class": lambda block: setattr(block, "__class__", nn.Module),
    "a child": lambda block: block.add_module("more", nn.ReLU()),
    "a parameter fewer": lambda block: delattr(block.norm, "bias"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_it_is_the_same(change, error):
    block = Block()
    before = everything(block)

    def fail():
        with put_back_on_error(block):
            change(block)
            raise error

    with pytest.raises(error):
        fail()
    assert everything(block) == before


def test_what_succeeds_stays():
    block = Block()
    with put_back_on_error(block):
        block.layer = nn.Linear(4, 2)
    assert block.layer.out_features == 2
