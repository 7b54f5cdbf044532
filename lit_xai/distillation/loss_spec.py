"""The protocol of losses between a student and a teacher, which losses of any package can follow.

A loss is a function, a ``functools.partial`` or an instance of a class with ``__call__`` or ``forward``, given to
:class:`~lit_xai.distillation.callback.KnowledgeDistillation` itself or by its import path (in YAML, an instance also by
``class_path`` and ``init_args``)::

    def loss(student: Tensor, teacher: Tensor, **arguments) -> Tensor  # one number, to be minimized

Called by position, it gets the student's and the teacher's logits (``loss=``), or the outputs of one layer of each
(``feature_loss=``). The teacher's carry no gradient. It returns the mean over the samples, so that its size does not
depend on the batch. Student and teacher come in the precision that the network computes in, which is half precision
under autocast: cast with ``.float()``. The teacher's features may be channels-last: ``view`` fails on them, ``reshape``
and ``flatten`` do not. A loss declares what else it needs:

===================================  ==================================================================================
in the function                      effect
===================================  ==================================================================================
a parameter ``temperature``          ``loss=`` only: it gets the temperature, and the term is multiplied by its square,
                                     since the gradients of softened probabilities shrink with it.
a parameter ``target``               ``loss=`` only: it gets the labels of the batch.
any other parameter                  the user sets it with ``loss_args=`` or ``feature_loss_args=``; one without a
                                     default is required.
the attribute ``any_width = True``   ``feature_loss=`` only: it gets layers of different widths and spatial sizes as
                                     they are. For a loss without it, the larger map, the student's or the teacher's, is
                                     average-pooled to the smaller spatial size; where widths differ, an adapter is
                                     trained that maps the student's features to the teacher's width.
===================================  ==================================================================================

``temperature`` and ``target`` must not be the first or second parameter, which are the student and the teacher. A
value that a ``functools.partial`` sets is kept and no longer passed; ``any_width`` is read from the function inside.
``functools.wraps`` copies it, where it is set before the function is wrapped.

Example:
    A feature loss that compares the similarities between the samples of a batch (Tung and Mori 2019,
    Similarity-Preserving Knowledge Distillation, https://arxiv.org/abs/1907.09682), so that widths do not matter:

    >>> import torch
    >>> from torch.nn.functional import mse_loss, normalize
    >>> def similarity(student, teacher, *, power: float = 1.0):
    ...     pair = (normalize(layer.flatten(1)) for layer in (student, teacher))
    ...     return mse_loss(*((rows @ rows.T).abs() ** power for rows in pair))
    >>> similarity.any_width = True
    >>> from lit_xai import KnowledgeDistillation
    >>> distillation = KnowledgeDistillation(
    ...     "ema", features=["layer2"], feature_loss=similarity, feature_loss_args={"power": 2.0}
    ... )
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.describing import describe
from lit_xai.network.import_path import load_object
from lit_xai.network.spelling import nearest
from lit_xai.trainer.access import rank_zero_warn

PASSED = ("temperature", "target")
"""Parameters of a loss on logits that the callback fills."""


def resolve_loss(
    loss: str | Callable[..., Tensor], argument: str, known: Mapping[str, Callable[..., Tensor]]
) -> Callable[..., Tensor]:
    """Return the loss that a name, an import path or a function stands for.

    Args:
        loss: a name in ``known``, an import path (with a dot), or a function.
        argument: the argument it was given for, named in the error.
        known: functions by name, :data:`~lit_xai.distillation.losses.LOSSES` or
            :data:`~lit_xai.distillation.losses.FEATURE_LOSSES`.

    Raises:
        ValueError: it is none of these; the nearest names are given.

    Example:
        >>> from lit_xai.distillation.losses import LOSSES
        >>> resolve_loss("l2", "loss", LOSSES) is resolve_loss("lit_xai.distillation.losses.l2", "loss", LOSSES)
        True
        >>> resolve_loss("kl_divergance", "loss", LOSSES)
        Traceback (most recent call last):
        ...
        ValueError: loss expected a function, its import path, or one of kl_divergence, decoupled_kl_divergence, l1, l2,
        huber, but got 'kl_divergance'. Did you mean 'kl_divergence' or 'decoupled_kl_divergence'?
    """
    if isinstance(loss, str) and loss in known:
        return known[loss]
    function = load_object(loss, argument) if isinstance(loss, str) and "." in loss else loss
    if isinstance(function, type):
        raise ValueError(
            f"{argument} expected a function of student and teacher, but got the class {function.__name__}: give an"
            " instance of it, or the function that does the same."
        )
    if not callable(function):
        close = nearest(loss, known) if isinstance(loss, str) else ""
        kind = f", which is of type {type(function).__name__}" if function is not loss else ""
        raise ValueError(
            f"{argument} expected a function, its import path, or one of {', '.join(known)}, but got"
            f" {loss!r}{kind}.{close}"
        )
    return function


def takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a loss accepts a keyword argument next to student and teacher, its first two parameters.

    Args:
        function: a function, ``functools.partial`` or module; one whose signature Python cannot read takes nothing.
        name: of the argument, such as ``"temperature"`` or ``"target"``.

    Example:
        >>> from lit_xai.distillation.losses import kl_divergence, l2
        >>> takes(kl_divergence, "temperature"), takes(l2, "temperature")
        (True, False)
        >>> from torch.nn.functional import mse_loss
        >>> takes(mse_loss, "target")  # the name of its second parameter
        False
        >>> takes(functools.partial(kl_divergence, temperature=4.0), "temperature")  # already set
        False
    """
    if any(name in part.keywords for part in _partials(function)):
        return False
    parameters = _parameters(function) or []
    # mse_loss, for one, calls its second parameter `target`: it gets the teacher there.
    if name in [p.name for p in _pair(parameters)]:
        return False
    return name in _names(function) or any(p.kind is p.VAR_KEYWORD for p in parameters)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of a loss; ``None`` for a built-in whose signature Python cannot read."""
    try:
        # A module's __call__ accepts anything; its forward does not.
        called = function.forward if isinstance(function, nn.Module) else function
        return list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return None


def _names(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters next to student and teacher."""
    parameters = _parameters(function) or []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in by_name and p not in _pair(parameters)]


