"""Layers that keep their width because a part that follows the network's weights is compared at that width."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec, module_names
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import call_for_all, layers_behind, require_gradients_, traceable
from lit_xai.network.recording import in_place_of_call
from lit_xai.network.trees import leaves
from lit_xai.pruning.culprits import KeptWhole


def compared_layers(
    network: nn.Module, inputs: Inputs, compared: Mapping[str, str], output: OutputSpec = None
) -> list[KeptWhole]:
    """Return the layers that give the outputs of parts, those that give the network's own output left out.

    Args:
        network: left unchanged.
        inputs: that it is called with.
        compared: names of its parts, with the name of what follows each and is compared with something of its width.
        output: where the logits are in the network's output.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 6)), nn.Linear(6, 3))
        >>> [kept.layers for kept in compared_layers(network, torch.zeros(1, 4), {"1": "average"})]
        [('1.1',)]
    """
    copied = copy_network(network)
    for module in copied.modules():
        module.training = False
    require_gradients_(copied)
    named = module_names(copied)
    results: dict[str, list[Any]] = {name: [] for name in compared if name in named}

    def around(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        results[name] += [tensor for _, tensor in leaves(result) if tensor.grad_fn is not None]
        return result

    with traceable(), contextlib.ExitStack() as stack:
        for name in results:
            stack.enter_context(in_place_of_call(named[name], name, around))
        last = layers_behind(copied, call_for_all(copied, inputs, output=output))
        layers = {name: layers_behind(copied, tensors) for name, tensors in results.items()}
    names = {id(module): name for name, module in named.items()}
    # Those of the output stay whole in any case.
    whole = {
        name: [names[id(one)] for one in found if not any(one is other for other in last)]
        for name, found in layers.items()
    }
    return [
        KeptWhole(
            tuple(found), f"{compared[name]!r}, which may follow its weights, is compared with something of this width"
        )
        for name, found in whole.items()
        if found
    ]
