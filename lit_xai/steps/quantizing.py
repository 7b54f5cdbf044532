"""Fake-quantisers put into a network, as a step that needs no input: where they sit is written in it."""

from typing import Any

from torch import nn

from lit_xai.functional.calling import find_network, module_names
from lit_xai.functional.fake_quantizers import NAME, insert_fake_quantizers_, remove_fake_quantizers_
from lit_xai.spelling import nearest

Step = dict[str, Any]


def quantize_step(plan: dict[str, Any], module: str = "") -> Step:
    """Return the step that prepares a network as planned: ``{"kind": "quantize", "module", "plan"}``.

    Args:
        plan: from :func:`~lit_xai.functional.quantization.plan_quantization`.
        module: the network's name in the module that the step is for.

    Example:
        >>> quantize_step({"sites": [], "float_layers": [], "scheme": {}}, "network")["kind"]
        'quantize'
    """
    return {"kind": "quantize", "module": module, "plan": plan}


def apply_quantize_(network: nn.Module, step: Step) -> None:
    """Put fake-quantisers in, which observe and do not round yet.

    Raises:
        ValueError: the network is not what the step was written for; nothing is changed then.
    """
    part = _part(network, step)
    named = {"", *module_names(part)}
    missing = next((site["layer"] for site in step["plan"]["sites"] if site["layer"] not in named), None)
    if missing is not None:
        raise ValueError(
            f"The recipe does not fit {type(network).__name__}: it has no {missing!r}.{nearest(missing, named)}"
        )
    insert_fake_quantizers_(part, step["plan"]["sites"], step["plan"]["float_layers"])


def undo_quantize_(network: nn.Module, step: Step) -> None:
    """Take them out again.

    Raises:
        ValueError: the network has none.
    """
    part = _part(network, step)
    if not hasattr(part, NAME):
        raise ValueError(f"The recipe does not fit {type(network).__name__}: it has no {NAME!r}.")
    remove_fake_quantizers_(part)


def _part(network: nn.Module, step: Step) -> nn.Module:
    try:
        return find_network(network, step["module"])
    except ValueError as error:
        raise ValueError(f"The recipe does not fit {type(network).__name__}: {error}") from None
