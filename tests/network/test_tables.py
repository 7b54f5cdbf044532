import pytest
import torch
from torch import nn

from lit_xai.attribution.tokens import embedding_instead
from lit_xai.models import SpelledEmbedding
from lit_xai.network.tables import is_table, tables


class Sizes(nn.Module):
    """Somebody's network, which keeps the sizes of its table under the names that tables have."""

    def __init__(self):
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = 20, 8, 0
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))


class Scaled(nn.Module):
    """A table with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = 20, 8, None
        self.weight, self.dropout = nn.Parameter(torch.randn(20, 8)), nn.Dropout()

    def forward(self, ids):
        return self.dropout(3 * nn.functional.embedding(ids, self.weight))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Embedding(9, 4), True),
        (SpelledEmbedding(9, 4, letters=9), True),
        (Scaled(), True),
        (Sizes(), False),
        (nn.EmbeddingBag(9, 4), False),
        (nn.Linear(9, 4), False),
    ],
)
def test_what_is_a_table(module, expected):
    assert is_table(module) is expected


def test_a_network_that_keeps_the_sizes_of_its_table_is_explained_at_the_table():
    network = nn.Sequential(Sizes(), nn.Identity())
    assert list(tables(network)) == ["0.embedding"]
    assert embedding_instead(network, torch.tensor([[1, 2, 3]])).layer == "0.embedding"


def test_a_table_of_ones_own_class_is_found():
    network = nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(24, 2))
    assert embedding_instead(network, torch.tensor([[1, 2, 3]])).layer == "0"
