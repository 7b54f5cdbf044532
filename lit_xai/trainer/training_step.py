"""Find the network inside a module by recording the calls in its training step."""

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
    """Return the modules that a training step may call, by name: the given one, or the module and its direct parts."""
    if module is None:
        return {"": pl_module, **weighted_parts(pl_module)}
    # Unlike find_network, keep the wrappers of torch.compile: the step calls the wrapper.
    wrapped = {name.replace("._orig_mod", ""): m for name, m in reversed(list(pl_module.named_modules())) if name}
    return {module: wrapped[module] if module else pl_module}


def called(calls: Iterable[Call]) -> list[str]:
    """Return the names in a record of calls, each once."""
    return list(dict.fromkeys(call.name for call in calls))


def called_by_step(pl_module: LightningModule, batch: Any) -> list[str]:
    """Return the names of the modules that the training step calls, found on a copy; empty if it does not run alone.

    Args:
        pl_module: stays as it is.
        batch: as its steps get it.
    """
    if not pl_module.automatic_optimization:  # its step would step the optimizers
        return []
    copied: Any = copy_network(pl_module)
    # A training_step may leave out batch_idx.
    taken = len(inspect.signature(copied.training_step).parameters)
    try:
        with without_log(copied), untouched(copied), recorded(candidates(copied, None)) as calls:
            copied.training_step(*(batch, 0)[:taken])
    except Exception:  # the step needs its Trainer, which a copy does not have: the first real batch decides then
        return []
    return called(calls)


def chosen(names: list[str]) -> str | None:
    """Return the name of the one network among the modules a step calls, ``None`` if it is ambiguous.

    Example:
        >>> chosen(["network"]), chosen(["", "metrics"]), chosen(["encoder", "decoder"])
        ('network', '', None)
    """
    return "" if "" in names else names[0] if len(names) == 1 else None


def say_what_is_called(pl_module: nn.Module, names: list[str], wanted: str | None) -> str:
    """Describe, for an error, what the training step calls and how to name the network that is meant.

    Args:
        pl_module: the owner of the step.
        names: the modules it calls.
        wanted: the name that was expected, if known.
    """
    shown = " and ".join(repr(name) if name else "itself" for name in names)
    what = f"calls {shown}" if names else f"does not call {repr(wanted) if wanted else 'a network'}"
    return (
        f"{type(pl_module).__name__}.training_step {what}: name the network that takes the inputs and gives the logits"
        f" with module=, one of {list(weighted_parts(pl_module))}; if that is the module itself, have the step call"
        " self(x)."
    )
