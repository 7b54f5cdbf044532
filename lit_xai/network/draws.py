"""Random numbers that a network draws, in place of which it gets their means: its outputs can then be compared."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class MeanDraws(TorchFunctionMode):
    """Gives a network the means of the continuous random numbers that it draws: of a normal distribution its mean.

    The latent vector of a variational autoencoder is then the mean that its encoder computes, and dropout that is
    switched on in evaluation is off. Whole numbers (``randint``, ``randperm``, ``multinomial``) stay random. Inside
    ``torch.export`` the exported program has the means too.

    Attributes:
        drawn: whether any were drawn.

    Example:
        >>> with MeanDraws() as draws:
        ...     torch.distributions.Normal(torch.tensor([2.0, 3.0]), 1.0).rsample(), torch.rand(1)
        (tensor([2., 3.]), tensor([0.5000]))
        >>> draws.drawn
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Call a function of torch, or return the means of what it would draw."""
        kwargs = kwargs or {}
        if func is _CHECK and torch.compiler.is_exporting():
            return True
        if func in _DROPOUTS:
            return self._without_dropout(func, *args, **kwargs)
        if func in _FILLED:
            self.drawn = True
            return args[0].fill_(_FILLED[func](*args[1:], **kwargs))
        result = func(*args, **kwargs)
        if func not in _MADE:
            return result
        self.drawn = True
        return torch.zeros_like(result) + _MADE[func](*args, **kwargs)

    def _without_dropout(
        self, func: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Any:
        self.drawn = self.drawn or (training and p > 0)
        return func(input, p, False, inplace)


def _middle(low: float = 0.0, high: float = 1.0, **named: Any) -> float:
    # The bounds are called "from" and "to", which is no name of Python's.
    return float(named.get("from", low) + named.get("to", high)) / 2


_FILLED: dict[Any, Callable[..., Any]] = {
    Tensor.normal_: lambda mean=0.0, std=1.0, **_: mean,
    Tensor.uniform_: _middle,
    Tensor.exponential_: lambda lambd=1.0, **_: 1 / lambd,
}
_MADE: dict[Any, Callable[..., Any]] = {
    torch.randn: lambda *_, **__: 0.0,
    torch.randn_like: lambda *_, **__: 0.0,
    torch.rand: lambda *_, **__: 0.5,
    torch.rand_like: lambda *_, **__: 0.5,
    torch.normal: lambda mean, *_, **__: mean,
    torch.bernoulli: lambda input, *_, **__: input,
}
# The check of a distribution's parameters, which looks at values: torch.export has none.
_CHECK = torch._is_all_true
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}
