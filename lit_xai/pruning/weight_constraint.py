"""The callback that keeps weights within limits while they are trained."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lit_xai.network.calling import find_network
from lit_xai.network.check import check_choice, refusal
from lit_xai.network.spelling import nearest
from lit_xai.pruning.constraint import PER, Per, as_range, clamp_, limit_norm_, unit_norm_
from lit_xai.trainer.access import refuse_strategies
from lit_xai.trainer.base import AnyCallback

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class WeightConstraint(AnyCallback):
    """Keep weights within limits: clamp them, limit their norm, or divide them by it, after every optimizer step.

    A regularizer, and the oldest way of "cutting" weights. It makes no network smaller: values change, and no channel,
    no multiply-accumulate and no byte goes. :class:`~lit_xai.StructuredPruning` does that.

    Args:
        clamp: the largest absolute value of a weight, or the lower and upper end.
        max_norm: the largest Euclidean norm; what is longer is scaled down to it.
        unit_norm: divide by the norm, so that it is 1.
        per: whose norm: ``"unit"``, of the weights into each output unit or channel, or ``"tensor"``.
        parameters: names of the parameters, with ``*`` and ``?``, seen from ``module``; by default all of two or more
            dimensions: those of linear layers, convolutions and embeddings, without biases and normalization.
        module: the network inside the LightningModule, a dotted name; by default all of it.

    Raises:
        ValueError: not exactly one limit is given, it is out of range, or, before the first step, a name matches no
            parameter.

    Example:
        >>> WeightConstraint(max_norm=3.0)
        WeightConstraint(max_norm=3.0, per='unit')
        >>> WeightConstraint()
        Traceback (most recent call last):
        ...
        ValueError: WeightConstraint expected one of clamp, max_norm and unit_norm, but got none.
    """

    def __init__(
        self,
        *,
        clamp: float | Sequence[float] | None = None,
        max_norm: float | None = None,
        unit_norm: bool = False,
        per: Per = "unit",
        parameters: Sequence[str] | None = None,
        module: str | None = None,
    ) -> None:
        super().__init__()
        check_choice("per", per, PER)
        given = {"clamp": clamp, "max_norm": max_norm, "unit_norm": unit_norm or None}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"WeightConstraint expected one of clamp, max_norm and unit_norm, but got {got}.")
        if isinstance(parameters, str):
            raise refusal("parameters", "a list of names", parameters)
        self._apply = _limit(clamp, max_norm, per)
        self._parameters, self._module = parameters, module
        self._text = ", ".join(f"{name}={value!r}" for name, value in (given | {"per": per}).items())

    def __repr__(self) -> str:
        return f"WeightConstraint({self._text})"

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        """Check the names."""
        if stage == "fit":
            refuse_strategies(trainer, "WeightConstraint")
            self._chosen(pl_module)

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Begin within the limits."""
        self.apply_(pl_module)

    def on_train_batch_end(
        self, trainer: "Trainer", pl_module: "LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Return to the limits after the step."""
        self.apply_(pl_module)

    def apply_(self, module: nn.Module) -> None:
        """Bring the weights of a module within the limits; a loop without Lightning calls this after its steps."""
        for weight in self._chosen(module):
            self._apply(weight)

    def _chosen(self, module: nn.Module) -> list[Tensor]:
        # Looked up anew each time: pruning replaces parameters.
        named = dict(find_network(module, self._module).named_parameters())
        if self._parameters is None:
            return [weight for weight in named.values() if weight.dim() > 1 and weight.is_floating_point()]
        for pattern in self._parameters:
            if not any(fnmatchcase(name, pattern) for name in named):
                raise ValueError(f"parameters: {pattern!r} matches no parameter.{nearest(pattern, list(named))}")
        return [weight for name, weight in named.items() if any(fnmatchcase(name, one) for one in self._parameters)]


def _limit(clamp: Any, max_norm: float | None, per: Per) -> Callable[[Tensor], Tensor]:
    if clamp is not None:
        low, high = as_range(clamp)
        return partial(clamp_, low=low, high=high)
    if max_norm is None:
        return partial(unit_norm_, per=per)
    if not (isinstance(max_norm, (int, float)) and max_norm is not True and 0 < max_norm < float("inf")):
        raise refusal("max_norm", "a positive number", max_norm)
    return partial(limit_norm_, most=max_norm, per=per)
