"""The change log of a report: what was modified from reference to candidate, by which protocol, with which impact."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lit_xai.network.arguments import Inputs
from lit_xai.network.profiling import count_macs, count_parameters, with_batch_size
from lit_xai.network.spec import Network
from lit_xai.structure.kinds import Step, kind_of
from lit_xai.structure.recipe import Recipe


def protocols(callbacks: Sequence[Any]) -> dict[str, str]:
    """Return what each of the library's callbacks was told, by its name.

    Args:
        callbacks: of a Trainer.

    Example:
        >>> from lit_xai import StructuredPruning
        >>> protocols([StructuredPruning(target_macs=0.25)])
        {'StructuredPruning': 'StructuredPruning(target_macs=0.25)'}
    """
    found = {}
    for one in callbacks:
        told: Mapping[str, Any] | None = getattr(one, "told", None)
        if told is not None:
            name = type(one).__name__
            found[name] = f"{name}({', '.join(f'{key}={value!r}' for key, value in told.items())})"
    return found


def changes(
    dense: nn.Module | None, steps: Sequence[Step], told: Mapping[str, str], network: Network, inputs: Inputs
) -> list[dict[str, str]]:
    """Return a line for each structural step, and for what else had a part in the training.

    Args:
        dense: the module before the first step, which is changed; ``None`` where it is not known.
        steps: that were taken.
        told: from :func:`protocols`.
        network: inside the module.
        inputs: of the network.
    """
    lines, first = [], dict[str, int]()
    before = None if dense is None else _costs(dense, network, inputs)
    for place, step in enumerate(steps):
        protocol = _BY_KIND.get(step["kind"], "")
        # Of several steps by one callback the first has its arguments.
        words = f"as step {first[protocol]}" if protocol in first else told.get(protocol, protocol)
        first.setdefault(protocol, place + 1)
        line = {"what": f"{kind_of(step).label}, step {place + 1}", "protocol": words}
        if dense is not None and before is not None:
            Recipe(steps[: place + 1]).replay_(dense, since=Recipe(steps[:place]))
            after = _costs(dense, network, inputs)
            line["impact"] = _impact(before, after)
            before = after
        lines.append(line)
    others = [text for name, text in told.items() if name in _TRAINS and name not in first]
    return [*lines, *({"what": "training", "protocol": text} for text in others)]


_BY_KIND = {
    "prune": "StructuredPruning",
    "fold": "QuantizationAwareTraining",
    "quantize": "QuantizationAwareTraining",
}
_TRAINS = ("KnowledgeDistillation", "StructuredPruning", "QuantizationAwareTraining")


def _costs(module: nn.Module, network: Network, inputs: Inputs) -> dict[str, int]:
    found = {"parameters": count_parameters(network.of(module))}
    try:
        return {"MACs": count_macs(network.of(module), with_batch_size(inputs, 2), output=network.output), **found}
    except ValueError:  # a network that can be called in no other batch size, say
        return found


def _impact(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    changed = [f"{name} {before[name]:,} -> {after[name]:,}" for name in after if before.get(name) != after[name]]
    return ", ".join(changed) or "MACs and parameters as before"
