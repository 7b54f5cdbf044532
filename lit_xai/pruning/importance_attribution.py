"""Channels ranked by their attributions. This module imports Torch-Pruning: import it only where it is used."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lit_xai.network.calling import Inputs, call_network
from lit_xai.pruning.input_importance import InputImportance, layer_inputs, sum_positions


class AttributionImportance(InputImportance):
    r"""Rank channels by activation times gradient of the predicted logit, where the channels are read.

    A channel that is removed is a zero to each layer that reads it, and to first order the logit :math:`f` then falls
    by :math:`\sum_p x_p \, \partial f / \partial x_p` over the channel's positions :math:`p`. The importance is the
    mean over samples of that sum's square, at each of the layers that read it: Captum's ``LayerGradientXActivation``
    per channel, the one-step relative of ``LayerConductance``. It needs no labels.

    Args:
        group_reduction: over the layers that read a channel: ``"mean"``, ``"sum"``, ``"max"``, ...
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

    def collect(
        self, network: nn.Module, inputs: Iterable[Inputs], run: Callable[[Inputs], Tensor] | None = None
    ) -> "AttributionImportance":
        """Compute the contributions of every sample and return ``self``.

        Args:
            network: in eval mode, gradients on; nothing but the parameters' gradients is touched.
            inputs: batches of what it is called with.
            run: returns the logits of inputs; default calls the network.
        """
        found: dict[nn.Module, list[Tensor]] = {}
        for batch in inputs:
            with layer_inputs(network) as read:
                logits = run(batch) if run is not None else call_network(network, batch)
            # A segmentation's logits (N, C, H, W) too: the largest of all positions is explained.
            logits = logits.reshape(len(logits), -1)
            # The sum over samples has the gradient of each sample's own logit: in eval mode samples do not interact.
            explained = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
            pairs = [(layer, tensor) for layer, tensors in read.items() for tensor in tensors]
            gradients = torch.autograd.grad(explained, [tensor for _, tensor in pairs], allow_unused=True)
            summed: dict[nn.Module, Tensor] = {}
            for (layer, tensor), gradient in zip(pairs, gradients, strict=True):
                if gradient is not None:
                    contribution = sum_positions(layer, tensor.detach() * gradient, len(logits))
                    summed[layer] = summed.get(layer, 0) + contribution  # a shared layer reads several times
            for layer, contribution in summed.items():
                found.setdefault(layer, []).append(contribution)
        self.measured = {layer: torch.cat(parts) for layer, parts in found.items()}
        return self

    @property
    def contributions(self) -> dict[nn.Module, Tensor]:
        """The collected values: for each layer ``(samples, input channels)``, summed over positions."""
        return self.measured

    def score(self, values: Tensor) -> Tensor:
        """Return the mean square over samples: contributions of either sign count."""
        return values.square().mean(0)
