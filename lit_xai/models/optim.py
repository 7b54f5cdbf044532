"""Optimizer and scheduler from callables, with the schedule's length taken from the Trainer."""

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeAlias

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LRScheduler, OneCycleLR

Interval: TypeAlias = Literal["epoch", "step"]

PER_STEP = (OneCycleLR, CyclicLR)
"""Schedules whose lengths count optimizer steps."""

LENGTHS = ("total_steps", "T_max")
"""Torch's names for the number of scheduler steps from the first learning rate to the last."""


class CosineAnnealing(CosineAnnealingLR):
    """``torch.optim.lr_scheduler.CosineAnnealingLR`` whose ``T_max`` may be left out in YAML: one half wave per run.

    In Python, leave ``T_max`` out of torch's own class. A command line cannot: it does not build a class without an
    argument that the class requires.

    Args:
        optimizer: the optimizer whose learning rate falls.
        T_max: scheduler steps from the initial rate to ``eta_min``; filled in by :func:`configure_optimizers`.
        eta_min: the last learning rate.
        last_epoch: where to resume.

    Raises:
        ValueError: ``T_max`` was neither given nor filled in.

    Example:
        >>> import torch
        >>> schedule = CosineAnnealing(torch.optim.SGD([torch.zeros(1)], lr=0.1), T_max=10)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int | None = None,  # noqa: N803 - torch's name
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if T_max is None:
            raise ValueError("T_max expected the number of scheduler steps, but got None: give it, or pass the class.")
        super().__init__(optimizer, T_max, eta_min, last_epoch)


def configure_optimizers(
    parameters: Iterable[Parameter],
    optimizer: OptimizerCallable,
    lr_scheduler: LRSchedulerCallable | None,
    *,
    trainer: Trainer,
    interval: Interval | None = None,
    monitor: str = "val/loss",
) -> OptimizerLRScheduler:
    """Build optimizer and scheduler and return them in the form that a LightningModule returns them in.

    Args:
        parameters: the parameters to train.
        optimizer: called with the parameters: a class, a ``functools.partial`` or lambda of one, or what a command line
            builds from ``class_path`` and ``init_args``.
        lr_scheduler: called with the optimizer; of the same kinds. ``total_steps`` of ``OneCycleLR`` and ``T_max`` of
            ``CosineAnnealingLR`` are taken from the Trainer if they are left out.
        trainer: the Trainer of this run.
        interval: whether the scheduler steps after each ``"epoch"`` or each optimizer ``"step"``; by default epochs,
            but steps for ``OneCycleLR`` and ``CyclicLR``.
        monitor: the metric that ``ReduceLROnPlateau`` watches, unless the scheduler names its own.

    Raises:
        MisconfigurationException: one of them cannot be built, or the Trainer sets no end to derive a length from.

    Example:
        >>> from torch import nn, optim
        >>> found = configure_optimizers(nn.Linear(2, 1).parameters(), optim.Adam, None, trainer=Trainer(logger=False))
        >>> type(found["optimizer"])
        <class 'torch.optim.adam.Adam'>
    """
    built = _build("optimizer", optimizer, parameters, Optimizer)
    if lr_scheduler is None:
        return {"optimizer": built}
    schedule = _build("lr_scheduler", with_length(lr_scheduler, trainer, interval), built, LRScheduler)
    return {
        "optimizer": built,
        "lr_scheduler": {
            "scheduler": schedule,
            "interval": interval or ("step" if isinstance(schedule, PER_STEP) else "epoch"),
            "monitor": getattr(schedule, "monitor", monitor),  # Lightning's own ReduceLROnPlateau names it
        },
    }


def _build(argument: str, make: Callable[[Any], Any], on: Any, expected: type) -> Any:
    try:
        built = make(on)
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"{argument} could not be built: {error}") from error
    if not isinstance(built, expected):
        raise MisconfigurationException(
            f"{argument} expected to return a torch {expected.__name__}, but got {type(built).__name__}."
        )
    return built


def with_length(lr_scheduler: LRSchedulerCallable, trainer: Trainer, interval: Interval | None) -> LRSchedulerCallable:
    """Return ``lr_scheduler`` with the length of the run filled in if it is left out.

    Args:
        lr_scheduler: as for :func:`configure_optimizers`; a lambda is returned as it is.
        trainer: the Trainer of this run.
        interval: as for :func:`configure_optimizers`.

    Raises:
        MisconfigurationException: the Trainer sets no end to derive the length from.
    """
    cls = _class_of(lr_scheduler)
    argument = _missing_length(lr_scheduler, cls)
    if cls is None or argument is None:
        return lr_scheduler
    per_step = interval == "step" or (interval is None and issubclass(cls, PER_STEP))
    length = trainer.estimated_stepping_batches if per_step else trainer.max_epochs
    if length is None or not 0 <= length < math.inf:
        unit = "max_steps" if per_step else "max_epochs"
        raise MisconfigurationException(
            f"{argument} of {cls.__name__} expected a Trainer with {unit}, but got one that sets no end: give {unit} to"
            f" the Trainer or {argument} to the scheduler."
        )
    # Schedulers refuse or divide by a length of 0, which a run without training has.
    return partial(lr_scheduler, **{argument: max(int(length), 1)})


def _missing_length(lr_scheduler: LRSchedulerCallable, cls: type[LRScheduler] | None) -> str | None:
    """Return the name of the argument that takes the schedule's length, if the class has one and it is not given."""
    known = inspect.signature(cls).parameters if cls is not None else {}
    # By parameter rather than by class, so that other packages' schedulers with these names are filled in too.
    argument = next((name for name in LENGTHS if name in known), None)
    given: dict[Any, Any] = lr_scheduler.keywords if isinstance(lr_scheduler, partial) else {}
    # OneCycleLR can also be given its length as epochs times steps_per_epoch.
    is_given = any(given.get(name) is not None for name in (argument, "epochs", "steps_per_epoch"))
    return None if is_given else argument


def _class_of(lr_scheduler: LRSchedulerCallable) -> type[LRScheduler] | None:
    """Return the scheduler's class: itself, the function of a partial, or, as jsonargparse builds it, its argument."""
    seen = (lr_scheduler.func, *lr_scheduler.args) if isinstance(lr_scheduler, partial) else (lr_scheduler,)
    return next((part for part in seen if isinstance(part, type) and issubclass(part, LRScheduler)), None)
