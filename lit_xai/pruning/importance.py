"""What decides which channels go: Torch-Pruning's importances and ours, found by name, and given the data they need.

Torch-Pruning leaves it to its users to run the network for the importances that look at data. Here each kind's
preparation is an entry of a table, found along the class's bases, so a user's own subclass is prepared like its base.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lit_xai.network.calling import Inputs, OutputSpec, call_network
from lit_xai.network.import_path import load_object
from lit_xai.network.layers import traceable
from lit_xai.network.spelling import nearest

Importance: TypeAlias = str | type | Callable[[Any], Any]
Batches: TypeAlias = Sequence[tuple[Inputs, Any]]
Run: TypeAlias = Callable[[Inputs], Tensor]
Loss: TypeAlias = Callable[[Inputs, Any], Tensor]
LossFn: TypeAlias = Callable[[nn.Module, Any, Any], Tensor]

MAX_SINGLE_SAMPLES = 64
"""Squared gradients want a backward pass for each sample; that many are enough to rank channels."""

OURS = {"AttributionImportance": "lit_xai.pruning.importance_attribution.AttributionImportance"}


def resolve_importance(importance: Importance, init_args: Mapping[str, Any] | None = None) -> Any:
    """Return an instance of a Torch-Pruning importance.

    Args:
        importance: ``"GroupTaylorImportance"`` or another name in ``torch_pruning.importance``,
            ``"AttributionImportance"``, an import path, a class, or an instance.
        init_args: for the class's constructor.

    Raises:
        ValueError: there is no such importance or argument (the nearest names are given), or it is something else.

    Example:
        >>> type(resolve_importance("GroupTaylorImportance", {"multivariable": True})).__name__
        'GroupTaylorImportance'
        >>> resolve_importance("LAMPImportanc")
        Traceback (most recent call last):
        ...
        ValueError: importance='LAMPImportanc' is not in torch_pruning.importance. Did you mean 'LAMPImportance'...
    """
    from torch_pruning.pruner.importance import Importance as Base

    found = _load(importance) if isinstance(importance, str) else importance
    if isinstance(found, Base):
        if init_args:
            raise ValueError(f"importance={type(found).__name__}(...) is built already: give init_args to its class.")
        return _refuse_unsupported(found)
    if not (isinstance(found, type) and issubclass(found, Base)) or inspect.isabstract(found):
        raise ValueError(
            f"importance expected a subclass of torch_pruning.importance.Importance, its name, import path or an"
            f" instance, but got {importance!r}."
        )
    _check_arguments(found, init_args or {})
    try:
        return _refuse_unsupported(found(**(init_args or {})))
    except (TypeError, AssertionError) as error:
        raise ValueError(
            f"importance={found.__name__} cannot be built from {dict(init_args or {})}: {error}."
        ) from error


def _load(name: str) -> Any:
    import torch_pruning.pruner.importance as theirs

    name = name.removeprefix("torch_pruning.importance.")  # an attribute, which cannot be imported from
    if "." in name:
        return load_object(name, "importance")
    known = {k for k, v in vars(theirs).items() if isinstance(v, type) and issubclass(v, theirs.Importance)}
    known = known - {"Importance"} | set(OURS)
    if name not in known:
        raise ValueError(f"importance={name!r} is not in torch_pruning.importance.{nearest(name, sorted(known))}")
    return load_object(OURS[name], "importance") if name in OURS else getattr(theirs, name)


def _check_arguments(cls: type, init_args: Mapping[str, Any]) -> None:
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = next((name for name in init_args if name not in parameters), None)
    if unknown is not None:
        raise ValueError(
            f"importance: {cls.__name__} has no argument {unknown!r}.{nearest(unknown, parameters)}"
            f" It takes {', '.join(parameters) or 'none'}."
        )


def _refuse_unsupported(importance: Any) -> Any:
    if "OBDCImportance" in _names(importance):
        raise ValueError(
            "importance=OBDCImportance of torch-pruning 1.6 needs its pruner to collect data, and fails on layers with"
            " a bias: take GroupHessianImportance."
        )
    return importance


def _names(importance: Any) -> list[str]:
    return [base.__name__ for base in type(importance).__mro__]


def needs_data(importance: Any) -> bool:
    """Say whether an importance has to see samples before it can be asked.

    Example:
        >>> needs_data(resolve_importance("LAMPImportance")), needs_data(resolve_importance("TaylorImportance"))
        (False, True)
    """
    return _preparation(importance) is not None


def _preparation(importance: Any) -> Callable[[Any, nn.Module, Batches, Run, Loss], None] | None:
    return next((PREPARATIONS[name] for name in _names(importance) if name in PREPARATIONS), None)


def prepare_importance(
    importance: Any,
    network: nn.Module,
    batches: Batches = (),
    loss_fn: LossFn | None = None,
    *,
    call: str = "forward",
    output: OutputSpec = None,
) -> Any:
    """Show an importance the samples it needs, and return it.

    Args:
        importance: from :func:`resolve_importance`.
        network: a throwaway copy, the one that is asked about afterwards: its gradients are filled, its modules marked.
            It is put into eval mode.
        batches: pairs of inputs and labels; at most the first 64 samples for importances of second order.
        loss_fn: takes network, inputs and labels and returns the mean loss; default cross-entropy, or the squared error
            where labels are no integers.
        call: the network's method that is called.
        output: where the logits are in what it returns.

    Raises:
        ValueError: it needs data and got none.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
        >>> batches = [(torch.ones(4, 2), torch.tensor([0, 1, 1, 0]))]
        >>> _ = prepare_importance(resolve_importance("GroupTaylorImportance"), network, batches)
        >>> network[0].weight.grad.shape
        torch.Size([3, 2])
    """
    prepare = _preparation(importance)
    if prepare is None:
        return importance
    if not len(batches):
        raise ValueError(f"importance={type(importance).__name__} expected samples to look at, but got none.")
    for module in network.modules():
        module.training = False
    for parameter in network.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None

    def run(inputs: Inputs) -> Tensor:
        return call_network(network, inputs, call, output)

    def loss(inputs: Inputs, labels: Any) -> Tensor:
        return _default_loss(run(inputs), labels) if loss_fn is None else loss_fn(network, inputs, labels)

    with traceable():
        prepare(importance, network, batches, run, loss)
    return importance


def _default_loss(logits: Tensor, labels: Any) -> Tensor:
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"importance expected labels as a tensor, but got {type(labels).__name__}: give a loss_fn that takes"
            " network, inputs and labels."
        )
    if labels.is_floating_point():
        return F.mse_loss(logits, labels.view_as(logits))
    return F.cross_entropy(logits, labels)


def _first_tensor(inputs: Inputs) -> Tensor:
    return next(leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim())


def _singly(batches: Batches) -> Iterator[tuple[Inputs, Any]]:
    for inputs, labels in batches:
        n = len(_first_tensor(inputs))
        for i in range(n):
            yield tree_map(lambda leaf, i=i, n=n: _row(leaf, i, n), (inputs, labels))


def _row(leaf: Any, i: int, n: int) -> Any:
    return leaf[i : i + 1] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == n else leaf


def _fill_gradients(network: nn.Module) -> None:
    # Torch-Pruning reads .grad of every parameter; what the loss does not depend on has a gradient of zero.
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _mean_gradients(importance: Any, network: nn.Module, batches: Batches, run: Run, loss: Loss) -> None:
    sizes = [len(_first_tensor(inputs)) for inputs, _ in batches]
    for (inputs, labels), n in zip(batches, sizes, strict=True):
        (loss(inputs, labels) * (n / sum(sizes))).backward()
    _fill_gradients(network)


def _mean_squared_gradients(importance: Any, network: nn.Module, batches: Batches, run: Run, loss: Loss) -> None:
    # Not by accumulate_grad of torch-pruning 1.6.1: it looks gradients up by name but keeps them by parameter, and so
    # remembers the last sample's alone.
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


def _activations(importance: Any, network: nn.Module, batches: Batches, run: Run, loss: Loss) -> None:
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
        module._importance = mean  # where it looks for it


def _contributions(importance: Any, network: nn.Module, batches: Batches, run: Run, loss: Loss) -> None:
    importance.collect(network, [inputs for inputs, _ in batches], run)


PREPARATIONS: dict[str, Callable[[Any, nn.Module, Batches, Run, Loss], None]] = {
    "GroupTaylorImportance": _mean_gradients,
    "GroupHessianImportance": _mean_squared_gradients,
    "ActivationImportance": _activations,
    "AttributionImportance": _contributions,
}
"""What each kind of importance has to be shown, by the name of its class or of a base of it."""
