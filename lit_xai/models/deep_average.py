"""The network that predicts from the average of a text's words."""

import torch
from torch import Tensor, nn

from lit_xai.models.sizes import check_positive, check_probability
from lit_xai.models.spelled_embedding import SpelledEmbedding
from lit_xai.network.check import check_integer


class DeepAverage(nn.Module):
    """Deep averaging network, which predicts from the mean of a text's embeddings, to train from nothing.

    `Iyyer et al. 2015 <https://aclanthology.org/P15-1162/>`_, with a linear path beside the perceptron. Where texts to
    train on are few, it learns more from them than attention does, which can learn them by heart. The order of tokens
    is not seen. Batches are those of :class:`~lit_xai.data.TextDataModule`; padding takes no part.

    Args:
        vocab_size: number of ids.
        num_classes: classes, or numbers predicted.
        dim: channels of a token.
        letters: rows for groups of letters, by which words that are written alike share what is learned; default 0,
            none. See :class:`~lit_xai.models.SpelledEmbedding`.
        hidden: width of the perceptron.
        dropout: on the hidden layer of the perceptron, and on what is classified.
        embedding_dropout: on the embeddings.
        padding: the id of the token for padding, with which attributions compare.

    Raises:
        ValueError: a size is not a positive integer, or a probability is not from 0 up to but not including 1.

    Example:
        >>> network = DeepAverage(vocab_size=100, dim=32, hidden=32)
        >>> network(torch.tensor([[5, 7, 0]]), torch.tensor([[1, 1, 0]])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        vocab_size: int = 30000,
        num_classes: int = 2,
        dim: int = 128,
        hidden: int = 256,
        letters: int = 0,
        dropout: float = 0.5,
        embedding_dropout: float = 0.3,
        padding: int = 0,
    ) -> None:
        super().__init__()
        check_positive(vocab_size=vocab_size, num_classes=num_classes, dim=dim, hidden=hidden)
        check_integer("letters", letters, 0)
        check_probability(dropout=dropout, embedding_dropout=embedding_dropout)
        self.words: nn.Module = nn.Embedding(vocab_size, dim, padding_idx=padding)
        if letters:
            self.words = SpelledEmbedding(vocab_size, dim, letters, padding)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.fc1 = nn.Linear(dim, hidden)
        self.gelu = nn.GELU()
        self.hidden_dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)
        # Small, so that a word that was not met in training says little.
        for table in self.words.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.05)
                nn.init.zeros_(table.weight[table.padding_idx].data)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits ``(batch, num_classes)``.

        Args:
            input_ids: ``(batch, tokens)``, integers.
            attention_mask: ``(batch, tokens)``, 1 for tokens and 0 for padding; by default all are tokens.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        tokens = self.embedding_dropout(self.words(input_ids))
        weights = mask.to(tokens.dtype).unsqueeze(-1)
        mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1)
        deep = self.fc2(self.hidden_dropout(self.gelu(self.fc1(mean))))
        return self.head(self.dropout(mean + deep))
