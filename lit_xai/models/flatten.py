"""The first layer of a network that takes its inputs as one flat vector per sample."""

import math

from torch import Tensor, nn


class Flatten(nn.Flatten):
    """Flatten ``(batch, ...)`` to ``(batch, in_features)``, and say so where the input does not fit.

    Args:
        in_features: how many values a sample has.

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
                f"Expected in_features={self.in_features} values per sample, but got {math.prod(inputs.shape[1:])}"
                f" from an input of shape {tuple(inputs.shape)}: set in_features to what the data has."
            )
        return super().forward(inputs)
