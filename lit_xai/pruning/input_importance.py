"""The base of importances that are measured where channels are read.

This module imports Torch-Pruning: import it only where it is used.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning import prune_conv_in_channels, prune_linear_in_channels
from torch_pruning.pruner.importance import GroupMagnitudeImportance

from lit_xai.network.calling import Inputs

READING_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers whose inputs are channels of the layers before."""

CUTS_INPUTS = (prune_conv_in_channels, prune_linear_in_channels)
"""Torch-Pruning's functions that remove inputs of these layers."""


class InputImportance(GroupMagnitudeImportance):
    """Rank channels by a quantity that is measured at the inputs of the layers that read them.

    A subclass measures in :meth:`collect` and fills ``self.measured``: for each convolution or linear layer a tensor
    ``(n, input channels)``, one row per sample (or a single row). This class maps these to Torch-Pruning's groups:
    inputs that belong to one channel are summed (a flattened channel is several inputs of a linear layer),
    :meth:`score` reduces the samples, and ``group_reduction`` the layers that read the same channel.

    Any importance with a method ``collect(network, inputs, run)`` is shown training samples by
    :class:`~lit_xai.StructuredPruning`; it need not derive from this class.

    Args:
        group_reduction: over the layers that read a channel: ``"mean"``, ``"sum"``, ``"max"``, ...
        normalizer: of a group's importances, ``"mean"``, ``"sum"``, ... or ``None``; both as in Torch-Pruning.

    Example:
        >>> class MeanActivation(InputImportance):
        ...     def collect(self, network, inputs, run):
        ...         with layer_inputs(network) as read, torch.no_grad():
        ...             for batch in inputs:
        ...                 run(batch)
        ...         self.measured = {
        ...             layer: torch.cat([sum_positions(layer, tensor.abs()) for tensor in tensors])
        ...             for layer, tensors in read.items()
        ...         }
        ...         return self
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> importance = MeanActivation().collect(network, [torch.randn(4, 2)], network)
        >>> importance.measured[network[1]].shape
        torch.Size([4, 3])
    """

    def __init__(self, group_reduction: str = "mean", normalizer: str | None = None) -> None:
        super().__init__(group_reduction=group_reduction, normalizer=normalizer, target_types=list(READING_LAYERS))
        self.measured: dict[nn.Module, Tensor] = {}

    @abstractmethod
    def collect(self, network: nn.Module, inputs: Iterable[Inputs], run: Callable[[Inputs], Tensor]) -> Any:
        """Measure on samples, fill ``self.measured`` and return ``self``.

        Args:
            network: a throwaway copy in eval mode with gradients enabled.
            inputs: batches of what it is called with.
            run: calls it with a batch and returns the logits.
        """

    def score(self, values: Tensor) -> Tensor:
        """Reduce the values of a group's channels, ``(n, channels)``, to ``(channels,)``; by default to their mean."""
        return values.mean(0)

    @torch.no_grad()
    def __call__(self, group: Any) -> Tensor | None:
        """Return the importance of each channel of a whole group, ``None`` if no measured layer reads them.

        Args:
            group: Torch-Pruning's, with every channel of its root.
        """
        size, importances = len(group[0].idxs), []
        for item in group:
            values = self.measured.get(item.dep.target.module)
            # Torch-Pruning gives no root channel to indices that it could not follow.
            if values is None or item.dep.handler not in CUTS_INPUTS or None in item.root_idxs:
                continue
            # values: (n, inputs). Inputs that come from the same root channel are added up: (n, root channels).
            roots = torch.tensor(item.root_idxs, device=values.device)
            channels = values.new_zeros(len(values), size).index_add_(1, roots, values[:, item.idxs])
            importances.append(self.score(channels))
        if not importances:
            return None
        # Every entry now covers all root channels in their order, which is what these indices say.
        reduced = self._reduce(importances, [list(range(size))] * len(importances))
        normalized: Tensor = self._normalize(reduced, self.normalizer)
        return normalized


@contextmanager
def layer_inputs(network: nn.Module) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Gather what convolutions and linear layers read inside the ``with`` block, one tensor a call.

    Each is a tensor of its own in the graph, so that a gradient with respect to it is that of this one layer's reading,
    also where several layers read the same tensor.

    Args:
        network: the network whose layers are hooked; hooks are removed at the end.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with layer_inputs(network) as read:
        ...     _ = network(torch.zeros(4, 2))
        >>> [tensor.shape for tensor in read[network[2]]]
        [torch.Size([4, 3])]
    """
    read: dict[nn.Module, list[Tensor]] = {}

    def tap(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # The network's own inputs require no gradient yet. A clone is a node of its own in the graph, so that layers
        # which read one tensor get a gradient each.
        taken = args[0].clone() if args[0].requires_grad else args[0].detach().clone().requires_grad_()
        read.setdefault(module, []).append(taken)
        return (taken, *args[1:])

    handles = [m.register_forward_pre_hook(tap) for m in network.modules() if isinstance(m, READING_LAYERS)]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def sum_positions(layer: nn.Module, values: Tensor, n: int | None = None) -> Tensor:
    """Sum what was measured at a layer's inputs over positions.

    Args:
        layer: a convolution, whose channels are dimension 1, or a linear layer, whose channels are the last.
        values: shaped like its input.
        n: how many samples these are; by default the first dimension, which a layer that sees samples and tokens in one
            dimension does not have.

    Returns:
        ``(n, channels)``.

    Example:
        >>> sum_positions(nn.Conv2d(3, 8, 1), torch.ones(4, 3, 5, 5))[0]
        tensor([25., 25., 25.])
        >>> sum_positions(nn.Linear(6, 2), torch.ones(4, 10, 6)).shape
        torch.Size([4, 6])
    """
    n = len(values) if n is None else n
    if isinstance(layer, nn.Linear):
        return values.reshape(n, -1, values.shape[-1]).sum(1)
    return values.reshape(n, values.shape[1], -1).sum(2)
