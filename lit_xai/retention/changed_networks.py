"""Networks that a reference is held against: its architecture untrained, and its own weights with fewer bits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_xai.network.copying import copy_network
from lit_xai.network.untouched import fork_rng


def untrained_copy(network: nn.Module, seed: int, run: Callable[[nn.Module], object]) -> nn.Module:
    """Return a copy of a network with weights as before any training.

    Layers that can are initialized anew (``reset_parameters``, ``_reset_parameters``, or the ``_init_weights`` of a
    Hugging Face model); every other parameter gets its values in another order. Statistics of BatchNorm are taken anew,
    from what ``run`` calls the copy with.

    Args:
        network: left unchanged.
        seed: of the weights.
        run: calls a network, in training mode of its BatchNorms, with samples.

    Example:
        >>> layer = nn.Linear(8, 2)
        >>> torch.equal(untrained_copy(layer, 0, lambda one: None).weight, layer.weight)
        False
    """
    copied = copy_network(network)
    with fork_rng(seed), torch.no_grad():
        _initialize_(copied)
        renew_statistics_(copied, run)
    return copied.eval()


def _initialize_(network: nn.Module) -> None:
    initializers: dict[int, Callable[[nn.Module], object]] = {}
    for module in network.modules():
        if callable(own := getattr(module, "_init_weights", None)):  # a Hugging Face model initializes its parts
            initializers |= {id(part): own for part in module.modules()}
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()
        if id(module) in initializers:
            initializers[id(module)](module)
    for name, parameter in network.named_parameters():
        if parameter.equal(before[name]):  # of a module that does not say how; a constant stays what it is
            order = torch.randperm(parameter.numel()).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))


def renew_statistics_(network: nn.Module, run: Callable[[nn.Module], object]) -> None:
    """Take the statistics of all BatchNorms anew from samples.

    Args:
        network: changed in place, and left in evaluation mode.
        run: calls it with samples.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    network.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    run(network)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def rounded_copy(network: nn.Module, bits: int) -> nn.Module:
    """Return a copy of a network whose weights are rounded to integers of a few bits, without training.

    Weights of convolutions, linear layers and embeddings are rounded symmetrically, each output channel with a scale of
    its own; activations stay in float.

    Args:
        network: left unchanged.
        bits: of the weights, 2 or more.

    Example:
        >>> rounded_copy(nn.Linear(100, 1), 2).weight.unique().numel() <= 3
        True
    """
    copied = copy_network(network)
    largest = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for module in copied.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.dim() > 1 and parameter.is_floating_point():
                    parameter.copy_(_rounded(parameter, largest, _channel_dim(module)))
    return copied


def _rounded(weight: Tensor, largest: int, dim: int) -> Tensor:
    others = [d for d in range(weight.dim()) if d != dim]
    scale = weight.abs().amax(others, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / largest
    return (weight / scale).round() * scale


def _channel_dim(module: nn.Module) -> int:
    return 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
