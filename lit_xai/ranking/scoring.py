"""Scores of items for users, by any network that is called with what is known of both."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lit_xai.network.calling import call_network, find_inputs
from lit_xai.network.untouched import untouched

Describe: TypeAlias = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""What a network is called with for users ``(N,)`` and items ``(N,)``: a batch without labels."""
AT_ONCE = 4096
"""Pairs in one call."""


def score_pairs(module: nn.Module, describe: Describe, users: Tensor, items: Tensor) -> Tensor:
    """Return a network's score of each pair, ``(N,)``, in eval mode; the network stays as it was.

    Args:
        module: a network, or a LightningModule that has one as its ``network``.
        describe: such as :meth:`~lit_xai.data.rating_rows.RatingRows.describe`.
        users: ``(N,)``.
        items: ``(N,)``.

    Example:
        >>> from lit_xai.models import MatrixFactorization
        >>> network = MatrixFactorization(3, 4)
        >>> describe = lambda user, item: {"user": user, "item": item}
        >>> score_pairs(network, describe, torch.arange(3), torch.arange(3)).shape
        torch.Size([3])
    """
    network = network_of(module)
    with untouched(network), torch.no_grad():
        scores = [
            call_network(network, inputs_of(module, describe(user, item))).reshape(-1).float().cpu()
            for user, item in zip(users.split(AT_ONCE), items.split(AT_ONCE), strict=True)
        ]
    return torch.cat(scores) if scores else torch.zeros(0)


def score_all(module: nn.Module, describe: Describe, users: Tensor, items: int) -> Tensor:
    """Return the scores of all items for some users, ``(users, items)``.

    Args:
        module: as for :func:`score_pairs`.
        describe: as for :func:`score_pairs`.
        users: ``(users,)``.
        items: how many there are.

    Example:
        >>> from lit_xai.models import MatrixFactorization
        >>> score_all(MatrixFactorization(3, 4), lambda u, i: {"user": u, "item": i}, torch.tensor([2, 0]), 4).shape
        torch.Size([2, 4])
    """
    pairs = torch.cartesian_prod(users, torch.arange(items))
    return score_pairs(module, describe, pairs[:, 0], pairs[:, 1]).view(len(users), items)


def network_of(module: nn.Module) -> nn.Module:
    """Return the network in a LightningModule, or the module itself."""
    network = getattr(module, "network", module)
    return network if isinstance(network, nn.Module) else module


def inputs_of(module: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    """Return a network's inputs in a batch, on its device."""
    network = network_of(module)
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    moved = {name: value.to(device) for name, value in batch.items()}
    return find_inputs(moved, network, getattr(module, "batch_to_inputs", None))
