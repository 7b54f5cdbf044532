"""Change the structure of a module in a running Trainer.

Private names in use: ``DDPStrategy._setup_model``, ``DDPStrategy._register_ddp_hooks``,
``DDPStrategy._pl_static_graph_delay_done``, ``WeightAveraging._average_model`` and ``LightningModule._compiler_ctx``.
"""

import gc
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lit_xai.structure.attachment import take_step_
from lit_xai.trainer.access import callbacks_of, is_a


def refuse_optimizers(trainer: Trainer, name: str) -> None:
    """Refuse optimizers that shard their parameters; call it once they are built.

    Args:
        trainer: its optimizers are checked.
        name: the callback, for the error.

    Raises:
        MisconfigurationException: each process holds a shard of the optimizer state.
    """
    for optimizer in bare_optimizers(trainer):
        if any(base.__name__ == "ZeroRedundancyOptimizer" for base in type(optimizer).__mro__):
            raise MisconfigurationException(
                f"{name} cannot work with {type(optimizer).__name__}, which spreads an optimizer's state over"
                " processes: use the optimizer itself."
            )


def refuse_masks(trainer: Trainer, name: str) -> None:
    """Refuse Lightning's ``ModelPruning``, whose masks replace parameters by others of other names during the run.

    Args:
        trainer: its callbacks are checked.
        name: what needs the parameters to stay, for the error.

    Raises:
        MisconfigurationException: there is one.
    """
    if any(is_a(callback, "ModelPruning") for callback in callbacks_of(trainer)):
        raise MisconfigurationException(
            f"{name} cannot work with ModelPruning, which puts masks in the places of weights during the run: leave one"
            " of the two out."
        )


def averaged_copies(trainer: Trainer) -> list[nn.Module]:
    """Return the copies of the module in which callbacks such as ``EMAWeightAveraging`` average its weights.

    They pair parameters by position, so a copy has to change with the module.

    Args:
        trainer: after the ``setup`` of its callbacks.
    """
    found = []
    for callback in callbacks_of(trainer):
        if is_a(callback, "WeightAveraging") and callback._average_model is not None:
            found.append(callback._average_model.module)
        # A deep copy of the module rather than a wrapper, made in the setup of fit.
        elif is_a(callback, "StochasticWeightAveraging") and getattr(callback, "_average_model", None) is not None:
            found.append(callback._average_model)
    return found


def average_counts(trainer: Trainer) -> list[torch.Tensor]:
    """Return how many times each of the :func:`averaged_copies` has been updated, as the tensors that count it."""
    found = []
    for callback in callbacks_of(trainer):
        if is_a(callback, "WeightAveraging") and callback._average_model is not None:
            found.append(callback._average_model.n_averaged)
        elif is_a(callback, "StochasticWeightAveraging") and getattr(callback, "n_averaged", None) is not None:
            found.append(callback.n_averaged)
    return found


def put_averages_again(trainer: Trainer, observer: Any) -> None:
    """Put averaged weights into the module again, where that was done before an observer changed both.

    Args:
        trainer: at the end of training.
        observer: the callback in whose ``on_train_end`` this is; those before it have had theirs.
    """
    for callback in callbacks_of(trainer):
        if callback is observer:
            break
        if is_a(callback, "WeightAveraging"):
            callback.on_train_end(trainer, trainer.lightning_module)


def change_structure(trainer: Trainer, pl_module: LightningModule, step: dict[str, Any]) -> None:
    """Take a structural step in a running ``fit``; call it on every process.

    Optimizers, schedulers, gradient scalers, averaged copies, DDP and compiled code continue with the new parameters.
    Gradients are dropped.

    Args:
        trainer: in ``on_train_epoch_start``, when no batch is being processed.
        pl_module: its module.
        step: the same on every process.

    Raises:
        ValueError: the step does not fit the module. Nothing is changed then.
    """
    take_step_(pl_module, step, bare_optimizers(trainer), averaged_copies(trainer))
    continue_with_parameters(trainer, pl_module)


def continue_with_parameters(trainer: Trainer, pl_module: LightningModule) -> None:
    """Have DDP and compiled code continue with a module's present parameters; gradients are dropped.

    Args:
        trainer: as for :func:`change_structure`.
        pl_module: its module.
    """
    for parameter in pl_module.parameters():
        parameter.grad = None  # new parameters have none, and part of an accumulated gradient is no gradient
    if isinstance(trainer.strategy.model, DistributedDataParallel):
        _wrap_again(trainer.strategy, pl_module)
    if _is_compiled(pl_module):
        torch.compiler.reset()  # compiled code is stale, and would count towards the recompilation limit


def bare_optimizers(trainer: Trainer) -> list[Optimizer]:
    """Return a Trainer's optimizers without Lightning's wrappers."""
    # The wrappers refer to the optimizers, whose groups are changed in place: both stay valid.
    return [getattr(one, "optimizer", one) if is_a(one, "LightningOptimizer") else one for one in trainer.optimizers]


def _wrap_again(strategy: Any, pl_module: LightningModule) -> None:
    """Have DDP synchronize the present parameters; it keeps references to those that it was built with."""
    strategy.model = pl_module
    gc.collect()  # frees the old wrapper's hooks, which sit on parameters that stayed
    strategy.model = strategy._setup_model(pl_module)
    strategy._register_ddp_hooks()
    strategy._pl_static_graph_delay_done = False  # of the new wrapper


def _is_compiled(pl_module: LightningModule) -> bool:
    return getattr(pl_module, "_compiler_ctx", None) is not None or any(
        name.rpartition(".")[2] == "_orig_mod" for name, _ in pl_module.named_modules()
    )
