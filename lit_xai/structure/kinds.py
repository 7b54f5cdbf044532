"""The kinds of structural steps, each with the code that applies and undoes it.

A step is a dict of plain values with the name of its kind under ``"kind"``. It holds enough to apply and to undo the
change without an input, so that a network can be brought from any recorded structure to any other.

=============  ======================================================================================================
``prune``      ``"kept": [[name, dim, size, indices], ...]``, ``"attributes": [[module, name, old, new], ...]``
``fold``       ``"pairs": [[layer, norm, what the norm was], ...]``
``quantize``   ``"module"``, ``"plan"``: which tensors are quantized to which integers
=============  ======================================================================================================

To add a kind, subclass :class:`StepKind` and pass an instance to :func:`register_kind`. Everything that handles steps
(recipes, checkpoints, callbacks, the export) asks the kind; nothing keeps a list of kinds of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar, NotRequired, get_origin

import torch
from torch import nn

from lit_xai.network.check import refusal
from lit_xai.network.spelling import nearest
from lit_xai.structure.schema import check_schema, entries, shown

Step = dict[str, Any]


class StepKind(ABC):
    """One kind of structural step.

    Attributes:
        name: the value under ``"kind"`` in its steps. A kind of another package begins with the name of that package
            and a dot (``"my_package.svd"``), so that an error can say which package has to be imported.
        label: the name of the resulting structure in checkpoint files. A number is appended if the kind can be taken
            more than once (``pruned2``).
        order: a step cannot follow one of a higher order. Pruning has 10, folding 20, quantization 30.
        once: whether a module takes such a step at most once.
        stays_float: whether training continues in float afterwards. ``ModelExport`` keeps the weights from before the
            first step that ends it, and writes them as its float file.
        in_place: whether it writes into tensors that stay. A replay keeps a copy of the weights then, to put them back
            where a later step does not fit.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    order: ClassVar[int] = 10
    once: ClassVar[bool] = False
    stays_float: ClassVar[bool] = True
    in_place: ClassVar[bool] = True

    def check(self, step: Step) -> None:  # noqa: B027 - a kind may have nothing to add
        """Refuse a malformed step, before any network is touched; called for each step read from a file.

        :func:`check_entries` does most of it.

        Raises:
            ValueError: says what is wrong with the step.
        """

    @abstractmethod
    def apply_(self, network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
        """Take the step.

        Args:
            network: the module whose names the step uses.
            step: the plain values.
            optimizers: those that hold the network's parameters. Change them with
                :func:`~lit_xai.structure.following.follow_` (a parameter has a successor) or
                :func:`~lit_xai.structure.following.exchange_` (parameters go, others come).

        Raises:
            ValueError: the step does not fit the network. Whoever replays a recipe then puts the network back.
        """

    @abstractmethod
    def undo_(self, network: nn.Module, step: Step) -> None:
        """Undo the step: restore the structure before it, with zeros or fresh values where values were lost.

        Raises:
            ValueError: the network does not have the structure after the step. Nothing is changed then.
        """


# Named rather than imported: they live in packages that import this one.
_OURS = {
    "prune": ("lit_xai.pruning.step", "Prune"),
    "fold": ("lit_xai.quantization.steps", "Fold"),
    "quantize": ("lit_xai.quantization.steps", "Quantize"),
}
_registered: dict[str, StepKind] = {}


def register_kind(kind: StepKind) -> None:
    """Make a kind of step known in this process; call it at import of the module that defines the kind.

    A recipe holds the name of the kind and no import path, so that a file never decides what is imported: a process
    that resumes or loads such a checkpoint has to import the module first. Registering a class again is harmless.

    Args:
        kind: an instance.

    Raises:
        TypeError: it is no :class:`StepKind`, or has no ``name`` or ``label``.
        ValueError: the name has no dot, or another kind has it.
    """
    if not isinstance(kind, StepKind) or not all(hasattr(kind, one) for one in ("name", "label")):
        raise TypeError(f"register_kind expected an instance of a StepKind with name and label, but got {kind!r}.")
    if kind.name not in _OURS and "." not in kind.name:
        raise refusal("name", "'package.kind', so that an error can say what to import", kind.name)
    # Compared by the name of the class: a module that is imported again, as notebooks do, defines its class anew.
    known = _registered.get(kind.name)
    if kind.name in _OURS or (known is not None and type(known).__qualname__ != type(kind).__qualname__):
        raise ValueError(f"register_kind: there is a kind {kind.name!r} already; name yours 'package.kind'.")
    _registered[kind.name] = kind


def kind_named(name: object) -> StepKind:
    """Return a kind by its name.

    Raises:
        ValueError: no kind of that name is registered; says which package has to be imported.

    Example:
        >>> kind_named("prune").label
        'pruned'
    """
    if isinstance(name, str) and name not in _registered and name in _OURS:
        module, cls = _OURS[name]
        _registered[name] = getattr(import_module(module), cls)()
    if not isinstance(name, str) or name not in _registered:
        known = sorted({*_OURS, *_registered})
        package = name.partition(".")[0] if isinstance(name, str) and "." in name else "the package that defines it"
        hint = nearest(name, known) if isinstance(name, str) else ""
        raise ValueError(
            f"A recipe expected steps of a known kind ({', '.join(known)}), but got {shown(name)}.{hint} If it is not"
            f" the library's own, import {package} first, which has to call lit_xai.structure.kinds.register_kind."
        )
    return _registered[name]


def kind_of(step: Step) -> StepKind:
    """Return the kind of a step.

    Raises:
        ValueError: see :func:`kind_named`.
    """
    return kind_named(kind_name(step))


def kind_name(step: object) -> object:
    """Return the name of the kind of a step as read from a file, ``None`` where there is none."""
    return step.get("kind") if isinstance(step, dict) else None


def check_entries(step: Step, **expected: Any) -> None:
    """Refuse a step with a missing entry, one of another type, or one that its kind knows nothing of.

    Types are strict, at any depth: True is no ``int``, NaN no ``float``. Every step may have a ``note``, which is text.

    Args:
        step: as read from a file.
        expected: the type of each entry, as in an annotation: ``list[str]``, ``Annotated[int, Ge(1)]`` with
            ``annotated_types``, ``NotRequired[float]``, or one of :mod:`lit_xai.structure.schema`.

    Raises:
        ValueError: names the entry.

    Example:
        >>> check_entries({"kind": "fold", "pairs": None}, pairs=list)
        Traceback (most recent call last):
        ...
        ValueError: The 'pairs' of a 'fold' step expected type list, but got None.
    """
    required = [entry for entry, kind in expected.items() if get_origin(kind) is not NotRequired]
    given = {**dict.fromkeys(required), **step} if isinstance(step, dict) else step
    check_schema(given, _schema_of(tuple(expected.items())), f"a {shown(kind_name(step))} step")


@lru_cache(maxsize=64)
def _schema_of(expected: tuple[tuple[str, Any], ...]) -> Any:
    return entries({"kind": str, "note": NotRequired[str], **dict(expected)})


DEEPEST = 50
"""The levels of lists and dicts in a step: more are no step, and would end in a RecursionError."""


def check_plain(value: Any, where: str = "a step", depth: int = 0) -> None:
    """Refuse what would not load again under ``torch.load(..., weights_only=True)``, such as NumPy integers.

    Args:
        value: a step, or a part of one.
        where: its place, for the error.
        depth: of that place.

    Raises:
        ValueError: names the entry and its type.

    Example:
        >>> check_plain({"kind": "my_package.svd", "rank": torch.tensor(2)})
        Traceback (most recent call last):
        ...
        ValueError: a step['rank'] expected plain values (numbers, text, lists and dicts), but got a Tensor.
    """
    if depth > DEEPEST:
        raise ValueError(f"a step expected at most {DEEPEST} levels of lists and dicts, but got more.")
    # By type, not isinstance: numpy.float64 is a float, but pickles as an object of NumPy.
    if type(value) is dict:
        for key, entry in value.items():
            check_plain(entry, f"{where}[{shown(key)}]", depth + 1)
    elif type(value) in (list, tuple):
        for place, entry in enumerate(value):
            if type(entry) is not int:  # indices of channels come by the thousand
                check_plain(entry, f"{where}[{place}]", depth + 1)
    elif type(value) not in (bool, int, float, str, type(None)):
        raise ValueError(
            f"{where} expected plain values (numbers, text, lists and dicts), but got a {type(value).__name__}."
        )


def apply_step_(network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
    """Take a step.

    Parameters whose shapes change become new objects with the flags, hooks and attributes of the old ones. Optimizers
    get them in the same places, with their state (momentum, moments, row and column factors) changed in the same way.
    State that cannot be changed restarts, with a warning.

    Args:
        network: the module whose names the step uses; wrappers of ``torch.compile`` in names are ignored.
        step: the plain values.
        optimizers: those that hold the network's parameters.

    Raises:
        ValueError: the kind is unknown, or the step does not fit the network. Nothing is changed then.
    """
    kind_of(step).apply_(network, step, optimizers)


def undo_step_(network: nn.Module, step: Step) -> None:
    """Undo a step, with zeros or fresh values where values were lost.

    Raises:
        ValueError: the network does not have the structure after the step.
    """
    kind_of(step).undo_(network, step)
