"""One step of a recipe on a network and its optimizers, forwards and backwards.

A step is a dict of plain values. What it says is enough to go forwards and back without an input, so a network can be
brought from any recorded structure to any other.

=============  ======================================================================================================
``prune``      ``"kept": [[name, dim, size, indices], ...]``, ``"attributes": [[module, name, old, new], ...]``
``fold``       ``"pairs": [[layer, norm, what the norm was], ...]``
``quantize``   ``"module"``, ``"plan"``: which tensors are rounded to which integers
=============  ======================================================================================================
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lit_xai.pruning.step import apply_cut_, undo_cut_
from lit_xai.quantization.steps import (
    apply_fold_,
    apply_quantize_,
    fold_step,
    quantize_step,
    undo_fold_,
    undo_quantize_,
)

__all__ = ["KINDS", "Step", "apply_step_", "fold_step", "quantize_step", "undo_step_"]

Step = dict[str, Any]

KINDS = ("prune", "fold", "quantize")
"""In the order in which they have to be taken: what is rounded cannot be cut any more."""


def apply_step_(network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
    """Take a step.

    Where parameters become new objects, as their shapes do, they have the old ones' flags, hooks and attributes;
    optimizers are given them in the old ones' places, with their state (momentum, moments, row and column factors)
    changed the same way. State that cannot be starts anew, with a warning.

    Args:
        network: whose names the step uses, with or without what ``torch.compile`` puts into names.
        step: what to do.
        optimizers: whose parameters are among the network's.

    Raises:
        ValueError: a name is not there, or is not what it was when the step was recorded. Nothing is changed then.
    """
    if step["kind"] == "fold":
        apply_fold_(network, step, optimizers)
    elif step["kind"] == "quantize":
        apply_quantize_(network, step)
    else:
        apply_cut_(network, step, optimizers)


def undo_step_(network: nn.Module, step: Step) -> None:
    """Go back behind a step: the structure of before, with zeros, or values of a new layer, where some were lost.

    Raises:
        ValueError: the network is not what the step led to.
    """
    undo = {"fold": undo_fold_, "quantize": undo_quantize_}.get(step["kind"], undo_cut_)
    undo(network, step)
