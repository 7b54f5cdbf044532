"""A metric of a network over a loader, as one number, which can be measured repeatedly without side effects."""

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import nn

from lit_xai.network.calling import BatchToInputs, OutputSpec, call_network, find_inputs, find_targets
from lit_xai.network.copying import copy_network
from lit_xai.network.describing import describe
from lit_xai.network.trees import to_device
from lit_xai.network.untouched import fork_rng, untouched

Metric: TypeAlias = Any
"""A ``torchmetrics.Metric`` that takes logits and labels, or a function of the network that returns a number."""


class LoaderMetric:
    """Measures a metric of networks over the batches of a loader; network, metric and generators stay as they were.

    Args:
        loader: yields batches on any device, in the same order each time.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function that takes a network and
            returns a number.
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.
        call: the network's method that is called.
        output: see :func:`~lit_xai.network.outputs.find_logits`.

    Raises:
        ValueError: the loader can be read only once.

    Example:
        >>> parameters = LoaderMetric([torch.zeros(1, 4)], lambda network: sum(p.numel() for p in network.parameters()))
        >>> parameters(nn.Linear(4, 2), "the dense network")
        10.0
    """

    def __init__(
        self,
        loader: Iterable[Any],
        metric: Metric,
        batch_to_inputs: BatchToInputs = None,
        call: str = "forward",
        output: OutputSpec = None,
    ) -> None:
        self.loader, self.metric = check_rereadable(loader), metric
        self.batch_to_inputs, self.call, self.output = batch_to_inputs, call, output

    def __call__(self, network: nn.Module, description: str) -> float:
        """Return the metric of a network; errors name the network by its description.

        Raises:
            ValueError: the loader has no labels for the metric, or the metric is not one finite number.
        """
        with untouched(network), same_order(self.loader):
            # A function may write to the network or keep it, so it gets a copy.
            value = self._of_batches(network) if hasattr(self.metric, "update") else self.metric(copy_network(network))
        return metric_value(value, f" for {description}")

    def _of_batches(self, network: nn.Module) -> Any:
        device = _device(network)
        metric = copy.deepcopy(self.metric).to(device)  # the user's own may be in the middle of an epoch
        metric.reset()
        # untouched switches gradients on, which a metric of logits does not need.
        with torch.no_grad():
            for batch in self.loader:
                batch = to_device(batch, device)
                inputs = find_inputs(batch, network, self.batch_to_inputs, self.call)
                labels = find_targets(batch, network, self.call)
                if labels is None:
                    raise ValueError(
                        f"loader expected labels in each batch, but got {describe(batch)}: give metric= a function of"
                        " the network instead."
                    )
                metric.update(call_network(network, inputs, self.call, self.output), labels)
        return metric.compute()

    def first_batch(self, network: nn.Module) -> Any:
        """Return the loader's first batch, on the network's device.

        Raises:
            ValueError: the loader is empty.
        """
        return first_batch(self.loader, _device(network))


def check_rereadable(loader: Iterable[Any]) -> Iterable[Any]:
    """Refuse an iterator, which yields its batches only once.

    Raises:
        ValueError: the loader is an iterator.

    Example:
        >>> check_rereadable(iter([1]))
        Traceback (most recent call last):
        ...
        ValueError: loader expected batches that can be read again, but got an iterator: give a DataLoader or a list.
    """
    if hasattr(loader, "__next__"):
        raise ValueError(
            "loader expected batches that can be read again, but got an iterator: give a DataLoader or a list."
        )
    return loader


def first_batch(loader: Iterable[Any], device: torch.device) -> Any:
    """Return a loader's first batch on a device; all random generators are left as they were.

    Raises:
        ValueError: the loader is empty.

    Example:
        >>> first_batch([torch.zeros(2, 3), torch.ones(2, 3)], torch.device("cpu")).shape
        torch.Size([2, 3])
    """
    # Beginning to read a DataLoader draws a seed from the global generator.
    with fork_rng(0), same_order(loader):
        batch = next(iter(loader), None)
    if batch is None:
        raise ValueError("loader expected one or more batches, but got none.")
    return to_device(batch, device)


@contextlib.contextmanager
def same_order(loader: Any) -> Iterator[None]:
    """Restore the loader's own generator afterwards: passes shuffle alike, later epochs as without them.

    Example:
        >>> loader = torch.utils.data.DataLoader(range(8), shuffle=True, generator=torch.Generator())
        >>> with same_order(loader):
        ...     first = [int(batch) for batch in loader]
        >>> first == [int(batch) for batch in loader]
        True
    """
    generator = getattr(loader, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    try:
        yield
    finally:
        if state is not None:
            generator.set_state(state)  # type: ignore[union-attr]  # a state comes from a generator


def metric_value(value: Any, of: str = "") -> float:
    """Return what a metric computed as a float.

    Args:
        value: a number, or a tensor of one.
        of: whose metric it is, for the error; begins with a space.

    Raises:
        ValueError: it is not one finite number.

    Example:
        >>> metric_value(torch.tensor([0.5]))
        0.5
        >>> metric_value(torch.tensor(float("nan")), " for model.onnx")
        Traceback (most recent call last):
        ...
        ValueError: metric expected a finite number for model.onnx, but got nan.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"metric expected one number{of}, but got {describe(value)}.") from None
    if not math.isfinite(number):
        raise ValueError(f"metric expected a finite number{of}, but got {number}.")
    return number


def resolve_direction(metric: Metric, given: bool | None = None) -> bool:
    """Return whether higher values of a metric are better: as given, or else by its own ``higher_is_better``.

    Raises:
        ValueError: the metric is no metric, or its direction is unknown.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> resolve_direction(MulticlassAccuracy(3)), resolve_direction(abs, given=False)
        (True, False)
    """
    if isinstance(metric, type) or not callable(metric):
        fix = f": make one, {metric.__name__}(...)" if isinstance(metric, type) else ""
        raise ValueError(f"metric expected a torchmetrics.Metric or a function, but got {metric!r}{fix}.")
    result = given if given is not None else getattr(metric, "higher_is_better", None)
    if result is None:
        raise ValueError(
            f"higher_is_better expected True or False, as {metric_name(metric)} does not define it, but got None: give"
            " it."
        )
    return bool(result)


def metric_name(metric: Metric) -> str:
    """Return a metric's name: that of its function or class, or ``"metric"`` where it has none of its own.

    Example:
        >>> metric_name(abs), metric_name(lambda network: 0.0)
        ('abs', 'metric')
    """
    name = str(getattr(metric, "__name__", type(metric).__name__))
    return "metric" if name in ("<lambda>", "partial", "function", "method") else name


def _device(network: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu"))
