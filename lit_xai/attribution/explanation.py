"""Logits, targets and attributions of a few samples in one call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import Arguments, check_logits
from lit_xai.attribution.attribution import attribute
from lit_xai.attribution.options import FORWARD_ONLY
from lit_xai.network.calling import Inputs, OutputSpec, call_network, find_call, find_network
from lit_xai.network.check import check_integer
from lit_xai.network.spelling import nearest
from lit_xai.network.untouched import untouched

TARGETS = ("label", "prediction")


@dataclass
class Explanation:
    """One evaluation of a probe.

    Args:
        logits: ``(N, classes)`` or ``(N,)``.
        targets: the class that was explained of each sample ``(N,)``; ``None`` where samples have one output.
        attributions: by the input's key or position (``""`` for a single tensor), shaped like the input or the layer.
        delta: how far each sample's attributions are from adding up to the output, ``(N,)``, for methods that have it.
    """

    logits: Tensor
    targets: Tensor | None
    attributions: dict[str, Tensor] = field(default_factory=dict)
    delta: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name, each with one row per sample."""
        maps = {f"attributions.{key}".rstrip("."): value for key, value in self.attributions.items()}
        others = {"logits": self.logits, "targets": self.targets, "convergence_delta": self.delta}
        return {key: value for key, value in (maps | others).items() if value is not None}

    def gathered(self, all_gather: Callable[[Tensor], Tensor], world_size: int, n: int) -> "Explanation":
        """Return the explanation of all ``n`` samples, of which each process has every ``world_size``-th.

        Args:
            all_gather: collective; returns ``(world_size, rows, ...)``.
            world_size: number of processes.
            n: number of samples; the ones that filled up the last rows are cut off.
        """

        def whole(value: Tensor) -> Tensor:
            # (world_size, rows, ...) -> (rows * world_size, ...): process r holds the samples r, r + world_size, ...
            shares = value if world_size == 1 else all_gather(value).transpose(0, 1).flatten(0, 1)
            return shares[:n].detach().cpu()

        return Explanation(
            whole(self.logits),
            None if self.targets is None else whole(self.targets),
            {name: whole(value) for name, value in self.attributions.items()},
            None if self.delta is None else whole(self.delta),
        )


def explain(
    network: nn.Module,
    inputs: Inputs,
    labels: Tensor | None = None,
    *,
    target: str | int = "label",
    call: str = "forward",
    output: OutputSpec = None,
    **options: Any,
) -> Explanation:
    """Run the network on samples and attribute one output of each.

    Args:
        network: the module.
        inputs: what it is called with, ``(N, ...)``.
        labels: ``(N,)`` classes, ``(N, classes)`` multi-hot, or the values of a regression.
        target: ``"label"`` (the prediction where there are no class labels), ``"prediction"``, or a class.
        call: the network's method that is called.
        output: where the logits are.
        options: passed to :func:`~lit_xai.functional.attribute`.

    Raises:
        ValueError: as :func:`~lit_xai.functional.attribute`, and where logits or attributions are not finite.

    Example:
        >>> network, x = nn.Linear(4, 3), torch.randn(8, 4)
        >>> explanation = explain(network, x, torch.zeros(8, dtype=torch.int64), method="InputXGradient")
        >>> explanation.targets.tolist(), explanation.attributions[""].shape
        ([0, 0, 0, 0, 0, 0, 0, 0], torch.Size([8, 4]))
    """
    network = find_network(network)
    find_call(network, call)
    logits = _logits(network, inputs, call, output, options)
    targets = choose_targets(logits, labels, target)
    maps, delta = attribute(
        network,
        inputs,
        target=targets if logits.dim() == 2 else None,
        call=call,
        output=output,
        return_convergence_delta=True,
        **options,
    )
    attributions = by_name(maps)
    broken = [name for name, value in attributions.items() if not torch.isfinite(value).all()]
    if broken:
        inputs_named = f" of {', '.join(map(repr, broken))}" if broken != [""] else ""
        raise ValueError(f"The attributions{inputs_named} hold NaN or infinite values.")
    return Explanation(logits, targets if logits.dim() == 2 else None, attributions, delta)


