"""Sparse training: gradients that drive whole channels towards zero before they are cut."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_xai.network.calling import Inputs
from lit_xai.pruning.prunable import Prunable

Regularizer = Callable[[Optimizer], None]
"""Adds to the gradients of the optimizer's parameters; called between backward and step."""


def bn_scale(network: nn.Module, example_inputs: Inputs, strength: float, **_: Any) -> Regularizer:
    """Return a regularizer that pulls BatchNorm's scales to zero: an L1 penalty, ``strength * sign(scale)``.

    Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming,
    https://arxiv.org/abs/1708.06519.

    Args:
        network: the one whose BatchNorm layers are regularized.
        example_inputs: not needed.
        strength: factor of the penalty.

    Raises:
        ValueError: the network has no BatchNorm with a scale.

    Example:
        >>> network = nn.BatchNorm1d(2)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        >>> network.weight.grad = torch.zeros(2)
        >>> bn_scale(network, torch.zeros(1, 2), 0.1)(optimizer)
        >>> network.weight.grad
        tensor([0.1000, 0.1000])
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine]
    if not norms:
        raise ValueError("regularize='bn_scale' expected BatchNorm layers, but the network has none: take 'group'.")
    scales = [norm.weight for norm in norms]

    @torch.no_grad()
    def regularize(optimizer: Optimizer) -> None:
        owned = _parameters_of(optimizer)
        for scale in scales:
            if id(scale) in owned and scale.grad is not None:
                # The subgradient of strength * |scale|: sign(0) = 0 adds nothing to a scale at zero.
                scale.grad.add_(scale.sign(), alpha=strength)

    return regularize


def group_lasso(network: nn.Module, example_inputs: Inputs, strength: float, **options: Any) -> Regularizer:
    """Return a regularizer that pulls all weights of coupled channels to zero together: ``strength * w / |w|``.

    A group lasso over the groups of channels that depend on each other (Fang et al. 2023,
    https://arxiv.org/abs/2301.12900).

    Args:
        network: the one whose channels are regularized.
        example_inputs: what it is called with.
        strength: factor of the penalty.
        options: of :class:`~lit_xai.pruning.prunable.Prunable`.

    Example:
        >>> network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2), nn.Linear(2, 1))
        >>> group_lasso(network, torch.zeros(1, 1), 0.1).__name__
        'regularize'
    """
    places = dict(network.named_parameters())
    coupled = [
        [(places[name], dim, roots.to(places[name].device)) for name, dim, roots in members if name in places]
        for members in Prunable.copy_of(network, example_inputs, **options).coupled()
    ]

    @torch.no_grad()
    def regularize(optimizer: Optimizer) -> None:
        owned = _parameters_of(optimizer)
        for members in coupled:
            norm = _norms(members)
            for parameter, dim, roots in members:
                if id(parameter) in owned and parameter.grad is not None:
                    shape = [-1 if d == dim else 1 for d in range(parameter.dim())]
                    # The gradient of strength * |w_g|, the norm of channel g over all of its parameters: strength * w /
                    # |w_g|.
                    parameter.grad.addcdiv_(parameter, norm[roots].view(shape).expand_as(parameter), value=strength)

    return regularize


def _norms(members: list[tuple[nn.Parameter, int, Tensor]]) -> Tensor:
    """Return the norm of each channel over all parameters that belong to it."""
    size = max(int(roots.max()) for _, _, roots in members) + 1
    # (size,), one for each channel of the root; rows of every parameter are added to the channel that they belong to.
    squares = torch.zeros(size, device=members[0][0].device)
    for parameter, dim, roots in members:
        squares.index_add_(0, roots, parameter.float().square().movedim(dim, 0).reshape(len(roots), -1).sum(1))
    # Clamped, as the gradient w / |w| of a channel at zero would be NaN.
    return squares.sqrt().clamp_min(1e-8)


def _parameters_of(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


REGULARIZERS: dict[str, Callable[..., Regularizer]] = {"bn_scale": bn_scale, "group": group_lasso}
"""Ways of sparse training by name."""
