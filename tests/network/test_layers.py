"""Layers by name, pattern and class, and the last ones before the output."""

import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.models import ResNet
from lit_xai.network.layers import channels, layers_behind, match_layers, output_layers
from lit_xai.network.opaque import opaque


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["layer1.0.conv1"], {"layer1.0.conv1"}),
        (["layer?.0.conv1"], {"layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"}),
        (["fc", "conv1"], {"fc", "conv1"}),
        ([nn.Linear], {"fc"}),
        (["torch.nn.Linear"], {"fc"}),
    ],
)
def test_matches(given, expected):
    network = ResNet(8, width=4)
    found = match_layers(network, given, "ignored_layers")
    assert {name for name, module in network.named_modules() if module in found} == expected


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("layer1.0.conv9", ("ignored_layers: 'layer1.0.conv9' matches no layer", "Did you mean 'layer1.0.conv")),
        ("*.attention", ("ignored_layers: '*.attention' matches no layer",)),
        ("torch.nn.Conv9d", ("ignored_layers='torch.nn.Conv9d'", "Did you mean")),
        (nn.LSTM, ("ignored_layers: 'LSTM' matches no layer",)),
        (3, ("ignored_layers expected layers' names, patterns or classes", "3")),
    ],
)
def test_refused(given, parts):
    with refused(*parts):
        match_layers(ResNet(8, width=4), [given], "ignored_layers")


def test_compiled_layers_go_by_their_own_names():
    network = nn.Sequential(torch.compile(nn.Linear(2, 3), backend="eager"), nn.Linear(3, 1))
    assert channels(network) == {"0": 3, "1": 1}


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.left, self.right = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        x = self.body(x).relu()
        return self.left(x).softmax(1) * self.scale + self.right(x)


def test_several_layers_come_last():
    network = Several()
    assert set(output_layers(network, torch.zeros(1, 4))) == {network.left, network.right}


def test_nothing_behind_an_opaque_layer_comes_last():
    network = nn.ModuleList([nn.Linear(4, 6), nn.GRUCell(4, 6)])
    linear, cell = network
    x = torch.zeros(1, 4)
    assert set(layers_behind(network, [cell(x, linear(x))])) == {cell, linear}  # the old state is part of the new one
    with opaque([cell]):
        assert layers_behind(network, [cell(x, linear(x))]) == []
        assert layers_behind(network, [cell(x, linear(x)) + linear(x)]) == [linear]


def test_one_name_is_as_good_as_a_list_of_it():
    network = ResNet(8, width=4)
    assert match_layers(network, "layer1*", "ignored_layers") == match_layers(network, ["layer1*"], "ignored_layers")
    assert match_layers(network, nn.Linear, "ignored_layers") == [network.fc]


def test_only_a_number_is_a_width():
    encoder = nn.Sequential(nn.Linear(4, 6))
    encoder.out_channels = [3, 4, 6]  # of all its stages, as in segmentation-models-pytorch
    encoder[0].out_channels = None
    assert channels(nn.ModuleList([encoder])) == {"0.0": 6}
