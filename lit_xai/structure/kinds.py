"""The kinds of structural steps: what each does to a network, forwards and backwards.

A step is a dict of plain values with the name of its kind under ``"kind"``. What it holds is enough to go forwards and
back without an input, so a network can be brought from any recorded structure to any other.

=============  ======================================================================================================
``prune``      ``"kept": [[name, dim, size, indices], ...]``, ``"attributes": [[module, name, old, new], ...]``
``fold``       ``"pairs": [[layer, norm, what the norm was], ...]``
``quantize``   ``"module"``, ``"plan"``: which tensors are rounded to which integers
=============  ======================================================================================================

A kind of one's own is a subclass of :class:`StepKind`, given to :func:`register_kind` once. Whatever handles steps
(recipes, checkpoints, callbacks, the export) asks the kind, and none of them knows which kinds there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import nn

from lit_xai.network.spelling import nearest

Step = dict[str, Any]


class StepKind(ABC):
    """What one kind of structural step does to a network.

    Attributes:
        name: what its steps carry under ``"kind"``. Of another package it begins with that package's name and a dot
            (``"my_package.svd"``), so that an error can say what has to be imported.
        label: what checkpoints of the structure it leads to are called; a number is added where it can be taken more
            than once (``pruned2``).
        order: a step cannot be taken after one of a higher order. Cuts are 10, folds 20, quantization is 30.
        once: whether a module goes through it at most once.
        stays_float: whether training goes on in float after it. ``ModelExport`` keeps the weights of just before the
            first step that does not, as its float file.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    order: ClassVar[int] = 10
    once: ClassVar[bool] = False
    stays_float: ClassVar[bool] = True

    def check(self, step: Step) -> None:  # noqa: B027 - a kind may have nothing to add
        """Refuse a step that no network fits, as one read from a file may be.

        Raises:
            ValueError: says what is wrong with it.
        """

    @abstractmethod
    def apply_(self, network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
        """Take the step.

        Args:
            network: whose names the step uses.
            step: what to do.
            optimizers: whose parameters are among the network's; :mod:`lit_xai.structure.following` has what brings
                them along.

        Raises:
            ValueError: the network is not what the step was recorded on. Nothing is changed then.
        """

    @abstractmethod
    def undo_(self, network: nn.Module, step: Step) -> None:
        """Go back behind the step: the structure of before, with zeros or fresh values where some were lost.

        Raises:
            ValueError: the network is not what the step led to. Nothing is changed then.
        """


# Where the library's own kinds are: named, not imported, since rooms above this one hold them.
_OURS = {
    "prune": ("lit_xai.pruning.step", "Prune"),
    "fold": ("lit_xai.quantization.steps", "Fold"),
    "quantize": ("lit_xai.quantization.steps", "Quantize"),
}
_registered: dict[str, StepKind] = {}


def register_kind(kind: StepKind) -> None:
    """Make a kind of step known in this process; do so where the package that defines it is imported.

    A recipe holds the kind's name alone, so a process that resumes or loads a checkpoint has to import the package
    first. Registering the same class again changes nothing.

    Args:
        kind: an instance.

    Raises:
        TypeError: it is no :class:`StepKind`, or one without ``name`` or ``label``.
        ValueError: another kind has that name.
    """
    if not isinstance(kind, StepKind) or not all(hasattr(kind, one) for one in ("name", "label")):
        raise TypeError(f"register_kind expected an instance of a StepKind with name and label, but got {kind!r}.")
    known = _registered.get(kind.name)
    if kind.name in _OURS or (known is not None and type(known).__qualname__ != type(kind).__qualname__):
        raise ValueError(f"register_kind: there is a kind {kind.name!r} already; name yours 'package.kind'.")
    _registered[kind.name] = kind


def kind_named(name: object) -> StepKind:
    """Return a kind by its name.

    Raises:
        ValueError: nothing of that name was registered; says what has to be imported.

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
            f"A recipe expected steps of a known kind ({', '.join(known)}), but got {name!r}.{hint} If it is not the"
            f" library's own, import {package} first, which has to call lit_xai.structure.kinds.register_kind."
        )
    return _registered[name]


def kind_of(step: Step) -> StepKind:
    """Return the kind of a step.

    Raises:
        ValueError: see :func:`kind_named`.
    """
    return kind_named(step.get("kind"))


def check_entries(step: Step, **expected: type) -> None:
    """Refuse a step in which an entry is missing, or of another type.

    Args:
        step: as read from a file.
        expected: the types by the entries' names.

    Raises:
        ValueError: names the entry.

    Example:
        >>> check_entries({"kind": "fold", "pairs": None}, pairs=list)
        Traceback (most recent call last):
        ...
        ValueError: The 'pairs' of a 'fold' step expected a list, but got None.
    """
    for entry, kind in expected.items():
        if not isinstance(step.get(entry), kind):
            raise ValueError(
                f"The {entry!r} of a {step.get('kind')!r} step expected a {kind.__name__}, but got {step.get(entry)!r}."
            )


def apply_step_(network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
    """Take a step.

    Where parameters become new objects, as their shapes do, they have the old ones' flags, hooks and attributes;
    optimizers are given them in the old ones' places, with their state (momentum, moments, row and column factors)
    changed the same way. State that cannot be starts anew, with a warning.

    Args:
        network: whose names the step uses, with or without what ``torch.compile`` puts into names.
        step: what to do.
        optimizers: whose parameters are among the network's.

    Raises:
        ValueError: a name is not there, or is not what it was when the step was recorded. Nothing is changed then.
    """
    kind_of(step).apply_(network, step, optimizers)


def undo_step_(network: nn.Module, step: Step) -> None:
    """Go back behind a step: the structure of before, with zeros, or values of a new layer, where some were lost.

    Raises:
        ValueError: the network is not what the step led to.
    """
    kind_of(step).undo_(network, step)
