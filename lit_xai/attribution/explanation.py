"""Logits, targets and attributions of a few samples in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import check_rows, split_inputs
from lit_xai.attribution.attribution import attribute
from lit_xai.attribution.elements import Elements, Form, choose_elements, is_dense
from lit_xai.attribution.options import FORWARD_ONLY
from lit_xai.network.arguments import Inputs, named_leaves
from lit_xai.network.calling import OutputSpec, call_network, find_call, find_network
from lit_xai.network.check import check_integer
from lit_xai.network.outputs import Found, locate_logits
from lit_xai.network.rows import take
from lit_xai.network.spelling import nearest
from lit_xai.network.untouched import untouched

TARGETS = ("label", "prediction")


@dataclass
class Explanation:
    """One evaluation of a probe.

    Args:
        logits: ``(N, classes)`` or ``(N,)``; where the network answers for several places, of the explained one.
        targets: the class that was explained of each sample ``(N,)``, or where the network answers for several places
            the index of the explained number in the sample's output, ``(N, k)``: ``(class, y, x)`` of maps,
            ``(token, class)`` of sequences; ``None`` where samples have one output.
        attributions: by the input's key or position (``""`` for a single tensor), shaped like the input or the layer.
        delta: how far each sample's attributions are from adding up to the output, ``(N,)``, for methods that have it.
        labels: the labels of the samples, or of the explained places where the labels are maps, -1 for none.
        form: how the output of several places is put together; ``None`` where there is one.
        boxes: where in the picture the explained place is, ``(N, 4)``: top, left, bottom, right, as shares.
        head: of several, the one that was explained.
        whole: whether the inputs hold no row per sample (a batch of graphs), and were explained all at once.
        words: the number of the word that each token of a text belongs to, ``(N, T)``, where words were explained
            whole: all their tokens have the word's attribution.
    """

    logits: Tensor
    targets: Tensor | None
    attributions: dict[str, Tensor] = field(default_factory=dict)
    delta: Tensor | None = None
    labels: Tensor | None = None
    form: Form | None = None
    boxes: Tensor | None = None
    head: str = ""
    whole: bool = False
    words: Tensor | None = None

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
            if self.whole:  # each process has explained all of it
                return value.detach().cpu()
            shares = value if world_size == 1 else all_gather(value).transpose(0, 1).flatten(0, 1)
            return shares[:n].detach().cpu()

        def maybe(value: Tensor | None) -> Tensor | None:
            return None if value is None else whole(value)

        return replace(
            self,
            logits=whole(self.logits),
            targets=maybe(self.targets),
            attributions={name: whole(value) for name, value in self.attributions.items()},
            delta=maybe(self.delta),
            labels=maybe(self.labels),
            boxes=maybe(self.boxes),
            words=maybe(self.words),
        )

    def towards(self, labels: Tensor | None, target: str | int = "label") -> "Explanation":
        """Return what is known of the network's output with other targets, where it answers for one place.

        Args:
            labels: as for :func:`explain`, like the next one.
            target: to be explained.
        """
        _check_finite(self.logits)
        if self.form is not None or self.logits.dim() < 2:
            return self
        return replace(self, targets=choose_targets(self.logits, labels, target), labels=labels)

    def places(self) -> list[str]:
        """Return the explained place of each sample in words, empty where the network answers for one."""
        if self.form is None or self.targets is None:
            return []
        return [self.form.in_words(index) for index in self.targets]


def explain(
    network: nn.Module,
    inputs: Inputs,
    labels: Tensor | None = None,
    *,
    target: str | int = "label",
    call: str = "forward",
    output: OutputSpec = None,
    elements: Tensor | None = None,
    known: Explanation | None = None,
    **options: Any,
) -> Explanation:
    """Run the network on samples and attribute one output of each.

    Args:
        network: the module.
        inputs: what it is called with, ``(N, ...)``.
        labels: ``(N,)`` classes, ``(N, classes)`` multi-hot, or the values of a regression; by place where the network
            answers for every pixel or token, see :func:`~lit_xai.attribution.elements.choose_elements`.
        target: ``"label"`` (the prediction where there are no class labels), ``"prediction"``, or a class.
        call: the network's method that is called.
        output: where the logits are. By default an output with more dimensions than ``(N, classes)`` is explained at
            the place of each sample with the highest score.
        elements: ``(N, k)``, the ``targets`` of an earlier explanation of these samples, to explain the same places.
        known: an earlier explanation of this network on these inputs, which is not run for its logits again; where it
            answers for several places, those are explained.
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
    check_target(target)
    if known is None:
        explanation = _before(network, inputs, labels, target, call, output, elements, options)
    else:
        explanation = known.towards(labels, target)
    maps, delta = attribute(
        network,
        inputs,
        target=explanation.targets,
        call=call,
        output=output,
        return_convergence_delta=True,
        logits=None if explanation.whole or explanation.form is not None else explanation.logits,
        **options,
    )
    attributions = by_name(maps)
    broken = [name for name, value in attributions.items() if not torch.isfinite(value).all()]
    if broken:
        inputs_named = f" of {', '.join(map(repr, broken))}" if broken != [""] else ""
        raise ValueError(f"The attributions{inputs_named} hold NaN or infinite values.")
    return replace(explanation, attributions=attributions, delta=delta)


