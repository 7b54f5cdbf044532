"""What happens in a running Trainer when the structure of its module changes.

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
from torch.nn.utils.parametrize import is_parametrized
from torch.optim import Optimizer

from lit_xai.structure.recipe import take_step_
from lit_xai.trainer.access import callbacks_of, is_a


def refuse_modules(module: nn.Module, name: str) -> None:
    """Refuse layers whose weights are computed from others, which a cut would not follow.

    Args:
        module: whose layers are looked at.
        name: of the callback that asks.

    Raises:
        MisconfigurationException: names the layer.

    Example:
        >>> network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
        >>> refuse_modules(network, "StructuredPruning")
        Traceback (most recent call last):
        ...
        lightning...MisconfigurationException: StructuredPruning cannot prune '0', whose weight is computed from ...
    """
    for layer, part in module.named_modules():
        # weight_norm and spectral_norm of old, and torch.nn.utils.prune, compute theirs in a hook before the forward.
        by_hook = any(type(hook).__module__.startswith("torch.nn.utils.") for hook in part._forward_pre_hooks.values())
        if is_parametrized(part) or by_hook:
            raise MisconfigurationException(
                f"{name} cannot prune '{layer}', whose weight is computed from others (weight_norm, spectral_norm,"
                " torch.nn.utils.prune): remove that first, such as with"
                " torch.nn.utils.parametrize.remove_parametrizations, or name a network without it with module=."
            )


def refuse_optimizers(trainer: Trainer, name: str) -> None:
    """Refuse optimizers that keep their parameters in a place of their own; call it once they are built.

    Args:
        trainer: whose optimizers are meant.
        name: of the callback that asks.

    Raises:
        MisconfigurationException: each process holds a share of the optimizer's state.
    """
    for optimizer in bare_optimizers(trainer):
        if any(base.__name__ == "ZeroRedundancyOptimizer" for base in type(optimizer).__mro__):
            raise MisconfigurationException(
                f"{name} cannot work with {type(optimizer).__name__}, which spreads an optimizer's state over"
                " processes: take the optimizer itself."
            )


def averaged_copies(trainer: Trainer) -> list[nn.Module]:
    """Return the copies of the module that callbacks average its weights in, such as ``EMAWeightAveraging``.

    They go by position, and have to be cut as the module is.

    Args:
        trainer: after its callbacks' ``setup``.
    """
    found = []
    for callback in callbacks_of(trainer):
        if is_a(callback, "WeightAveraging") and callback._average_model is not None:
            found.append(callback._average_model.module)
        elif is_a(callback, "StochasticWeightAveraging") and getattr(callback, "_average_model", None) is not None:
            found.append(callback._average_model)
    return found


def change_structure(trainer: Trainer, pl_module: LightningModule, step: dict[str, Any]) -> None:
    """Take a step of a recipe in a running ``fit``; call it on every process.

    Optimizers, schedulers, gradient scaling, averaged copies, DDP and compiled code go on with the new parameters.
    Gradients are dropped.

    Args:
        trainer: in ``on_train_epoch_start``: no batch is on its way then.
        pl_module: its module.
        step: the same on every process.

    Raises:
        ValueError: the step does not fit the module; nothing is changed then.
    """
    take_step_(pl_module, step, bare_optimizers(trainer), averaged_copies(trainer))
    for parameter in pl_module.parameters():
        parameter.grad = None  # half of an accumulated gradient is of no use: that of new parameters is gone
    if isinstance(trainer.strategy.model, DistributedDataParallel):
        _wrap_again(trainer.strategy, pl_module)
    if _is_compiled(pl_module):
        torch.compiler.reset()  # what was compiled is of no use, and would count towards the limit of recompilations


def bare_optimizers(trainer: Trainer) -> list[Optimizer]:
    """Return a Trainer's optimizers without Lightning's wrappers."""
    return [getattr(one, "optimizer", one) if is_a(one, "LightningOptimizer") else one for one in trainer.optimizers]


def _wrap_again(strategy: Any, pl_module: LightningModule) -> None:
    """Have DDP synchronise the parameters there are now; it holds on to those that it was built with."""
    strategy.model = pl_module
    gc.collect()  # the old wrapper's hooks on parameters that stayed go with it
    strategy.model = strategy._setup_model(pl_module)
    strategy._register_ddp_hooks()
    strategy._pl_static_graph_delay_done = False  # of the new wrapper


def _is_compiled(pl_module: LightningModule) -> bool:
    return getattr(pl_module, "_compiler_ctx", None) is not None or any(
        name.rpartition(".")[2] == "_orig_mod" for name, _ in pl_module.named_modules()
    )
