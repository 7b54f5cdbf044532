"""The neural additive model: a small network for each feature, whose answers are added up."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_xai.models.flatten import Flatten
from lit_xai.models.sizes import check_positive, check_probability
from lit_xai.network.check import check_integer, refusal


class NeuralAdditiveModel(nn.Module):
    r"""Neural additive model :math:`y = b + \sum_i f_i(x_i)`, each :math:`f_i` a small network of one feature.

    It is its own explanation: what feature :math:`i` adds to the output is :math:`f_i(x_i)`, a curve that can be drawn
    (:func:`shape_functions`). R. Agarwal et al., "Neural Additive Models: Interpretable Machine Learning with Neural
    Nets", NeurIPS (2021); with ReLU, and without their exponential units.

    All features' networks run at once, as convolutions with a group for each. StructuredPruning removes hidden units,
    as many from each feature's network, and what is left is an additive model; so is what quantization leaves.

    Args:
        in_features: values per sample; an input ``(batch, ...)`` is flattened.
        out_features: numbers predicted, or classes (one for a binary ``Classifier``).
        hidden: widths of the hidden layers of each feature's network.
        dropout: probability of dropping a hidden unit.

    Raises:
        ValueError: a size is not a positive integer, or ``dropout`` is not in [0, 1).

    Example:
        >>> model = NeuralAdditiveModel(in_features=4, out_features=3, hidden=[16])
        >>> x = torch.randn(2, 4)
        >>> model.contributions(x).shape
        torch.Size([2, 4, 3])
        >>> torch.allclose(model(x), model.contributions(x).sum(1) + model.bias, atol=1e-6)
        True
    """

    def __init__(
        self, in_features: int, out_features: int = 1, hidden: Sequence[int] = (64, 32), dropout: float = 0.0
    ) -> None:
        super().__init__()
        for width in hidden:
            check_positive(hidden=width)
        check_positive(in_features=in_features, out_features=out_features)
        check_probability(dropout=dropout)
        self.in_features, self.out_features = in_features, out_features
        self.flatten = Flatten(in_features)
        layers: list[nn.Module] = []
        widths = [1, *hidden, out_features]
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Conv1d(in_features * fan_in, in_features * fan_out, 1, groups=in_features), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        last = 2 if dropout else 1
        self.features = nn.Sequential(*layers[:-last])  # the answer of each feature is no hidden unit
        self.bias = nn.Parameter(torch.zeros(out_features))

    def contributions(self, inputs: Tensor) -> Tensor:
        """Return what each feature adds to each output, ``(batch, in_features, out_features)``."""
        columns = self.flatten(inputs).unsqueeze(-1)
        return self.features(columns).reshape(len(inputs), self.in_features, self.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(batch, out_features)`` from ``(batch, ...)``."""
        return self.contributions(inputs).sum(1) + self.bias


@dataclass(frozen=True)
class ShapeFunctions:
    """The curves of an additive model.

    Args:
        grid: values of each feature, ``(features, points)``, as the network gets them.
        contributions: what each adds to each output, ``(features, points, outputs)``; of mean zero over the data.
    """

    grid: Tensor
    contributions: Tensor


def shape_functions(network: NeuralAdditiveModel, inputs: Tensor, points: int = 64) -> ShapeFunctions:
    r"""Return each feature's shape function :math:`f_i(x) - \overline{f_i}`, over the range of the data.

    Args:
        network: an additive model; its mode and its random numbers stay as they are.
        inputs: samples ``(N, ...)``: they give the range, and the mean that is subtracted.
        points: of each curve.

    Raises:
        ValueError: it is no additive model, or there are fewer than two points.

    Example:
        >>> found = shape_functions(NeuralAdditiveModel(3), torch.randn(100, 3), points=5)
        >>> found.grid.shape, found.contributions.shape
        (torch.Size([3, 5]), torch.Size([3, 5, 1]))
    """
    if not isinstance(network, NeuralAdditiveModel):
        raise refusal("network", "a NeuralAdditiveModel", type(network).__name__)
    check_integer("points", points, 2)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            rows = network.flatten(inputs)
            low, high = rows.amin(0), rows.amax(0)
            steps = torch.linspace(0, 1, points, device=rows.device, dtype=rows.dtype)
            grid = low + (high - low) * steps[:, None]  # (points, features): a row evaluates all curves at once
            curves = network.contributions(grid) - network.contributions(rows).mean(0)
    finally:
        network.train(was_training)
    return ShapeFunctions(grid.T, curves.transpose(0, 1))
