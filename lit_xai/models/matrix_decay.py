"""AdamW that decays matrices alone."""

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import AdamW


class MatrixDecay(AdamW):
    """AdamW without decay of biases, of norms, and of tables and layers of one column or row.

    Factors of users and items need a strong decay, which would draw a bias of each user, and the mean, to zero.
    `Loshchilov and Hutter 2019 <https://arxiv.org/abs/1711.05101>`_ is the source of the decay.

    Args:
        params: parameters, such as ``module.parameters()``; no groups of one's own.
        lr: learning rate.
        betas: of the running means of gradients and of their squares.
        eps: added to the divisor.
        weight_decay: of matrices.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 1))
        >>> groups = MatrixDecay(network.parameters(), weight_decay=0.5).param_groups
        >>> [(group["weight_decay"], len(group["params"])) for group in groups]
        [(0.5, 1), (0.0, 2)]
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        every = list(params)
        groups = [
            {"params": [one for one in every if is_matrix(one)], "weight_decay": weight_decay},
            {"params": [one for one in every if not is_matrix(one)], "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], lr, betas, eps, weight_decay)


def is_matrix(parameter: Parameter) -> bool:
    """Return whether a parameter has two dimensions of more than one entry.

    Example:
        >>> import torch
        >>> is_matrix(Parameter(torch.zeros(9, 4))), is_matrix(Parameter(torch.zeros(9, 1)))
        (True, False)
    """
    return sum(size > 1 for size in parameter.shape) > 1
