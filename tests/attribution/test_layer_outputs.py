"""Outputs of layers, against a network taken apart."""

import pytest
import torch
from torch import nn

from lit_xai.attribution.layer_outputs import first_filters, layer_outputs, layers_with_weights
from lit_xai.models import MLP, ResNet


def test_outputs_are_those_of_the_network_taken_apart():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    images = torch.randn(5, 1, 8, 8)
    found = {one.name: one for one in layer_outputs(network, images, layers=["0", "2", "4"])}
    network.eval()
    hidden = network[2](network[1](network[0](images)))
    for name, expected in {"0": network[0](images), "2": hidden, "4": network(images)}.items():
        torch.testing.assert_close(found[name].values, expected.detach())
    torch.testing.assert_close(found["4"].inputs, hidden.flatten(1).detach())


def test_the_order_is_that_of_the_call_and_each_layer_is_there_once():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(self.first(x)))

    found = layer_outputs(Turned(), torch.randn(3, 4))
    assert [one.name for one in found] == ["first", "last"]


def test_nothing_stays_on_the_network():
    network = ResNet(depth=8, width=4, in_channels=1, num_classes=10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layer_outputs(network, torch.randn(4, 1, 8, 8))
    assert network.training
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_hooks for module in network.modules())


def test_weights_of_one_dimension_are_no_layers():
    network = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.PReLU(), nn.Embedding(3, 2))
    assert list(layers_with_weights(network)) == ["0", "3"]
    assert list(layers_with_weights(nn.Linear(2, 3))) == [""]


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (ResNet(depth=8, width=4, in_channels=3, num_classes=2), (2, 3, 8, 8), (4, 3, 3, 3)),
        (MLP(48, [5], 2), (2, 3, 4, 4), (5, 3, 4, 4)),
        (nn.Conv2d(1, 6, 5), (2, 1, 8, 8), (6, 1, 5, 5)),
        (nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 3)), (2, 3, 8, 8), None),
        (nn.Sequential(nn.Linear(8, 6)), (2, 1, 8, 8), None),
    ],
)
def test_filters_are_the_first_weights_where_those_are_pictures(network, shape, expected):
    images = torch.randn(shape)
    found = first_filters(network, images, layer_outputs(network, images))
    assert (None if found is None else tuple(found.shape)) == expected


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="layers"):
        layer_outputs(MLP(4, [3], 2), torch.zeros(1, 4), layers=["layer9"])
