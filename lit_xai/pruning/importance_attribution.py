"""Channels ranked by what explanations say they contribute. Imports Torch-Pruning, so is itself imported when used."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning import prune_conv_in_channels, prune_linear_in_channels
from torch_pruning.pruner.importance import GroupMagnitudeImportance

from lit_xai.network.calling import Inputs, call_network

CONSUMERS = (nn.modules.conv._ConvNd, nn.Linear)
INPUTS_GO = (prune_conv_in_channels, prune_linear_in_channels)


class AttributionImportance(GroupMagnitudeImportance):
    r"""Rank channels by activation times gradient of the predicted logit, where the channels are read.

    A channel that goes is a zero to each layer that reads it, and to first order the logit :math:`f` then falls by
    :math:`\sum_p x_p \, \partial f / \partial x_p` over the channel's positions :math:`p`. What counts is the mean
    over samples of that sum's square, at each of the layers that read it. It is Captum's ``LayerGradientXActivation``
    per channel, the one-step relative of ``LayerConductance``, and asks for no labels.

    Args:
        group_reduction: how the layers that read a channel are put together: ``"mean"``, ``"sum"``, ``"max"``, ...
        normalizer: of a group's importances, ``"mean"``, ``"sum"``, ...; both as in Torch-Pruning. By default none:
            the logit is one scale for all layers, which ranking over the whole network (``global_pruning``) needs.

    Example:
        >>> import torch_pruning
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> _ = network[1].weight.data.copy_(torch.tensor([[2.0, 0.0, 1.0]]))
        >>> _ = network[0].weight.data.fill_(1.0), network[0].bias.data.zero_()
        >>> importance = AttributionImportance().collect(network, [torch.ones(4, 2)])
        >>> graph = torch_pruning.DependencyGraph().build_dependency(network, torch.ones(1, 2))
        >>> importance(graph.get_pruning_group(network[0], torch_pruning.prune_linear_out_channels, [0, 1, 2]))
        tensor([16., 0., 4.])
    """

    def __init__(self, group_reduction: str = "mean", normalizer: str | None = None) -> None:
        super().__init__(group_reduction=group_reduction, normalizer=normalizer, target_types=list(CONSUMERS))
        self.contributions: dict[nn.Module, Tensor] = {}

    def collect(
        self, network: nn.Module, inputs: Iterable[Inputs], run: Callable[[Inputs], Tensor] | None = None
    ) -> "AttributionImportance":
        """Look at samples and return itself.

        Args:
            network: in eval mode, gradients on; nothing but the parameters' gradients is touched.
            inputs: batches of what it is called with.
            run: returns the logits of inputs; default calls the network.
        """
        found: dict[nn.Module, list[Tensor]] = {}
        for batch in inputs:
            with tapped(network) as taps:
                logits = run(batch) if run is not None else call_network(network, batch)
            logits = logits.reshape(len(logits), -1)
            explained = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
            read = [(module, tensor) for module, tensors in taps.items() for tensor in tensors]
            gradients = torch.autograd.grad(explained, [tensor for _, tensor in read], allow_unused=True)
            summed: dict[nn.Module, Tensor] = {}
            for (module, tensor), gradient in zip(read, gradients, strict=True):
                if gradient is not None:
                    contribution = _per_channel(module, tensor.detach() * gradient, len(logits))
                    summed[module] = summed.get(module, 0) + contribution
            for module, contribution in summed.items():
                found.setdefault(module, []).append(contribution)
        self.contributions = {module: torch.cat(parts) for module, parts in found.items()}
        return self

    @torch.no_grad()
    def __call__(self, group: Any) -> Tensor | None:
        """Return the importance of each channel of a whole group, ``None`` for one that no looked-at layer reads."""
        size, importances = len(group[0].idxs), []
        for item in group:
            contribution = self.contributions.get(item.dep.target.module)
            if contribution is None or item.dep.handler not in INPUTS_GO or None in item.root_idxs:
                continue
            # Several of a layer's inputs are one channel where it was flattened.
            roots = torch.tensor(item.root_idxs, device=contribution.device)
            channels = contribution.new_zeros(len(contribution), size).index_add_(1, roots, contribution[:, item.idxs])
            importances.append(channels.square().mean(0))
        if not importances:
            return None
        reduced = self._reduce(importances, [list(range(size))] * len(importances))
        normalized: Tensor = self._normalize(reduced, self.normalizer)
        return normalized


def _per_channel(module: nn.Module, values: Tensor, n: int) -> Tensor:
    """Return ``(n, channels)``, summed over positions; a layer's channels come second, those of linear ones last."""
    if isinstance(module, nn.Linear):
        return values.reshape(n, -1, values.shape[-1]).sum(1)
    return values.reshape(n, values.shape[1], -1).sum(2)


@contextmanager
def tapped(network: nn.Module) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Gather the inputs of all convolutions and linear layers, each a tensor of its own in the graph."""
    taps: dict[nn.Module, list[Tensor]] = {}

    def tap(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # A copy, so that the gradient is that of this layer's reading alone.
        read = args[0].clone() if args[0].requires_grad else args[0].detach().clone().requires_grad_()
        taps.setdefault(module, []).append(read)
        return (read, *args[1:])

    handles = [m.register_forward_pre_hook(tap) for m in network.modules() if isinstance(m, CONSUMERS)]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()