def _pair(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return the parameters that student and teacher are passed to; fewer than two where ``*args`` takes them."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in parameters if p.kind in positional][:2]


def takes_any_width(function: Callable[..., Any]) -> bool:
    """Return whether a loss on features compares layers of different widths as they are.

    Args:
        function: a function, ``functools.partial`` or module.

    Example:
        >>> from lit_xai.distillation.losses import attention_transfer, hint
        >>> takes_any_width(attention_transfer), takes_any_width(hint)
        (True, False)
        >>> takes_any_width(functools.partial(attention_transfer, channel_dim=-1))
        True
    """
    # A partial has attributes of its own and none of its function's.
    inside = [part.func for part in _partials(function)]
    return any(getattr(each, "any_width", False) for each in (function, *inside))


def _partials(function: Any) -> list["functools.partial[Any]"]:
    """Return a partial and those inside it; Python flattens them only while the inner one has no attributes."""
    partials = []
    while isinstance(function, functools.partial):
        partials.append(function)
        function = function.func
    return partials


@dataclass(frozen=True)
class LossSpec:
    """A loss, and the arguments that the user set for it.

    Args:
        loss: a name in ``known``, an import path, or a function.
        argument: the argument it was given for, named in errors: ``"loss"`` or ``"feature_loss"``.
        known: functions by name.
        args: keyword arguments for it.

    Attributes:
        function: what the loss resolved to.

    Raises:
        ValueError: there is no such loss, it is no function of two tensors, it does not take one of the arguments, or
            one that it requires is missing.

    Example:
        >>> import torch
        >>> from lit_xai.distillation.losses import LOSSES
        >>> loss = LossSpec("huber", "loss", LOSSES, {"delta": 2.0})
        >>> loss.name, loss(torch.zeros(2, 1), torch.ones(2, 1))
        ('huber', tensor(0.5000))
    """

    loss: str | Callable[..., Tensor]
    argument: str
    known: Mapping[str, Callable[..., Tensor]]
    args: Mapping[str, Any] = field(default_factory=dict)
    function: Callable[..., Tensor] = field(init=False)
    _is_warned: bool = field(init=False, default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # The dataclass is frozen, so this is the only way to set a computed field.
        object.__setattr__(self, "function", resolve_loss(self.loss, self.argument, self.known))
        unknown = next((name for name in self.args if not self.takes(name)), None)
        if unknown is not None:
            near = nearest(str(unknown), filter(self.takes, _names(self.function)))
            raise ValueError(f"{self.argument}_args: {self.name} takes no {unknown!r}.{near}")
        # Checked here: a call that does not fit would fail in the first step, after data and teacher were loaded.
        parameters = _parameters(self.function)
        if parameters is not None:
            self._check_call(parameters)

    def _check_call(self, parameters: list[inspect.Parameter]) -> None:
        pair = _pair(parameters)
        if len(pair) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            names = ", ".join(p.name for p in parameters)
            raise ValueError(
                f"{self.argument} expected a function of student and teacher, called by position, but got"
                f" {self.name}({names})."
            )
        passed = set(self.args) | (set(filter(self.takes, PASSED)) if self.argument == "loss" else set())
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        required = [p.name for p in parameters if p.default is p.empty and p.kind not in variable and p not in pair]
        missing = next((name for name in required if name not in passed), None)
        if missing is not None:
            raise ValueError(
                f"{self.argument}_args expected {missing!r}, which {self.name} requires, but got {dict(self.args)}:"
                " give it, or the parameter a default."
            )

    @property
    def name(self) -> str:
        """The name of the function, for messages."""
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return getattr(function, "__name__", type(function).__name__)

    @property
    def takes_any_width(self) -> bool:
        """Whether it compares layers of different widths as they are."""
        return takes_any_width(self.function)

    def takes(self, name: str) -> bool:
        """Return whether it accepts a keyword argument."""
        return takes(self.function, name)

    def __call__(self, student: Tensor, teacher: Tensor, **arguments: Any) -> Tensor:
        """Return the loss as one number.

        Args:
            student: its logits or features.
            teacher: its logits or features.
            arguments: further keyword arguments, in place of the user's.

        Raises:
            ValueError: the function returns anything but one number, as a tensor.
        """
        value = self.function(student, teacher, **{**self.args, **arguments})
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{self.argument} expected a function that returns one tensor, but {self.name} returned"
                f" {describe(value)}: compute it from the student's with torch, without item() or float()."
            )
        if value.numel() != 1:
            raise ValueError(
                f"{self.argument} expected a function that returns one number, but got {describe(value)}: average it."
            )
        # A warning, not an error: a loss that selects samples has none to learn from in some batches.
        if not value.requires_grad and student.requires_grad and torch.is_grad_enabled() and not self._is_warned:
            object.__setattr__(self, "_is_warned", True)
            rank_zero_warn(
                f"{self.argument}: {self.name} returned a constant, from which the student learns nothing in this step:"
                " compute it from the student's tensor, without detach() or no_grad()."
            )
        return value.reshape(())
