import pytest
import torch

from lit_xai.models import TextTransformer

SMALL = {"vocab_size": 30, "num_classes": 3, "max_length": 10, "dim": 16, "depth": 2, "heads": 2}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TextTransformer(**SMALL).eval()


def test_padding_changes_nothing(network):
    ids = torch.tensor([[5, 6, 7]])
    padded, mask = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    torch.testing.assert_close(network(padded, mask), network(ids))
    torch.testing.assert_close(network(padded.where(mask > 0, 9), mask), network(ids))


def test_without_blocks_it_is_linear_in_the_embeddings_before_the_norm():
    network = TextTransformer(**{**SMALL, "depth": 0}).eval()
    network.norm = torch.nn.Identity()
    ids = torch.tensor([[5, 6, 7]])
    hidden = (network.words.weight[ids[0]] + network.positions.weight[:3]).mean(0)
    torch.testing.assert_close(network(ids)[0], network.head.weight @ hidden + network.head.bias)


def test_parameters_by_closed_form():
    dim, mlp = 16, 32
    block = 4 * (dim * dim + dim) + 2 * 2 * dim + (dim * mlp + mlp) + (mlp * dim + dim)
    expected = 30 * dim + 10 * dim + 2 * block + 2 * dim + (dim * 3 + 3)
    assert sum(p.numel() for p in TextTransformer(**SMALL).parameters()) == expected


def test_positions_matter(network):
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(network(ids), network(ids.flip(1)))


def test_padding_begins_at_zero_and_stays_there(network):
    network.train()
    network(torch.tensor([[5, 0]]), torch.tensor([[1, 0]])).sum().backward()
    assert not network.words.weight[0].any()
    assert not network.words.weight.grad[0].any()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"heads": 3}, "heads expected a divisor of dim=16, but got 3"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"embedding_dropout": -0.1}, "embedding_dropout"),
    ],
)
def test_arguments_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        TextTransformer(**{**SMALL, **options})


def test_a_text_that_is_too_long_is_one_sentence(network):
    with pytest.raises(ValueError, match="input_ids expected texts of up to max_length=10 tokens, but got 11"):
        network(torch.ones(1, 11, dtype=torch.int64))
