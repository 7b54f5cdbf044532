from itertools import pairwise

import pytest
import torch
from torch import nn

from lit_xai.models import MLP


@pytest.mark.parametrize("widths", [(784, 128, 64, 10), (64, 10), (5, 7, 7, 7, 2)])
def test_parameters_are_weights_and_biases_of_each_layer(widths):
    network = MLP(widths[0], widths[1:-1], widths[-1])
    expected = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.zeros(2, widths[0])).shape == (2, widths[-1])


def test_the_default_is_784_128_64_10():
    assert [m.out_features for m in MLP().modules() if isinstance(m, nn.Linear)] == [128, 64, 10]


def test_every_hidden_layer_has_its_own_relu_and_dropout():
    layers = [type(m).__name__ for m in MLP(64, [8, 4], 2, dropout=0.5).layers]
    assert layers == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": (128, 0)}, "hidden expected a positive integer, but got 0"),
        ({"in_features": -1}, "in_features expected a positive integer"),
        ({"dropout": 1.0}, r"dropout expected a number in \[0, 1\), but got 1.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)
