"""The importance that ranks channels: found by name or import path, and shown the data it needs.

An importance is any ``torch_pruning.importance.Importance``. One with a method ``collect(network, inputs, run)`` is
shown training samples; :class:`~lit_xai.pruning.input_importance.InputImportance` is a base for these. Torch-Pruning's
own, which know no such method, have adapters in :mod:`lit_xai.pruning.importance_adapters`.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_xai.network.calling import Inputs, OutputSpec, call_network
from lit_xai.network.check import check_integer
from lit_xai.network.import_path import load_object
from lit_xai.network.layers import require_gradients_, traceable
from lit_xai.network.spelling import nearest
from lit_xai.pruning.importance_adapters import Batches, find_adapter, unsupported_because
from lit_xai.pruning.searching import one_line

Importance: TypeAlias = str | type | Callable[[Any], Any]
LossFn: TypeAlias = Callable[[nn.Module, Any, Any], Tensor]

SHORT_NAMES = {"AttributionImportance": "lit_xai.pruning.importance_attribution.AttributionImportance"}
"""Importances of the library that need no import path, as those of ``torch_pruning.importance`` need none."""


class ImportanceError(ValueError):
    """An importance that measures or returns what cannot rank channels; the message names it."""

    @classmethod
    def expected(cls, importance: Any, what: str, value: object) -> "ImportanceError":
        """Return the error of an importance from which something else was expected, such as another shape.

        Example:
            >>> ImportanceError.expected(nn.ReLU(), "to return a tensor of shape (3,)", Tensor([1.0]))
            ImportanceError('importance=ReLU expected to return a tensor of shape (3,), but got shape (1,).')
        """
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else " ".join(repr(value).split())[:80]
        return cls(f"importance={name_of(importance)} expected {what}, but got {got}.")


def name_of(importance: Any) -> str:
    """Return the name of an importance in messages: its class's, or a function's own."""
    return str(getattr(importance, "__name__", type(importance).__name__))


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
        return _supported(found)
    if not (isinstance(found, type) and issubclass(found, Base)) or found is Base:
        raise ValueError(
            f"importance expected a subclass of torch_pruning.importance.Importance, its name, import path or an"
            f" instance, but got {importance!r}."
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))  # type: ignore[attr-defined]  # isabstract looked at it
        raise ValueError(f"importance={found.__name__} has to define {missing}.")
    # Checked by name first: the class's own TypeError would not name the nearest argument.
    _check_arguments(found, init_args or {})
    try:
        return _supported(found(**(init_args or {})))
    # Torch-Pruning's importances check their arguments by assertions.
    except (TypeError, AssertionError) as error:
        raise ValueError(
            f"importance={found.__name__} cannot be built from {dict(init_args or {})}: {error}."
        ) from error


def _load(name: str) -> Any:
    from torch_pruning.pruner import importance as library

    name = name.removeprefix("torch_pruning.importance.")  # an attribute, which cannot be imported from
    if "." in name:
        return load_object(name, "importance")
    known = {k for k, v in vars(library).items() if isinstance(v, type) and issubclass(v, library.Importance)}
    known = known - {"Importance"} | set(SHORT_NAMES)
    if name not in known:
        raise ValueError(
            f"importance={name!r} is not in torch_pruning.importance.{nearest(name, sorted(known))} A class of your own"
            f" needs its import path, such as 'package.module.{name}'."
        )
    return load_object(SHORT_NAMES[name], "importance") if name in SHORT_NAMES else getattr(library, name)


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


def _supported(importance: Any) -> Any:
    reason = unsupported_because(importance)
    if reason is not None:
        raise ValueError(f"importance={reason}.")
    return importance


def needs_data(importance: Any) -> bool:
    """Return whether an importance has to see samples before it can rank channels.

    Example:
        >>> needs_data(resolve_importance("LAMPImportance")), needs_data(resolve_importance("TaylorImportance"))
        (False, True)
    """
    return _collects(importance) or find_adapter(importance) is not None


def _collects(importance: Any) -> bool:
    return callable(getattr(importance, "collect", None))


@dataclass(frozen=True)
class ImportanceSpec:
    """The settings of an importance: a class is built again for each cut, an instance is used for all of them.

    Args:
        importance: see :func:`resolve_importance`.
        init_args: for the class's constructor.
        samples: how many training samples it is shown, if it needs any.

    Raises:
        ValueError: names the argument that is wrong.
    """

    importance: Importance
    init_args: Mapping[str, Any] | None = None
    samples: int = 256

    def __post_init__(self) -> None:
        check_integer("importance_samples", self.samples)
        self.make()  # so that a misspelled name is refused now

    def make(self) -> Any:
        """Return a new importance that has seen no data, or the instance that was given.

        An instance is not copied, so that its owner can look at what it measured. It is shown data again before each
        cut.
        """
        return resolve_importance(self.importance, self.init_args)


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
        importance: from :func:`resolve_importance`. Its own ``collect(network, inputs, run)`` is called if it has one.
        network: a throwaway copy, the one whose channels are ranked afterwards: its gradients are filled, its modules
            marked. It is put into eval mode.
        batches: pairs of inputs and labels; at most the first 64 samples for importances of second order.
        loss_fn: takes network, inputs and labels and returns the mean loss; default cross-entropy, or the squared error
            where labels are no integers.
        call: the network's method that is called.
        output: where the logits are in what it returns.

    Raises:
        ValueError: it needs data and got none.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
        >>> batches = [(torch.ones(4, 2), torch.tensor([0, 1, 1, 0]))]
        >>> _ = prepare_importance(resolve_importance("GroupTaylorImportance"), network, batches)
        >>> network[0].weight.grad.shape
        torch.Size([3, 2])
    """
    if not needs_data(importance):
        return importance
    if not len(batches):
        raise ValueError(f"importance={type(importance).__name__} expected samples to collect data on, but got none.")
    for module in network.modules():
        module.training = False
    require_gradients_(network)  # frozen layers are ranked too, and importances read a gradient of every parameter
    network.zero_grad(set_to_none=True)

    def run(inputs: Inputs) -> Tensor:
        return call_network(network, inputs, call, output)

    def loss(inputs: Inputs, labels: Any) -> Tensor:
        return _default_loss(run(inputs), labels) if loss_fn is None else loss_fn(network, inputs, labels)

    with traceable():
        if _collects(importance):
            importance.collect(network, [inputs for inputs, _ in batches], run)
        elif (adapter := find_adapter(importance)) is not None:
            adapter(importance, network, batches, run, loss)
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


