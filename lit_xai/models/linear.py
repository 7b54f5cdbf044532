"""The linear model: interpretable without an explainer."""

from torch import Tensor, nn

from lit_xai.models.flatten import Flatten
from lit_xai.models.sizes import check_positive


class LinearModel(nn.Module):
    r"""Linear model :math:`y = W x + b`: linear regression in a ``Regressor``, logistic regression in a ``Classifier``.

    It is its own explanation: a complete attribution against the baseline :math:`x'` (Integrated Gradients, DeepLift,
    Shapley values) gives feature :math:`i` of output :math:`c` exactly :math:`W_{ci} (x_i - x'_i)`.

    Args:
        in_features: values per sample; an input ``(batch, ...)`` is flattened.
        out_features: numbers predicted, or classes (one for a binary ``Classifier``).
        bias: whether to fit an intercept.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import torch
        >>> model = LinearModel(in_features=4, out_features=3)
        >>> model(torch.zeros(2, 4)).shape, model.coefficients.shape
        (torch.Size([2, 3]), torch.Size([3, 4]))
    """

    def __init__(self, in_features: int, out_features: int = 1, bias: bool = True) -> None:
        super().__init__()
        check_positive(in_features=in_features, out_features=out_features)
        self.flatten = Flatten(in_features)
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(batch, out_features)`` from ``(batch, ...)``."""
        return self.linear(self.flatten(inputs))

    @property
    def coefficients(self) -> Tensor:
        """The weights ``(out_features, in_features)``: what one unit of a feature adds to an output (a logit)."""
        return self.linear.weight.detach()

    @property
    def intercept(self) -> Tensor | None:
        """The outputs ``(out_features,)`` at the zero input, or ``None`` without a bias."""
        return None if self.linear.bias is None else self.linear.bias.detach()
