"""The code of training with the layers of evaluation."""

import torch
from torch import nn

from lit_xai.network.modes import training_code


class Norm(nn.BatchNorm1d):
    """A layer derived from one of torch's, with a forward of its own."""

    def forward(self, x):
        return super().forward(x).relu()


class Noise(nn.Module):
    """A layer of somebody's own."""

    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


class Counted(nn.Module):
    """A container with code, and buffers that it moves in training."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), Norm(6), nn.Dropout(), Noise())
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        x = self.layers(x)
        if not self.training:
            return x.amax(1)
        self.seen += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x, self.seen.clone()


def test_no_statistic_moves_and_no_noise_is_added():
    torch.manual_seed(0)
    network, x = Counted(), torch.randn(8, 4)
    network(x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    held, buffers = dict(network.layers[1].named_buffers()), dict(network._buffers)
    expected = network.eval().layers(x)
    network.train()
    network.layers[0].eval()
    modes = [part.training for part in network.modules()]
    state = torch.get_rng_state()
    for context in (torch.no_grad, torch.inference_mode):
        with context(), training_code(network):
            result, seen = network(x)
            assert seen == before["seen"] + 1  # the code ran as in training
        torch.testing.assert_close(result, expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(network.layers[1]._buffers[name] is value for name, value in held.items())
    assert all(network._buffers[name] is value for name, value in buffers.items())


def test_it_ends_with_an_exception():
    network = Counted().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        with training_code(network):
            network(torch.zeros(2, 4))
            raise KeyError
    except KeyError:
        pass
    assert not any(part.training for part in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
