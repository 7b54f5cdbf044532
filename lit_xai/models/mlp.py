"""The multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_xai.models.flatten import Flatten
from lit_xai.models.sizes import check_positive, check_probability


class MLP(nn.Module):
    """Multilayer perceptron with ReLU, by default 784-128-64-10.

    Args:
        in_features: values per sample; an input ``(batch, ...)`` is flattened.
        hidden: widths of the hidden layers.
        out_features: classes, or numbers predicted.
        dropout: probability of dropping a hidden unit.

    Raises:
        ValueError: a width is not a positive integer, or ``dropout`` is not in [0, 1).

    Example:
        >>> import torch
        >>> MLP()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in MLP(in_features=64, hidden=[32], out_features=10).parameters())
        2410
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden: Sequence[int] = (128, 64),
        out_features: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for width in hidden:
            check_positive(hidden=width)
        check_positive(in_features=in_features, out_features=out_features)
        check_probability(dropout=dropout)
        widths = [in_features, *hidden]
        layers: list[nn.Module] = [Flatten(in_features)]
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
            # No module for a dropout of 0: what is not there need not be traced, folded or explained.
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], out_features))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(batch, out_features)`` from ``(batch, ...)``."""
        return self.layers(inputs)
