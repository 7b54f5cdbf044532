"""The transformer for texts."""

import torch
from torch import Tensor, nn

from lit_xai.models.sizes import check_positive, check_probability
from lit_xai.models.vision_transformer import TransformerBlock


class TextTransformer(nn.Module):
    """Small transformer for texts that predicts from the mean of its tokens, to train from nothing.

    Pre-norm blocks and learned positions, as in :class:`~lit_xai.models.VisionTransformer`. Its arguments are those of
    Hugging Face's networks, so that batches of :class:`~lit_xai.data.TextDataModule` fit; padding takes no part.

    Args:
        vocab_size: number of ids.
        num_classes: classes, or numbers predicted.
        max_length: most tokens of a text.
        dim: channels of a token.
        depth: number of blocks; with none, it is a linear model of the mean embedding.
        heads: attention heads, a divisor of ``dim``.
        mlp_ratio: hidden width of a block's perceptron, as a multiple of ``dim``.
        dropout: on the outputs of attention and perceptron, before they are added, and on the mean.
        embedding_dropout: on the embeddings.
        padding: the id of the token for padding, with which attributions compare.

    Raises:
        ValueError: a size is not a positive integer, ``heads`` does not divide ``dim``, or a text is longer than
            ``max_length``.

    Example:
        >>> network = TextTransformer(vocab_size=100, dim=32, depth=1, heads=2)
        >>> network(torch.tensor([[5, 7, 0]]), torch.tensor([[1, 1, 0]])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        vocab_size: int = 8000,
        num_classes: int = 2,
        max_length: int = 128,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        dropout: float = 0.3,
        embedding_dropout: float = 0.3,
        padding: int = 0,
    ) -> None:
        super().__init__()
        check_positive(vocab_size=vocab_size, num_classes=num_classes, max_length=max_length)
        check_positive(dim=dim, heads=heads, mlp_dim=int(dim * mlp_ratio))
        check_probability(dropout=dropout, embedding_dropout=embedding_dropout)
        if dim % heads:
            raise ValueError(f"heads expected a divisor of dim={dim}, but got {heads}.")
        self.words = nn.Embedding(vocab_size, dim, padding_idx=padding)
        self.positions = nn.Embedding(max_length, dim)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, int(dim * mlp_ratio), dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)
        self._initialize(padding)

    def _initialize(self, padding: int) -> None:
        for table, std in ((self.words, 0.1), (self.positions, 0.02)):
            nn.init.normal_(table.weight, std=std)
        nn.init.zeros_(self.words.weight[padding].data)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits ``(batch, num_classes)``.

        Args:
            input_ids: ``(batch, tokens)``, integers.
            attention_mask: ``(batch, tokens)``, 1 for tokens and 0 for padding; by default all are tokens.
        """
        length = input_ids.shape[1]
        if not torch.compiler.is_compiling() and length > self.positions.num_embeddings:
            raise ValueError(
                f"input_ids expected texts of up to max_length={self.positions.num_embeddings} tokens, but got"
                f" {length}: set max_length of the data module to cut them, or of the network to read them whole."
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = torch.arange(length, device=input_ids.device)
        tokens = self.embedding_dropout(self.words(input_ids) + self.positions(places))
        for block in self.blocks:
            tokens = block(tokens, mask[:, None, None, :] > 0)
        weights = mask.to(tokens.dtype).unsqueeze(-1)
        mean = (self.norm(tokens) * weights).sum(dim=1) / weights.sum(dim=1)
        return self.head(self.dropout(mean))
