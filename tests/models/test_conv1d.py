import pytest
import torch
from torch import nn

from lit_xai.models import ConvNet1d


def test_layers_are_those_of_the_description():
    network = ConvNet1d(in_channels=3, width=8, depth=4, kernel_size=7, num_classes=5)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv1d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in convolutions] == [
        (3, 8, (7,)),
        (8, 16, (7,)),
        (16, 16, (7,)),
        (16, 8, (7,)),
    ]
    relus = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == 4  # one per use: explainers that hook ReLU refuse a module that runs twice


@pytest.mark.parametrize("length", [1, 2, 29, 100])
@pytest.mark.parametrize("stride", [1, 2])
def test_series_may_have_any_length(length, stride):
    network = ConvNet1d(in_channels=2, width=4, stride=stride, num_classes=3).eval()
    assert network(torch.randn(2, 2, length)).shape == (2, 3)


def test_logits_are_the_mean_over_positions_of_a_linear_map():
    torch.manual_seed(0)
    network = ConvNet1d(in_channels=2, width=4, num_classes=3).eval()
    x = torch.randn(2, 2, 11)
    hidden = network.blocks(x)
    at_positions = torch.stack([network.fc(hidden[:, :, i]) for i in range(11)])
    torch.testing.assert_close(network(x), at_positions.mean(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "kernel_size expected an odd number, .* but got 4"),
        ({"depth": 0}, "depth expected a positive integer"),
        ({"width": 2.0}, "width expected a positive integer"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvNet1d(**arguments)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 9), (2, 1, 3, 9)])
def test_series_of_other_channels_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"inputs expected series \(batch, 1, length\), but got shape .* set in_channels"
    ):
        ConvNet1d(in_channels=1)(torch.zeros(shape))
