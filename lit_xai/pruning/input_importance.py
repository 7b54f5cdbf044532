"""The base of importances that are measured where channels are read.

This module imports Torch-Pruning: import it only where it is used.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning import prune_conv_in_channels, prune_linear_in_channels
from torch_pruning.pruner.importance import GroupMagnitudeImportance

from lit_xai.network.calling import Inputs
from lit_xai.pruning.importance import ImportanceError

READING_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers whose inputs are channels of the layers before."""

CUTS_INPUTS = (prune_conv_in_channels, prune_linear_in_channels)
"""Torch-Pruning's functions that remove inputs of these layers."""


class InputImportance(GroupMagnitudeImportance):
    """Rank channels by a quantity that is measured at the inputs of the layers that read them.

    A subclass measures in :meth:`collect` and fills ``self.measured``: for each convolution or linear layer a tensor
    ``(n, input channels)``, one row per sample (or a single row). This class maps these to Torch-Pruning's groups. For
    each layer that reads a group's channels, inputs that belong to one channel are summed (a flattened channel is
    several inputs of a linear layer), and :meth:`score` reduces the samples. ``group_reduction`` then reduces the
    scores of these layers to one.

    Any subclass of ``torch_pruning.importance.Importance`` with a method ``collect(network, inputs, run)`` is shown
    training samples by :class:`~lit_xai.StructuredPruning`; it need not derive from this class. One that does, and has
    a constructor of its own, calls ``super().__init__()`` in it.

    Args:
        group_reduction: over the layers that read a channel: ``"mean"``, ``"sum"``, ``"max"``, ...
        normalizer: divides a group's importances by their ``"mean"``, ``"sum"``, ... or not (``None``), after
            ``group_reduction``; both as in Torch-Pruning.

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
    def collect(self, network: nn.Module, inputs: Sequence[Inputs], run: Callable[[Inputs], Tensor]) -> Any:
        """Measure on samples, fill ``self.measured`` and return ``self``.

        StructuredPruning calls it before each cut, and before that in a rehearsal of the whole plan when training
        starts. What an earlier call measured has to be replaced, as the network is another copy each time.

        Args:
            network: a throwaway copy in eval mode with gradients enabled; ``torch.no_grad()`` saves memory where none
                is needed.
            inputs: a list of batches of what it is called with, which can be gone through more than once.
            run: calls it with a batch and returns the logits.
        """

    def score(self, values: Tensor) -> Tensor:
        """Reduce what one layer reads of a group's channels to one number a channel; by default to the mean.

        It is called once for each layer that reads them; ``group_reduction`` then reduces over these layers.

        Args:
            values: ``(n, channels)``, the layer's rows of ``self.measured``.

        Returns:
            ``(channels,)``; the lowest are removed first.
        """
        return values.mean(0)

    @torch.no_grad()
    def __call__(self, group: Any) -> Tensor | None:
        """Return the importance of each channel of a whole group, ``None`` if no measured layer reads them.

        Args:
            group: Torch-Pruning's, with every channel of its root.

        Raises:
            ValueError: ``self.measured`` or :meth:`score` has another shape than it should have.
        """
        size, importances = len(group[0].idxs), []
        for item in group:
            layer = item.dep.target.module
            values = self.measured.get(layer)
            # Torch-Pruning gives no root channel to indices that it could not follow.
            if values is None or item.dep.handler not in CUTS_INPUTS or None in item.root_idxs:
                continue
            width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            if not isinstance(values, Tensor) or values.dim() != 2 or values.shape[1] != width:
                what = f"self.measured of a {type(layer).__name__} to be a tensor of shape (n, {width})"
                raise ImportanceError.expected(self, what, values)
            # values: (n, inputs). Inputs that come from the same root channel are added up: (n, root channels).
            roots = torch.tensor(item.root_idxs, device=values.device)
            channels = values.new_zeros(len(values), size).index_add_(1, roots, values[:, item.idxs])
            scores = self.score(channels)
            if not isinstance(scores, Tensor) or scores.shape != (size,):
                what = f"score to return a tensor of shape ({size},) for values of shape {tuple(channels.shape)}"
                raise ImportanceError.expected(self, what, scores)
            importances.append(scores)
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

    A sum grows with the number of positions. Divide it by ``values.numel() / result.numel()`` for their mean.

    Args:
        layer: a convolution, whose channels are dimension 1, or a linear layer, whose channels are the last.
        values: shaped like its input.
        n: the number of samples. It can be left out if the first dimension of every layer's input is the batch. It is
            needed where samples and positions share that dimension, as in an input of ``(samples * tokens, channels)``:
            without it, each token would count as a sample. ``len(logits)`` is the number in any case.

    Returns:
        ``(n, channels)``.

    Example:
        >>> sum_positions(nn.Conv2d(3, 8, 1), torch.ones(4, 3, 5, 5))[0]
        tensor([25., 25., 25.])
        >>> sum_positions(nn.Linear(6, 2), torch.ones(4, 10, 6)).shape
        torch.Size([4, 6])
        >>> sum_positions(nn.Linear(6, 2), torch.ones(4 * 10, 6), 4).shape
        torch.Size([4, 6])
    """
    n = len(values) if n is None else n
    if isinstance(layer, nn.Linear):
        return values.reshape(n, -1, values.shape[-1]).sum(1)
    # Over the layer's own positions first: where these share the first dimension with the samples (frames of videos),
    # one reshape to (n, channels, -1) would mix channels with frames.
    return values.flatten(2).sum(2).reshape(n, -1, values.shape[1]).sum(1)
