"""Embeddings of words that share what is learned of the letters they are written with."""

import warnings
from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor, nn

from lit_xai.models.sizes import check_positive
from lit_xai.network.token_names import TokenNames

LENGTHS = (3, 4, 5)
"""Of the groups of letters."""
MOST = 24
"""Groups of one word; of a longer word the longest are left out."""


class SpelledEmbedding(nn.Module):
    """Embedding of a token: its own, plus those of the groups of neighboring letters that it is written with.

    `Bojanowski et al. 2017 <https://aclanthology.org/Q17-1010/>`_. Of a word that is rare in the texts to train on,
    more is known by what is written alike. Which groups a token has is a buffer, which :meth:`spell` fills from the
    names of the ids; the data modules of texts call it before the first step. Until then tokens have no letters, and
    training warns of that.

    Args:
        vocab_size: number of ids.
        dim: channels of a token.
        letters: rows of the table of groups, which share them by their checksums.
        padding: the id of the token for padding, whose embedding is zero.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> table = SpelledEmbedding(vocab_size=4, dim=8, letters=100)
        >>> table.spell(["[PAD]", "happy", "unhappy", "film"])
        >>> table(torch.tensor([[1, 2, 0]])).shape
        torch.Size([1, 3, 8])
    """

    spelling: Tensor

    def __init__(self, vocab_size: int, dim: int, letters: int, padding: int = 0) -> None:
        super().__init__()
        check_positive(vocab_size=vocab_size, dim=dim, letters=letters)
        self.tokens = nn.Embedding(vocab_size, dim, padding_idx=padding)
        self.letters = nn.Embedding(letters + 1, dim, padding_idx=0)
        # Rows of the groups of each token, filled up with that of no group.
        dtype = torch.int16 if letters < 2**15 else torch.int32
        self.register_buffer("spelling", torch.zeros(vocab_size, MOST, dtype=dtype))
        self.is_spelled = False
        self.register_load_state_dict_post_hook(_noticed)

    # What tells a table of embeddings: its size, and the token that stands for none.

    @property
    def num_embeddings(self) -> int:
        """Number of ids."""
        return self.tokens.num_embeddings

    @property
    def embedding_dim(self) -> int:
        """Channels of a token."""
        return self.tokens.embedding_dim

    @property
    def padding_idx(self) -> int | None:
        """The id of the token for padding."""
        return self.tokens.padding_idx

    def spell(self, names: Sequence[str]) -> None:
        """Find the groups of letters of each token.

        Args:
            names: one for each id, as its tokenizer has it: a word, or a piece of one.

        Raises:
            ValueError: there are more names than ids.
        """
        if len(names) > self.num_embeddings:
            raise ValueError(
                f"names: expected at most one for each of {self.num_embeddings} ids, but got {len(names)}."
            )
        read = TokenNames(names)
        rows = [() if read.is_special(i) else groups(*read.piece(i, after_text=True)) for i in range(len(names))]
        places = [[1 + crc32(group.encode()) % (self.letters.num_embeddings - 1) for group in row] for row in rows]
        found = torch.zeros_like(self.spelling, device="cpu")
        for i, row in enumerate(places):
            found[i, : len(row)] = torch.tensor(row, dtype=found.dtype)
        self.spelling.copy_(found)
        self.is_spelled = True

    def forward(self, ids: Tensor) -> Tensor:
        """Return embeddings ``(..., dim)``.

        Args:
            ids: of tokens, integers of any shape.
        """
        if self.training and not self.is_spelled:
            warnings.warn(
                "SpelledEmbedding does not know how its tokens are written, and learns nothing from letters: call"
                " spell() with the names of the ids before training, or set letters=0.",
                stacklevel=2,
            )
        rows = nn.functional.embedding(ids, self.spelling).int()
        count = (rows > 0).sum(-1, keepdim=True).clamp(min=1)
        # The sum of many random vectors grows with the root of their number.
        result: Tensor = self.tokens(ids) + self.letters(rows).sum(-2) * count.rsqrt()
        return result


def _noticed(table: SpelledEmbedding, keys: object) -> None:
    table.is_spelled = bool(table.spelling.any())


def groups(letters: str, begins_word: bool = True) -> tuple[str, ...]:
    """Return the groups of neighboring letters of a word or a piece of one, short ones first, each once.

    Args:
        letters: of the word.
        begins_word: whether it does; its begin and its end are letters too, ``<`` and ``>``.

    Example:
        >>> groups("bad")
        ('<ba', 'bad', 'ad>', '<bad', 'bad>')
    """
    word = f"<{letters}>" if begins_word else f"{letters}>"
    found = (word[i : i + n] for n in LENGTHS for i in range(len(word) - n + 1))
    return tuple(group for group in dict.fromkeys(found) if group != word)[:MOST]
