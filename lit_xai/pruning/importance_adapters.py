"""Adapters that show data to Torch-Pruning's own importances, which it leaves to its users.

An importance with a method ``collect(network, inputs, run)`` needs no entry here.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lit_xai.network.calling import Inputs
from lit_xai.network.rows import take
from lit_xai.network.trees import leaves

Batches: TypeAlias = Sequence[tuple[Inputs, Any]]
Run: TypeAlias = Callable[[Inputs], Tensor]
Loss: TypeAlias = Callable[[Inputs, Any], Tensor]
Adapter: TypeAlias = Callable[[Any, nn.Module, Batches, Run, Loss], None]

MAX_SINGLE_SAMPLES = 64
"""Squared gradients need a backward pass for each sample; this many are enough to rank channels."""


def fill_gradients(importance: Any, network: nn.Module, batches: Batches, run: Run, loss: Loss) -> None:
    """Leave the gradient of the mean loss over all samples in ``.grad``, where Taylor importances read it."""
    sizes = [len(_first_tensor(inputs)) for inputs, _ in batches]
    for (inputs, labels), n in zip(batches, sizes, strict=True):
        # Weighted by samples: the last batch may be smaller, and a mean of means would count its samples more.
        (loss(inputs, labels) * (n / sum(sizes))).backward()
    # Torch-Pruning reads .grad of every parameter; what the loss does not depend on has a gradient of zero.
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def fill_squared_gradients(importance: Any, network: nn.Module, batches: Batches, run: Run, loss: Loss) -> None:
    """Leave the mean square of per-sample gradients in ``.grad``, where Hessian importances read it."""
    # Not by accumulate_grad of torch-pruning 1.6.1: it looks gradients up by name but stores them by parameter, and so
    # keeps only those of the last sample.
    parameters = list(network.parameters())
    samples = list(islice(_singly(batches), MAX_SINGLE_SAMPLES))
    means = [torch.zeros_like(parameter) for parameter in parameters]
    for inputs, labels in samples:
        gradients = torch.autograd.grad(loss(inputs, labels), parameters, allow_unused=True)
        for mean, gradient in zip(means, gradients, strict=True):
            if gradient is not None:
                mean += gradient.square() / len(samples)
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.grad = mean


def fill_activations(importance: Any, network: nn.Module, batches: Batches, run: Run, loss: Loss) -> None:
    """Leave each layer's mean activation in its ``_importance``, where ActivationImportance reads it."""
    # Its hook keeps the last batch's values, so they are averaged here.
    means: dict[nn.Module, Tensor] = {}
    with torch.no_grad():
        for inputs, _ in batches:
            with importance.compute_importance(network):
                run(inputs)
            for module in network.modules():
                if hasattr(module, "_importance"):
                    seen = vars(module)["_importance"] / len(batches)
                    means[module] = means[module] + seen if module in means else seen
    for module, mean in means.items():
        module._importance = mean


ADAPTERS: dict[str, Adapter] = {
    "GroupTaylorImportance": fill_gradients,
    "GroupHessianImportance": fill_squared_gradients,
    "ActivationImportance": fill_activations,
}
"""By the names of Torch-Pruning's classes; subclasses use the adapter of their base."""

UNSUPPORTED = {
    "OBDCImportance": "of torch-pruning 1.6 needs its pruner to collect data, and fails on layers with a bias: use"
    " GroupHessianImportance",
}
"""Torch-Pruning's classes that no adapter can help, and why."""


def find_adapter(importance: Any) -> Adapter | None:
    """Return the adapter of one of Torch-Pruning's importances, ``None`` if it depends on the weights alone.

    Example:
        >>> from torch_pruning.pruner.importance import LAMPImportance, TaylorImportance
        >>> find_adapter(TaylorImportance()).__name__, find_adapter(LAMPImportance())
        ('fill_gradients', None)
    """
    return next((ADAPTERS[name] for name in _library_bases(importance) if name in ADAPTERS), None)


def unsupported_because(importance: Any) -> str | None:
    """Return why an importance of Torch-Pruning cannot be used, ``None`` if it can."""
    return next((f"{name} {UNSUPPORTED[name]}" for name in _library_bases(importance) if name in UNSUPPORTED), None)


def _library_bases(importance: Any) -> list[str]:
    # By name, so that this module does not import Torch-Pruning.
    bases = type(importance).__mro__
    return [base.__name__ for base in bases if base.__module__.partition(".")[0] == "torch_pruning"]


def _first_tensor(inputs: Inputs) -> Tensor:
    return next(leaf for _, leaf in leaves(inputs) if leaf.dim())


def _singly(batches: Batches) -> Iterator[tuple[Inputs, Any]]:
    for inputs, labels in batches:
        n = len(_first_tensor(inputs))
        for i in range(n):
            # Only tensors with a row for each sample are split; a mask or a scalar belongs to all of them.
            yield take(inputs, [i], n), take(labels, [i], n)
