"""The vision transformer for small images."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_xai.models.sizes import check_images, check_positive, check_probability


class Attention(nn.Module):
    """Multi-head self-attention with query, key and value as layers of their own.

    Three layers rather than one fused layer: to prune a head, or channels of every head, is then to prune outputs of
    plain ``nn.Linear`` layers. The head's width is read from the tensors and the scale keeps its initial value, so that
    after pruning at most ``heads`` has to be set.

    Args:
        dim: channels of a token.
        heads: number of heads, a divisor of ``dim``.

    Example:
        >>> Attention(dim=32, heads=4)(torch.zeros(2, 16, 32)).shape
        torch.Size([2, 16, 32])
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``(batch, tokens, dim)`` from the same.

        Args:
            tokens: to mix.
            mask: ``(batch, 1, 1, tokens)``, False for tokens that none looks at.
        """
        query, key, value = (
            # (batch, tokens, heads * width) -> (batch, heads, tokens, width)
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        return self.out(mixed.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention, then a two-layer perceptron, each with a LayerNorm before it and a residual connection.

    Args:
        dim: channels of a token.
        heads: attention heads.
        mlp_dim: hidden width of the perceptron.
        dropout: on the outputs of both, before they are added.

    Example:
        >>> TransformerBlock(dim=32, heads=4, mlp_dim=64)(torch.zeros(2, 16, 32)).shape
        torch.Size([2, 16, 32])
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.dropout1 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, mlp_dim)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(mlp_dim, dim)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``(batch, tokens, dim)`` from the same; ``mask`` is that of :class:`Attention`."""
        tokens = tokens + self.dropout1(self.attention(self.norm1(tokens), mask))
        return tokens + self.dropout2(self.fc2(self.gelu(self.fc1(self.norm2(tokens)))))


class VisionTransformer(nn.Module):
    """Small vision transformer that predicts from the mean of its tokens.

    From `Dosovitskiy et al. 2021, An Image is Worth 16x16 Words <https://arxiv.org/abs/2010.11929>`_ (pre-norm blocks,
    learned positions), with mean pooling in place of the class token as in `Beyer et al. 2022
    <https://arxiv.org/abs/2205.01580>`_.

    Args:
        image_size: height and width of the image in pixels.
        patch_size: height and width of a patch in pixels, a divisor of ``image_size``.
        in_channels: channels of the image.
        num_classes: classes, or numbers predicted.
        dim: channels of a token.
        depth: number of blocks.
        heads: attention heads, a divisor of ``dim``.
        mlp_ratio: hidden width of a block's perceptron, as a multiple of ``dim``.
        dropout: on the outputs of attention and perceptron, before they are added.

    Raises:
        ValueError: a size is not a positive integer, ``patch_size`` does not divide ``image_size``, ``heads`` not
            ``dim``, or images of another size come in.

    Example:
        >>> network = VisionTransformer(image_size=32, patch_size=4, dim=64, depth=2, heads=4)
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        image_size: int = 32,
        patch_size: int = 4,
        in_channels: int = 3,
        num_classes: int = 10,
        dim: int = 128,
        depth: int = 6,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(image_size=image_size, patch_size=patch_size, in_channels=in_channels, num_classes=num_classes)
        check_positive(dim=dim, depth=depth, heads=heads, mlp_dim=int(dim * mlp_ratio))
        check_probability(dropout=dropout)
        if image_size % patch_size:
            raise ValueError(f"patch_size expected a divisor of image_size={image_size}, but got {patch_size}.")
        if dim % heads:
            raise ValueError(f"heads expected a divisor of dim={dim}, but got {heads}.")
        self.image_size = image_size
        self.patch_embedding = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.empty(1, (image_size // patch_size) ** 2, dim))
        self.blocks = nn.Sequential(
            *(TransformerBlock(dim, heads, int(dim * mlp_ratio), dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` from images ``(batch, in_channels, image_size, image_size)``."""
        check_images(inputs, self.patch_embedding.in_channels)
        if inputs.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"inputs expected images of image_size={self.image_size} pixels a side, but got shape"
                f" {tuple(inputs.shape)}: set image_size to the size of the data."
            )
        # (batch, dim, height, width) in patches -> (batch, patches, dim)
        tokens = self.patch_embedding(inputs).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))
