"""What each layer of a network returns for given inputs, and the filters of its first layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec, call_network, module_names
from lit_xai.network.layers import match_layers
from lit_xai.network.trees import leaves
from lit_xai.network.untouched import untouched

_WITH_WEIGHTS = 2
"""Dimensions of a weight at least; biases and normalization have one."""


@dataclass(frozen=True)
class LayerOutput:
    """One layer's output.

    Args:
        name: of the layer.
        kind: its class.
        values: ``(N, ...)``, on the CPU.
        inputs: what entered it, ``(N, ...)``, on the CPU.
    """

    name: str
    kind: str
    values: Tensor
    inputs: Tensor | None = None


def layers_with_weights(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that hold weights of two or more dimensions themselves, by name.

    Example:
        >>> list(layers_with_weights(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.LayerNorm(3), nn.Linear(3, 1))))
        ['0', '3']
    """
    return {
        name: module
        for name, module in ({"": network} | module_names(network)).items()
        if any(weight.dim() >= _WITH_WEIGHTS for weight in module.parameters(recurse=False))
    }


def layer_outputs(
    network: nn.Module,
    inputs: Inputs,
    *,
    layers: Sequence[str | type] | None = None,
    output: OutputSpec = None,
) -> list[LayerOutput]:
    """Return what layers return, in the order of their first calls, leaving the network as it is.

    Args:
        network: the module that is called.
        inputs: of ``N`` samples.
        layers: names, patterns or classes; by default all that hold weights.
        output: where the logits are in the network's output.

    Raises:
        ValueError: a name matches no layer.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> [(one.name, one.kind, tuple(one.values.shape)) for one in layer_outputs(network, torch.zeros(2, 4))]
        [('0', 'Linear', (2, 8)), ('2', 'Linear', (2, 3))]
    """
    named: Mapping[str, nn.Module] = layers_with_weights(network)
    if layers is not None:
        listed = match_layers(network, layers, "layers")
        named = {name: module for name, module in module_names(network).items() if module in listed}
    found: dict[str, LayerOutput] = {}

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        values = _first(result)
        if name not in found and values is not None:
            entered = _first(args)
            found[name] = LayerOutput(name, type(module).__name__, values, entered)

    with untouched(network), torch.no_grad():
        handles = [
            module.register_forward_hook(lambda m, args, result, name=name: keep(name, m, args, result))
            for name, module in named.items()
        ]
        try:
            call_network(network, inputs, output=output)
        finally:
            for handle in handles:
                handle.remove()
    return list(found.values())


def _first(value: Any) -> Tensor | None:
    return next((leaf.detach().cpu().clone() for _, leaf in leaves(value) if leaf.dim() > 1), None)


def first_filters(network: nn.Module, inputs: Tensor, outputs: Sequence[LayerOutput]) -> Tensor | None:
    """Return the weights of the first layer as pictures ``(units, C, h, w)``, ``None`` where they are none.

    A convolution's kernels are; the rows of a linear layer that reads whole images are, at the images' size.

    Args:
        network: that has the layers.
        inputs: that it is called with, of which an image is ``(N, C, H, W)``.
        outputs: of :func:`layer_outputs`.

    Example:
        >>> network, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.zeros(2, 3, 4, 4)
        >>> first_filters(network, images, layer_outputs(network, images)).shape
        torch.Size([5, 3, 4, 4])
    """
    if not outputs:
        return None
    layer = ({"": network} | module_names(network))[outputs[0].name]
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return None
    weight = weight.detach().float().cpu().clone()
    if isinstance(layer, nn.Conv2d) and min(weight.shape[2:]) > 1:
        return weight
    if isinstance(layer, nn.Linear) and inputs.dim() == 4 and inputs[0].numel() == weight.shape[1]:
        return weight.reshape(-1, *inputs.shape[1:])
    return None
