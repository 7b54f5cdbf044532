"""Layers that keep their width for what follows the network's weights."""

import torch
from torch import nn

from lit_xai.pruning.followers import compared_layers


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 36, 5), nn.ReLU())
        self.end = nn.Linear(5, 2)

    def forward(self, x):
        return self.end(self.head(self.body(x)))


def test_the_last_layers_of_a_part_are_found_and_the_network_stays_as_it_is():
    network = Chain().train().requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    compared = {"body": "body_m", "head": "head_m", "end": "end_m", "elsewhere": "far"}
    with torch.no_grad():
        kept = compared_layers(network, torch.randn(2, 3, 8, 8), compared)
    # The last one gives the output, which stays whole by itself.
    assert [one.layers for one in kept] == [("body.0",), ("head.1",)]
    assert "'body_m'" in kept[0].reason
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not any(one.requires_grad for one in network.parameters())