def _logits(network: nn.Module, inputs: Inputs, call: str, output: OutputSpec, options: dict[str, Any]) -> Tensor:
    bound = options.get("internal_batch_size", 64)
    at_most = FORWARD_ONLY * check_integer("internal_batch_size", bound)
    with untouched(network, options.get("seed", 0)), torch.no_grad():
        arguments = Arguments(inputs, any_dtype=True)
        pieces = []
        for start in range(0, arguments.n, at_most):
            rows = arguments.rows(slice(start, start + at_most))
            pieces.append(call_network(network, arguments.rebuild(rows), call, output).detach())
            check_logits(pieces[-1], min(at_most, arguments.n - start))
    logits = torch.cat(pieces)
    if not torch.isfinite(logits).all():
        raise ValueError("The network's output holds NaN or infinite values.")
    return logits


def choose_targets(logits: Tensor, labels: Tensor | None, target: str | int = "label") -> Tensor:
    """Return the class to explain of each sample.

    Args:
        logits: ``(N, classes)`` or ``(N,)``.
        labels: as for :func:`explain`. Of several positive labels the first one counts; without one, and for a label
            that is no class, the prediction does.
        target: as for :func:`explain`.

    Raises:
        ValueError: ``target`` is neither a class nor ``"label"`` or ``"prediction"``.

    Example:
        >>> choose_targets(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), None, "prediction")
        tensor([1, 0])
    """
    check_target(target)
    predicted = logits.argmax(1) if logits.dim() == 2 else torch.zeros_like(logits, dtype=torch.int64)
    if logits.dim() == 1 or logits.shape[1] == 1:
        return predicted
    if isinstance(target, int):
        return torch.full_like(predicted, target)
    classes = class_labels(labels, logits.shape) if target == "label" else None
    if classes is None:
        return predicted
    classes = classes.to(logits.device)
    # -100 and similar labels stand for samples that a loss ignores.
    return torch.where((classes >= 0) & (classes < logits.shape[1]), classes, predicted)


def class_labels(labels: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    """Return labels as one class per sample, or ``None`` if there are none.

    Of several positive labels of a sample the first one counts; -1 stands for a sample without one.

    Args:
        labels: as for :func:`explain`.
        shape: of the logits, ``(N, classes)``.

    Raises:
        ValueError: they are the values of several outputs, one of which has to be chosen.

    Example:
        >>> class_labels(torch.tensor([[0, 1, 1], [0, 0, 0]]), (2, 3))
        tensor([ 1, -1])
    """
    if labels is None:
        return None
    if labels.numel() == shape[0] and not labels.is_floating_point():
        return labels.reshape(-1).long()
    if tuple(labels.shape) != tuple(shape):
        return None
    values = labels.float()
    if not (is_multi_hot(labels) or torch.allclose(values.sum(1), values.new_ones(()), atol=1e-3)):
        raise ValueError(
            f"target expected the output to explain, 0 to {shape[1] - 1}, since the labels are values and not classes."
        )
    # argmax returns the first of equal values, and would return 0 for a row of zeros.
    return torch.where(values.amax(1) > 0, values.argmax(1), -1)


def is_multi_hot(labels: Tensor) -> bool:
    """Return whether labels ``(N, classes)`` hold zeros and ones only.

    Example:
        >>> is_multi_hot(torch.tensor([[0, 1], [1, 1]])), is_multi_hot(torch.tensor([[0.5, 0.5]]))
        (True, False)
    """
    return bool(((labels == 0) | (labels == 1)).all())


def check_target(target: str | int) -> None:
    """Refuse a target that is neither a class nor ``"label"`` or ``"prediction"``.

    Raises:
        ValueError: suggests the nearest word.

    Example:
        >>> check_target("labels")
        Traceback (most recent call last):
        ...
        ValueError: target expected 'label', 'prediction' or a class, but got 'labels'. Did you mean 'label'?
    """
    is_class = isinstance(target, int) and not isinstance(target, bool) and target >= 0
    if not is_class and target not in TARGETS:
        raise ValueError(
            f"target expected 'label', 'prediction' or a class, but got {target!r}.{nearest(str(target), TARGETS)}"
        )


def by_name(values: Any) -> dict[str, Tensor]:
    """Return the tensors of a tensor, tuple or dict by position or key; a single one under ``""``.

    Example:
        >>> list(by_name((torch.zeros(1), None, torch.zeros(1))))
        ['0', '2']
    """
    if isinstance(values, Tensor):
        return {"": values}
    named = values.items() if isinstance(values, Mapping) else enumerate(values)
    return {str(key): value for key, value in named if isinstance(value, Tensor)}
