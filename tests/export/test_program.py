"""A program computes what its network does, on any number of samples, and is no part of it."""

import contextlib

import pytest
import torch
from networks import STATES, Tokens, TwoInputs, cnn
from refusals import refused
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.export.program import export_program
from lit_xai.models import ResNet, VisionTransformer

CASES = {
    "cnn": (cnn, torch.randn(3, 2, 6, 6)),
    "tokens": (Tokens, torch.randint(11, (3, 4))),
    "resnet": (lambda: ResNet(8, width=8, in_channels=1), torch.randn(3, 1, 8, 8)),
    "vit": (lambda: VisionTransformer(8, 2, 1, 10, dim=16, depth=1, heads=2), torch.randn(3, 1, 8, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_computes_what_the_network_does(name, tmp_path):
    made, inputs = CASES[name]
    network = made().train()
    export_program(network, inputs[:1], tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for rows in (1, 2, 3):
        torch.testing.assert_close(program(inputs[:rows]), network.eval()(inputs[:rows]), atol=1e-5, rtol=1e-4)


def test_several_inputs(tmp_path):
    network, inputs = TwoInputs(), {"left": torch.randn(3, 5), "right": torch.randn(3, 4), "mode": "mean"}
    export_program(network, inputs, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(program(inputs["left"], inputs["right"]), network(**inputs))


@pytest.mark.parametrize("state", STATES)
def test_the_network_is_left_as_it_is(state, tmp_path, capfd, recwarn):
    network, x = STATES[state](), torch.randn(3, 2, 6, 6)
    before = digest([module_state(network), rng_state()])
    with contextlib.suppress(ValueError):  # of those that cannot be exported
        export_program(network, x, tmp_path / "model.pt2")
    assert digest([module_state(network), rng_state()]) == before
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_refusals(tmp_path):
    with refused("Undecided cannot be exported as a program", "data-dependent"):
        export_program(Undecided(), torch.zeros(2, 2), tmp_path / "model.pt2")
