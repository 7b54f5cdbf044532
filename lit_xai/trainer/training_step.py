"""The modules that a training step calls while it runs in a loop, and what is said of them."""

from collections.abc import Iterable

from torch import nn

from lit_xai.network.recording import Call
from lit_xai.network.spec import weighted_parts


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
