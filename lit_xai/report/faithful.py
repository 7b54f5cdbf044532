"""The second axis of explanations: how faithful each network's are to itself, of maps that are there already."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_xai.attribution.baselines import explained_tensors
from lit_xai.attribution.options import FORWARD_ONLY
from lit_xai.network.arguments import Inputs
from lit_xai.network.outputs import OutputSpec, find_logits
from lit_xai.report.explaining import Explaining, Maps
from lit_xai.report.record import FAITHFUL, Array, Explained
from lit_xai.retention.explainer import Explainer, occlusion_window
from lit_xai.retention.faithfulness import faithfulness, prediction_change

PLANS = ((11, 3), (7, 2), (5, 2), (4, 2))
"""Points of a curve and random orders, those that take most first.

Few orders, as insertion minus deletion does not depend on them: both lose the same area.
"""

_ROWS = 64
"""Samples in a pass: on a CPU four times as many take twice the time each, as they leave its cache."""


def plan(inputs: Inputs) -> tuple[int, int]:
    """Return the points of a curve and the random orders that take about as many passes as Occlusion, or the fewest.

    Args:
        inputs: of the network.

    Example:
        >>> plan(torch.zeros(2, 3, 28, 28)), plan(torch.zeros(2, 1, 8, 8)), plan(torch.zeros(2, 6))
        ((11, 3), (5, 2), (4, 2))
    """
    at_most = _windows(inputs) + 2  # the sample and its baseline run for either
    return next((one for one in PLANS if (one[0] - 1) * (one[1] + 2) <= at_most), PLANS[-1])


def with_faithfulness(
    explained: Explained,
    maps: Maps,
    explaining: Explaining,
    explainer: Explainer,
    target: Tensor | None,
    as_outputs: Callable[[Tensor], Tensor],
) -> Explained:
    """Return what is recorded of an explainer, with how faithful its explanations are to each network.

    Each network is held to its own prediction of what was explained: of classes that which the reference predicts.

    Args:
        explained: what is recorded.
        maps: the attributions.
        explaining: what explained the networks.
        explainer: of the networks.
        target: what was explained, as for :func:`~lit_xai.retention.faithfulness.faithfulness`.
        as_outputs: makes logits of probabilities.
    """
    steps, orders = plan(maps.inputs)
    found = {}
    try:
        removed, words = explaining.removed(explainer, maps.places)
        common = {
            "baselines": removed,
            "seed": explaining.seed,
            "output": _Outputs(explaining.output, as_outputs),
            "internal_batch_size": _ROWS // FORWARD_ONLY,
        }
        for name, network in explaining.networks.items():
            each = faithfulness(
                network,
                maps.inputs,
                _attributions(maps, name),
                target,
                metrics=("deletion", "insertion"),
                steps=steps,
                orders=orders,
                **common,
            )
            each["change"] = prediction_change(network, maps.inputs, target, **common)
            found[name] = {key: each[key].float().cpu().numpy() for key in FAITHFUL}
    except ValueError as error:  # maps of a layer's channels, say: what else was measured holds without it
        told: dict[str, Any] = {"failed": " ".join(str(error).split())}
        found = {}
    else:
        told = {"steps": steps, "orders": orders, "removed": words}
    return replace(explained, faithful=found, arguments={**explained.arguments, "faithfulness": told})


def explained_target(logits: Tensor, each_output: bool) -> Tensor | None:
    """Return what of the outputs is explained, of classes those that the reference predicts; ``None`` of single ones.

    Args:
        logits: of the reference for the explained samples, ``(N, ...)``.
        each_output: whether outputs are values, of which the first is taken.

    Example:
        >>> explained_target(torch.eye(2), False), explained_target(torch.eye(2), True).tolist()
        (tensor([0, 1]), [[0], [0]])
    """
    if logits.dim() == 1 or logits.shape[1] == 1:
        return None
    # As an index it is an element of the output, and no class with a probability.
    return torch.zeros(len(logits), 1, dtype=torch.int64) if each_output else logits.argmax(1)


def beyond_random(values: Mapping[str, Array]) -> Array:
    """Return insertion minus deletion of each sample, ``(n,)``: above 0 is better than random orders."""
    found: Array = values["insertion"].astype(np.float64) - values["deletion"]
    return found


@dataclass(frozen=True)
class _Outputs:
    """The ``output`` that gives logits, of networks that return probabilities as well."""

    output: OutputSpec
    as_outputs: Callable[[Tensor], Tensor]

    def __call__(self, result: Any) -> Tensor:
        return self.as_outputs(find_logits(result, self.output))


def _windows(inputs: Inputs) -> int:
    """Return how many windows Occlusion moves over a sample."""
    given = occlusion_window(inputs)["sliding_window_shapes"]
    values = explained_tensors(inputs)
    windows = [given] if len(values) == 1 else given
    return sum(
        math.prod(-(-side // size) for side, size in zip(value.shape[1:], window, strict=True))
        for value, window in zip(values, windows, strict=True)
    )


def _attributions(maps: Maps, name: str) -> Any:
    """Return a network's attributions; those of a layer are its name's, and belong to the one input."""
    found = maps.by_network[name]
    is_one = len(found) == 1 and len(explained_tensors(maps.inputs)) == 1
    return next(iter(found.values())) if is_one else found