def scores_of(importance: Any, group: Any, layers: Sequence[str]) -> Tensor | None:
    """Return a group's importances as finite numbers on the CPU, ``None`` if the importance does not rank it.

    Args:
        importance: with its data, if it needs any.
        group: Torch-Pruning's, with every channel of its root.
        layers: the names of its layers, for errors.

    Raises:
        ImportanceError: one of a user's own fails, or returns something else than a number for each channel.
    """
    is_builtin = type(importance).__module__.partition(".")[0] in ("torch_pruning", "lit_xai")
    expected = len(group[0].idxs)
    try:
        scores = importance(group)
    except ImportanceError:
        raise
    except Exception as error:
        if is_builtin:  # these fail where the graph was misread: the caller's error names the network
            raise
        is_unset = isinstance(error, AttributeError) and error.obj is importance
        hint = (
            " Does its __init__ call super().__init__()?" if is_unset and "__init__" in vars(type(importance)) else ""
        )
        raise ImportanceError(
            f"importance={name_of(importance)} failed on the channels of {list(layers)} ({type(error).__name__}:"
            f" {one_line(error)}).{hint}"
        ) from error
    if scores is None:
        return None
    if not is_builtin and (not isinstance(scores, Tensor) or scores.shape != (expected,)):
        what = f"to return a tensor of shape ({expected},), one value for each channel of {list(layers)}"
        raise ImportanceError.expected(importance, what, scores)
    if _has_nan(importance, group, scores):
        raise ImportanceError(
            f"importance={name_of(importance)} expected to return a number for each channel of {list(layers)}, but got"
            f" nan for {int(scores.isnan().sum())} of {expected}: channels cannot be ranked by it."
        )
    # What a normalizer left without a number counts as 0, infinity as the largest number.
    return torch.nan_to_num(scores.detach().float().cpu())


def _has_nan(importance: Any, group: Any, scores: Tensor) -> bool:
    if not scores.isnan().any():
        return False
    if getattr(importance, "normalizer", None) is None:
        return True
    # Torch-Pruning's normalizers divide by a group's sum or mean: a group of zeros, which a dead or frozen layer may
    # well have, becomes 0 / 0. That is no fault of the importance, so the scores before it are looked at.
    raw = copy.copy(importance)
    raw.normalizer = None
    return bool(raw(group).isnan().any())


def importance_of_copy(importance: Any, network: nn.Module, copied: nn.Module) -> Any:
    """Return an importance that holds for a network's copy the data that it collected on the network.

    Collected data are kept in dictionaries by module or parameter, or in the parameters' ``.grad``, which a copy does
    not have.

    Args:
        importance: prepared on ``network``, or not at all; left unchanged.
        network: the network that data were collected on; left unchanged.
        copied: a deep copy of it.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> importance = resolve_importance("AttributionImportance").collect(network, [torch.ones(4, 2)])
        >>> copied = copy.deepcopy(network)
        >>> importance_of_copy(importance, network, copied).contributions[copied[1]].shape
        torch.Size([4, 3])
    """
    if importance is None or not needs_data(importance):
        return importance
    twins: dict[Any, Any] = dict(zip(network.modules(), copied.modules(), strict=True))
    for parameter, twin in zip(network.parameters(), copied.parameters(), strict=True):
        twins[parameter] = twin
        if parameter.grad is not None:
            twin.grad = parameter.grad.detach().clone()
    # A shallow copy: settings are shared, and only the dictionaries by module are built again with the copy's modules.
    carried = copy.copy(importance)
    for name, value in vars(importance).items():
        if isinstance(value, dict) and any(isinstance(key, (nn.Module, Tensor)) for key in value):
            setattr(carried, name, {twins.get(key, key): entry for key, entry in value.items()})
    return carried