def _before(
    network: nn.Module,
    inputs: Inputs,
    labels: Tensor | None,
    target: str | int,
    call: str,
    output: OutputSpec,
    elements: Tensor | None,
    options: dict[str, Any],
) -> Explanation:
    """Run the network, and return what is to be explained of each sample, without attributions."""
    bound = options.get("internal_batch_size", 64)
    at_most = FORWARD_ONLY * check_integer("internal_batch_size", bound)
    logits, chosen, found = [], [], Found(torch.empty(0))
    with untouched(network, options.get("seed", 0)), torch.no_grad():
        arguments = split_inputs(network, inputs, call, output, any_dtype=True)
        for start in range(0, arguments.n, at_most):
            rows = slice(start, start + at_most)
            part = arguments.rebuild(arguments.rows(rows))
            found, result = _call(network, part, call, output)
            n = min(at_most, arguments.n - start)
            check_rows(found.logits, sum(found.logits.shape[:1]) if arguments.whole else n)
            _check_finite(found.logits)
            if is_dense(found.logits):
                own, known = (take(value, range(arguments.n)[rows], arguments.n) for value in (labels, elements))
                chosen.append(choose_elements(found, result, network, part, own, target, known))
            else:
                logits.append(found.logits.detach())
    if chosen:
        return replace(_of_elements(chosen, found.head), whole=arguments.whole)
    whole = torch.cat(logits)
    targets = choose_targets(whole, labels, target) if whole.dim() == 2 else None
    return Explanation(whole, targets, labels=labels, head=found.head, whole=arguments.whole)


def _check_finite(logits: Tensor) -> None:
    if not torch.isfinite(logits).all():
        raise ValueError("The network's output holds NaN or infinite values.")


def _call(network: nn.Module, inputs: Inputs, call: str, output: OutputSpec) -> tuple[Found, Any]:
    """Return the logits, where they were, and all that the network returned."""
    seen: list[Any] = []

    def keep(result: Any) -> Tensor:
        seen[:] = [locate_logits(result, output), result]
        return seen[0].logits

    call_network(network, inputs, call, keep)
    return seen[0], seen[1]


def _of_elements(parts: list[Elements], head: str) -> Explanation:
    labels = [part.labels for part in parts if part.labels is not None]
    return Explanation(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.index for part in parts]),
        labels=torch.cat(labels) if labels else None,
        form=parts[0].form,
        boxes=torch.cat([part.boxes for part in parts]),
        head=head,
    )


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
    """Return labels as one class per sample, or ``None`` if there are none, or they are values of several outputs.

    Of several positive labels of a sample the first one counts; -1 stands for a sample without one.

    Args:
        labels: as for :func:`explain`.
        shape: of the logits, ``(N, classes)``.

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
        return None
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
    """Return the tensors of inputs, or of attributions shaped like them, by name; a single one under ``""``.

    Example:
        >>> list(by_name((torch.zeros(1), None, torch.zeros(1))))
        ['0', '2']
    """
    return dict(named_leaves(values))
