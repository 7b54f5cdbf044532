"""The first layer of a network that takes its inputs as one flat vector per sample."""

import math

from torch import Tensor, nn


class Flatten(nn.Flatten):
    """Flatten ``(batch, ...)`` to ``(batch, in_features)``, with an error that names ``in_features`` if it is wrong.

    Args:
        in_features: number of values in a sample.

    Raises:
        ValueError: a sample has another number of values.

    Example:
        >>> import torch
        >>> Flatten(64)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs of shape ``(batch, ...)`` as ``(batch, in_features)``."""
        if math.prod(inputs.shape[1:]) != self.in_features:
            raise ValueError(
                f"inputs expected in_features={self.in_features} values per sample, but got"
                f" {math.prod(inputs.shape[1:])} in shape {tuple(inputs.shape)}: set in_features to that of the data."
            )
        return super().forward(inputs)
