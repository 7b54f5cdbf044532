"""What quantisation-aware training tries on a copy before it begins, and what it cannot work with."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec, call_network, check_call
from lit_xai.network.copying import copy_network
from lit_xai.network.untouched import untouched
from lit_xai.quantization.folding import find_foldable, fold_batch_norms_
from lit_xai.quantization.quantization import Plan, describe_quantization, plan_quantization, prepare_
from lit_xai.trainer.access import callbacks_of, is_a


@dataclass(frozen=True)
class Rehearsal:
    """What came of it on a copy.

    Args:
        pairs: names of layers and the BatchNorms that are folded into them.
        plan: what is rounded.
        facts: what is computed in integers, and what in float and why.
    """

    pairs: list[tuple[str, str]]
    plan: Plan
    facts: dict[str, Any]

    def said(self) -> str:
        """Return it in two sentences."""
        left = [f"{name} ({why})" for name, why in self.facts["float"].items()]
        shown = ", ".join(left[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")
        folded = f"{len(self.pairs)} BatchNorm{'s are' if len(self.pairs) != 1 else ' is'} folded"
        integer = f"{len(self.facts['integer'])} layers compute in integers ({self.facts['weights']})"
        return f"{folded}, {integer}, in float stay {shown or 'none'}."


def rehearse(network: nn.Module, inputs: Inputs, scheme: dict[str, Any], output: OutputSpec) -> Rehearsal:
    """Fold, prepare, and run a copy forwards and backwards; the network is left as it is.

    Args:
        network: the module.
        inputs: what it is called with.
        scheme: arguments of :func:`~lit_xai.quantization.quantization.plan_quantization`.
        output: where the logits are in its output.

    Raises:
        ValueError: nothing can be rounded, or the network does not run rounded; says why.
    """
    other = next((p.dtype for p in network.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
    if other is not None:
        raise ValueError(
            f"the network expected weights of float32, but got {other}: take precision='32-true', 'bf16-mixed' or"
            " '16-mixed'."
        )
    copied = copy_network(network)
    with untouched(copied), torch.no_grad():
        check_call(copied, inputs, output=output)
    pairs = find_foldable(copied, inputs, output=output)
    fold_batch_norms_(copied, pairs)
    plan = plan_quantization(copied, inputs, **scheme, output=output)
    rounds = prepare_(copied, plan)
    rounds.round_(True)
    with untouched(copied):
        rounds.training = True  # the rest is in eval mode: one sample is too few for a BatchNorm that is left
        try:
            logits = call_network(copied, inputs, output=output)
            if logits.requires_grad:
                logits.float().sum().backward()
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{type(network).__name__} does not run when rounded ({type(error).__name__}: {reason}): activation"
                " checkpointing has to be off, and what rounds tensors itself named in ignored_layers=."
            ) from None
    return Rehearsal(pairs, plan, describe_quantization(copied))


def refuse_compiled(pl_module: LightningModule, network: nn.Module) -> None:
    """Refuse a network that is compiled: functions inside cannot be seen.

    Raises:
        MisconfigurationException: names what is compiled.
    """
    inside = [name for name, part in pl_module.named_modules() if hasattr(part, "_orig_mod") and _holds(part, network)]
    inside += [name for name, part in network.named_modules() if vars(part).get("_compiled_call_impl") is not None]
    if getattr(pl_module, "_compiler_ctx", None) is not None or inside:
        what = repr(inside[0]) if inside and inside[0] else type(pl_module).__name__
        raise MisconfigurationException(
            f"QuantizationAwareTraining cannot see into the compiled {what}: leave it uncompiled in this run."
        )


def _holds(part: nn.Module, network: nn.Module) -> bool:
    return any(one is network for one in part.modules()) or any(one is part for one in network.modules())


def refuse_averages(trainer: Trainer) -> None:
    """Refuse averages of weights: that of two networks' ranges belongs to neither.

    Raises:
        MisconfigurationException: names the callback.
    """
    for callback in callbacks_of(trainer):
        if is_a(callback, "WeightAveraging", "StochasticWeightAveraging"):
            raise MisconfigurationException(
                f"QuantizationAwareTraining cannot work with {type(callback).__name__}: an average of weights does not"
                " fit the ranges that were observed. Leave one of the two out."
            )
