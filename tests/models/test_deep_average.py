import pytest
import torch

from lit_xai.models import DeepAverage

SMALL = {"vocab_size": 30, "num_classes": 3, "dim": 16, "hidden": 8}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return DeepAverage(**SMALL).eval()


def test_padding_changes_nothing(network):
    ids = torch.tensor([[5, 6, 7]])
    padded, mask = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    torch.testing.assert_close(network(padded, mask), network(ids))
    torch.testing.assert_close(network(padded.where(mask > 0, 9), mask), network(ids))


def test_the_order_does_not_matter(network):
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(network(ids), network(ids.flip(1)))


def test_without_the_perceptron_it_is_linear_in_the_words(network):
    for parameter in network.fc2.parameters():
        torch.nn.init.zeros_(parameter)
    ids = torch.tensor([[5, 6, 7]])
    mean = network.words.weight[ids[0]].mean(0)
    torch.testing.assert_close(network(ids)[0], network.head.weight @ mean + network.head.bias)


def test_parameters_by_closed_form():
    expected = 30 * 16 + (16 * 8 + 8) + (8 * 16 + 16) + (16 * 3 + 3)
    assert sum(p.numel() for p in DeepAverage(**SMALL).parameters()) == expected


def test_padding_begins_at_zero_and_stays_there(network):
    network.train()
    network(torch.tensor([[5, 0]]), torch.tensor([[1, 0]])).sum().backward()
    assert not network.words.weight[0].any()
    assert not network.words.weight.grad[0].any()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"vocab_size": 0}, "vocab_size"),
        ({"hidden": 2.5}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"embedding_dropout": -0.1}, "embedding_dropout"),
    ],
)
def test_arguments_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        DeepAverage(**{**SMALL, **options})
