"""Attributions of written tokens to those read, where the answer is known."""

import pytest
import torch
from torch import nn

from lit_xai.attribution.source_matrix import source_matrix

V, E = 9, 4


class Linear(nn.Module):
    """Logits at each place are a linear function of the embedding read there, and of what was written before."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.before = nn.Embedding(V, E, padding_idx=0), nn.Embedding(V, V)
        self.head = nn.Linear(E, V)

    def forward(self, input_ids, attention_mask, decoder_input_ids):
        read = self.table(input_ids) * attention_mask[..., None]
        length = decoder_input_ids.shape[1]
        return self.head(read[:, :length]) + self.before(decoder_input_ids)


@pytest.fixture
def inputs():
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 2, 0]])
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "decoder_input_ids": torch.tensor([[0, 1, 2], [0, 3, 0]]),
    }


def test_a_linear_network_owes_each_token_to_the_one_at_its_place(inputs):
    network, labels = Linear(), torch.tensor([[1, 2, 4], [3, 5, -100]])
    first, second = source_matrix(network, inputs, labels)
    assert first.shape == (3, 4)
    assert second.shape == (2, 3)  # without padding on either side
    for row, found in enumerate((first, second)):
        for place in range(len(found)):
            weight = network.head.weight[labels[row, place]]
            expected = torch.zeros(found.shape[1])
            difference = network.table.weight[inputs["input_ids"][row, place]] - network.table.weight[0]
            expected[place] = difference @ weight
            torch.testing.assert_close(found[place], expected.detach(), rtol=1e-4, atol=1e-5)


def test_nothing_is_left_behind_and_it_is_the_same_again(inputs):
    network, labels = Linear().train(), torch.tensor([[1, 2, 4], [3, 5, 6]])
    first, again = (source_matrix(network, inputs, labels, internal_batch_size=size) for size in (2, 64))
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other)
    assert network.training


@pytest.mark.parametrize("method", ["LayerGradientXActivation", "LayerIntegratedGradients"])
def test_other_methods_and_layers(inputs, method):
    found = source_matrix(Linear(), inputs, torch.tensor([[1, 2, 4], [3, 5, 6]]), method=method, layer="table")
    assert (found[0].abs().argmax(1) == torch.arange(3)).all()


def test_a_sample_without_tokens_has_no_rows(inputs):
    empty, _ = source_matrix(Linear(), inputs, torch.tensor([[-100, -100, -100], [3, 5, 6]]))
    assert empty.shape == (0, 4)


def test_a_network_without_embedding_is_refused():
    class Sums(nn.Module):
        def forward(self, input_ids, decoder_input_ids):
            return torch.zeros(*decoder_input_ids.shape, V) + input_ids.sum()

    inputs = {
        "input_ids": torch.ones(1, 2, dtype=torch.int64),
        "decoder_input_ids": torch.ones(1, 2, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match="tokens that enter an embedding"):
        source_matrix(Sums(), inputs, torch.tensor([[1, 2]]))
