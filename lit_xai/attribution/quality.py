"""Metrics of explanations: their protocol, and measuring an explanation with them.

A metric of explanations is any ``torchmetrics.Metric`` whose ``update`` takes what was explained, see
:class:`ExplanationMetric`. It is given to :class:`~lit_xai.callbacks.AttributionMonitor` as ``metrics=``.
"""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_xai.attribution.explanation import Explanation
from lit_xai.network.calling import Inputs
from lit_xai.network.check import Name, refusal
from lit_xai.network.import_path import load_object
from lit_xai.network.rows import take
from lit_xai.network.trees import changed

Attributions: TypeAlias = Tensor | dict[str, Tensor]
"""Of one tensor, or by the input's key or position where several are explained."""

AnyMetric: TypeAlias = Metric | type[Metric] | Name
"""A metric, its class, or its class' import path."""


class ExplanationMetric(Protocol):
    """A ``torchmetrics.Metric`` that measures explanations.

    Inherit from ``torchmetrics.Metric`` and register states with ``add_state``, whose ``dist_reduce_fx``
    combines the states of processes: each updates with its own share of the samples.

    Example:
        >>> class LargestShare(Metric):
        ...     '''The mean share of an explanation that its largest element has.'''
        ...
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        ...         self.add_state("n", torch.zeros(()), dist_reduce_fx="sum")
        ...
        ...     def update(self, network, inputs, attributions, target):
        ...         sizes = attributions.abs().flatten(1)
        ...         self.total += (sizes.amax(1) / sizes.sum(1).clamp(min=1e-12)).sum()  # all-zero maps count as 0
        ...         self.n += len(sizes)
        ...
        ...     def compute(self):
        ...         return self.total / self.n
        >>> from lit_xai import AttributionMonitor
        >>> monitor = AttributionMonitor("Saliency", metrics=[LargestShare])  # logs attribution/Saliency/LargestShare
    """

    def update(self, network: nn.Module, inputs: Inputs, attributions: Attributions, target: Tensor | None) -> None:
        """Take in the explanations of some samples.

        It runs in :func:`~lit_xai.functional.untouched`: the network is in eval mode, and whatever happens to modes,
        buffers and random generators is undone afterwards; parameters must not be written to. torchmetrics switches
        gradients off in ``update``: use ``torch.enable_grad()`` where they are needed.

        The four are passed by position, so that parameters may have other names.

        Args:
            network: what was explained; :func:`~lit_xai.functional.call_network` calls it and returns its logits.
            inputs: what it is called with, ``(N, ...)`` each; a copy.
            attributions: shaped like the inputs or like the layer that was explained, and signed: negative ones speak
                against the class; dimension 1 is the channels for images alone; a copy.
            target: the class explained of each sample ``(N,)``; ``None`` where samples have one output; the index of
                the explained number ``(N, k)`` where the network answers for every pixel or token.
        """

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Return one number, or several by name. NaN and infinity are logged too, with one warning."""

    def reset(self) -> None:
        """Forget all samples."""


def resolve_metrics(given: Sequence[AnyMetric] | AnyMetric | None) -> dict[str, Metric]:
    """Return metrics by the names that they are logged under, those of their classes.

    Args:
        given: metrics, classes that can be built without arguments, or import paths of such classes; one or several.

    Raises:
        ValueError: one of them is no metric of explanations, or two have the same name.

    Example:
        >>> resolve_metrics(["torchmetrics.MeanMetric"])
        Traceback (most recent call last):
        ...
        ValueError: metrics expected update(network, inputs, attributions, target), but got MeanMetric.update(value, ...
    """
    found: dict[str, Metric] = {}
    for entry in () if given is None else given if isinstance(given, (list, tuple)) else [given]:
        metric = _build(load_object(entry, "metrics") if isinstance(entry, str) else entry)
        name = type(metric).__name__
        if name in found:
            raise ValueError(
                f"metrics expected different classes, whose names tell them apart, but got two {name}: give one of them"
                f" a name of its own by a subclass, class Another({name})."
            )
        found[name] = metric
    return found


def _build(entry: Any) -> Metric:
    metric = entry
    if isinstance(entry, type) and issubclass(entry, Metric):
        try:
            metric = entry()
        except TypeError as error:
            raise ValueError(f"metrics: {entry.__name__} cannot be built ({error}): give an instance.") from None
    if not isinstance(metric, Metric):
        raise refusal("metrics", "instances, classes or import paths of torchmetrics.Metric", entry)
    signature = inspect.signature(metric.update)
    try:
        # Checked before training: a metric of predictions would fail in the first evaluation.
        signature.bind(None, None, None, None)
    except TypeError:
        raise ValueError(
            "metrics expected update(network, inputs, attributions, target), but got"
            f" {type(metric).__name__}.update({', '.join(signature.parameters)})."
        ) from None
    return metric


def update_metric(metric: Metric, network: nn.Module, inputs: Inputs, explanation: Explanation, n: int) -> None:
    """Reset a metric and update it with the first ``n`` samples of an explanation.

    Args:
        metric: as :func:`resolve_metrics` returns it; moved to where the attributions are.
        network: what was explained, in :func:`~lit_xai.functional.untouched`.
        inputs: what it was called with.
        explanation: of these inputs.
        n: how many of its samples to measure; with 0 the metric is only reset.
    """
    rows = len(explanation.logits)
    # A single tensor is stored under the empty name.
    attributions: Any = explanation.attributions.get("", explanation.attributions)
    metric.to(explanation.logits.device).reset()
    if n:
        # Copies: tensors of a test loop were made in inference mode, and a metric may write to its arguments.
        parts = (inputs, attributions, explanation.targets)
        parts = parts if explanation.whole else tuple(take(part, range(n), rows) for part in parts)
        metric.update(network, *changed(parts, torch.clone))


def compute_metric(metric: Metric) -> dict[str, float]:
    """Return a metric's numbers over all processes, which have to call this together, and reset it.

    Returns:
        By name; the one number of a metric that returns no dict under ``""``. They may be NaN or infinite.

    Raises:
        ValueError: it returns anything but numbers.
    """
    with warnings.catch_warnings():
        # A process without a sample takes part too, since the states are gathered from all.
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric .* was called before")
        values = metric.compute()
    metric.reset()
    named = values if isinstance(values, dict) else {"": values}
    try:
        return {str(name): float(torch.as_tensor(value)) for name, value in named.items()}
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{type(metric).__name__}.compute() expected one number, but got {values!r}.") from None
