"""What a module's training step calls: which of its parts is the network that takes the inputs and gives the logits."""

import inspect
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from lit_xai.network.copying import copy_network
from lit_xai.network.recording import Call, recorded
from lit_xai.network.spec import weighted_parts
from lit_xai.network.untouched import untouched
from lit_xai.trainer.access import without_log


def candidates(pl_module: nn.Module, module: str | None) -> dict[str, nn.Module]:
    """Return by name what a training step may call: the module that was named, or itself and its direct parts."""
    if module is None:
        return {"": pl_module, **weighted_parts(pl_module)}
    # Not as find_network does, behind wrappers of torch.compile: it is the wrapper that is called.
    wrapped = {name.replace("._orig_mod", ""): m for name, m in reversed(list(pl_module.named_modules())) if name}
    return {module: wrapped[module] if module else pl_module}


def called(calls: Iterable[Call]) -> list[str]:
    """Return the names of what was called, each once."""
    return list(dict.fromkeys(call.name for call in calls))


def called_by_step(pl_module: LightningModule, batch: Any) -> list[str]:
    """Return what the training step calls, tried on a copy; empty where the step cannot be run by itself.

    Args:
        pl_module: as it is in ``fit``.
        batch: as its steps get it.
    """
    if not pl_module.automatic_optimization:  # it would step the optimizers
        return []
    copied: Any = copy_network(pl_module)
    taken = len(inspect.signature(copied.training_step).parameters)
    try:
        with without_log(copied), untouched(copied), recorded(candidates(copied, None)) as calls:
            copied.training_step(*(batch, 0)[:taken])
    except Exception:  # a step that needs more of its Trainer than a copy has: the first batch will tell
        return []
    return called(calls)


def chosen(names: list[str]) -> str | None:
    """Return the one network among what a step calls, ``None`` where that is not clear.

    Example:
        >>> chosen(["network"]), chosen(["", "metrics"]), chosen(["encoder", "decoder"])
        ('network', '', None)
    """
    return "" if "" in names else names[0] if len(names) == 1 else None


def say_what_is_called(pl_module: nn.Module, names: list[str], wanted: str | None) -> str:
    """Return, for an error, what the training step calls and how to say which of it is meant.

    Args:
        pl_module: whose step it is.
        names: of what it calls.
        wanted: which of it was looked for, if that is known.
    """
    shown = " and ".join(repr(name) if name else "itself" for name in names)
    what = f"calls {shown}" if names else f"does not call {repr(wanted) if wanted else 'a network'}"
    return (
        f"{type(pl_module).__name__}.training_step {what}: name the network that takes the inputs and gives the logits"
        f" with module=, one of {list(weighted_parts(pl_module))}; where that is the module itself, have the step call"
        " self(x)."
    )
