"""A trial of quantization-aware training on a copy, before it begins, and checks for what it cannot work with."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec, call_network, check_call
from lit_xai.network.copying import copy_network
from lit_xai.network.untouched import untouched
from lit_xai.quantization.quantization import Plan, describe_quantization, plan_quantization, prepare_
from lit_xai.trainer.access import callbacks_of, is_a


@dataclass(frozen=True)
class Rehearsal:
    """The result of a trial on a copy.

    Args:
        plan: the tensors to quantize.
        facts: which layers compute in integers, and which in float and why.
    """

    plan: Plan
    facts: dict[str, Any]

    def summary(self) -> str:
        """Return it in one sentence."""
        in_float = [f"{name} ({why})" for name, why in self.facts["float"].items()]
        shown = ", ".join(in_float[:6]) + (f" and {len(in_float) - 6} more" if len(in_float) > 6 else "")
        n = len(self.plan["norms"])
        folded = f", with {n} BatchNorm{'s' if n != 1 else ''} that the exported file folds into them" if n else ""
        integer = f"{len(self.facts['integer'])} layers compute in integers ({self.facts['weights']}){folded}"
        n = len(self.facts["tables"])
        stored = f"; {n} table{'s are' if n != 1 else ' is'} stored as integers" if n else ""
        return f"{integer}{stored}; in float: {shown or 'none'}."


def rehearse(network: nn.Module, inputs: Inputs, scheme: dict[str, Any], output: OutputSpec) -> Rehearsal:
    """Prepare a copy and run it forward and backward; the network is left unchanged.

    Args:
        network: the module.
        inputs: of one call.
        scheme: arguments of :func:`~lit_xai.quantization.quantization.plan_quantization`.
        output: the logits in its output: a key, an attribute, an index or a function.

    Raises:
        ValueError: nothing can be quantized, or the network does not run when quantized.
    """
    # Ranges and scales are float32; mixed precision keeps the weights in float32 as well, and float64 holds all of its
    # values.
    wide = (torch.float32, torch.float64)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point() and p.dtype not in wide), None)
    if dtype is not None:
        raise ValueError(
            f"the network expected weights of float32 or float64, but got {dtype}: use precision='32-true',"
            " 'bf16-mixed' or '16-mixed'."
        )
    copied = copy_network(network)
    with untouched(copied), torch.no_grad():
        check_call(copied, inputs, output=output)
    plan = plan_quantization(copied, inputs, **scheme, output=output)
    fake_quantizers = prepare_(copied, plan)
    fake_quantizers.enable_fake_quant_(True)
    with untouched(copied):
        fake_quantizers.training = True  # only these: a BatchNorm cannot train on one sample
        try:
            logits = call_network(copied, inputs, output=output)
            if logits.requires_grad:
                # The backward pass as well, so that a failure there comes before the first epoch.
                logits.float().sum().backward()
        except Exception as error:
            # Errors of other libraries may span many lines.
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{type(network).__name__} does not run when quantized ({type(error).__name__}: {reason}): turn"
                " activation checkpointing off, and name layers that quantize tensors themselves in ignored_layers=."
            ) from None
    return Rehearsal(plan, describe_quantization(copied))


def refuse_compiled(pl_module: LightningModule, network: nn.Module) -> None:
    """Refuse a compiled network: the functions inside cannot be intercepted.

    Raises:
        MisconfigurationException: names the compiled module.
    """
    inside = [
        name for name, part in pl_module.named_modules() if hasattr(part, "_orig_mod") and _overlap(part, network)
    ]
    # module.compile() wraps nothing: it keeps a compiled call on the module.
    inside += [name for name, part in network.named_modules() if vars(part).get("_compiled_call_impl") is not None]
    # Set by Lightning on a LightningModule that came from torch.compile.
    if getattr(pl_module, "_compiler_ctx", None) is not None or inside:
        what = repr(inside[0]) if inside and inside[0] else type(pl_module).__name__
        raise MisconfigurationException(
            f"QuantizationAwareTraining cannot see into the compiled {what}: leave it uncompiled in this run."
        )


def _overlap(part: nn.Module, network: nn.Module) -> bool:
    return any(m is network for m in part.modules()) or any(m is part for m in network.modules())


def refuse_averages(trainer: Trainer) -> None:
    """Refuse callbacks that average weights: the average of two networks fits the ranges of neither.

    Raises:
        MisconfigurationException: names the callback.
    """
    for callback in callbacks_of(trainer):
        if is_a(callback, "WeightAveraging", "StochasticWeightAveraging"):
            raise MisconfigurationException(
                f"QuantizationAwareTraining cannot work with {type(callback).__name__}: averaged weights do not"
                " fit the observed ranges. Leave one of the two out."
            )
