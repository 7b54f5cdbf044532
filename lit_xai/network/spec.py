"""The network inside a module, and its call."""

from dataclasses import dataclass

from torch import nn

from lit_xai.network.calling import BatchToInputs, OutputSpec, defines_call, find_network
from lit_xai.network.step_view import StepCall, step_view


@dataclass(frozen=True)
class Network:
    """The network inside a LightningModule, and how it is called.

    Args:
        module: its dotted name; ``None`` for the LightningModule itself, or for its one child with weights if the
            LightningModule defines no forward.
        batch_to_inputs: the network's inputs in a batch, as for :func:`~lit_xai.network.calling.find_inputs`.
        output: the logits in its output, as for :func:`~lit_xai.network.outputs.find_logits`.
        step: the step of the LightningModule that stands for a network, where no part of it is one.

    Example:
        >>> Network("0").of(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        Linear(in_features=2, out_features=3, bias=True)
    """

    module: str | None = None
    batch_to_inputs: BatchToInputs = None
    output: OutputSpec = None
    step: StepCall | None = None

    def of(self, pl_module: nn.Module) -> nn.Module:
        """Return the network itself."""
        if self.step is not None:
            return step_view(pl_module, self.step)
        return find_network(pl_module, self.module or _only_part(pl_module))

    def prefix(self, pl_module: nn.Module) -> str:
        """Return the prefix of the network's parameter names in the LightningModule, ``"network."`` or ``""``."""
        if self.step is not None:
            return ""
        network = self.of(pl_module)
        name = next(name for name, module in pl_module.named_modules(remove_duplicate=False) if module is network)
        return f"{name}." if name else ""


def weighted_parts(module: nn.Module) -> dict[str, nn.Module]:
    """Return a module's direct children that have weights, by name.

    Example:
        >>> list(weighted_parts(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
        ['0']
    """
    return {name: part for name, part in module.named_children() if any(True for _ in part.parameters())}


def _only_part(pl_module: nn.Module) -> str | None:
    """Return the name of the only child with weights, if the module itself cannot be called."""
    parts = list(weighted_parts(pl_module))
    return parts[0] if len(parts) == 1 and not defines_call(pl_module) else None
