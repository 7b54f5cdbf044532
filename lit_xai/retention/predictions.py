"""Which predictions changed between two networks, and for whom.

Who was hurt by a compression is a matter of predictions: of flipped samples, explanations that changed tell little.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_xai.attribution.explanation import is_multi_hot
from lit_xai.network.check import check_choice, refusal
from lit_xai.network.describing import describe
from lit_xai.retention.estimates import Mean, Paired, Share

TASKS = ("classes", "binary", "values")
"""Outputs: a logit for each class, one logit of class 1, or the values of a regression."""

ECE_FROM = 500
"""Samples from which a calibration error is computed: with fewer, most of it is the noise of its bins."""

_BINS = 15


@dataclass(frozen=True)
class WorstClass:
    """The class whose accuracy fell most. The largest of many falls is large by chance too: look at its intervals.

    Args:
        label: the class.
        n: its samples.
        drop: reference's accuracy on them minus the candidate's; negative if no class lost.
        reference: how many of them the reference gets right.
        candidate: how many of them the candidate gets right.
    """

    label: int
    n: int
    drop: float
    reference: Share
    candidate: Share


@dataclass(frozen=True)
class PredictionChanges:
    """What changed from a reference's predictions to a candidate's, with 95% intervals. ``None`` is not defined.

    Args:
        n: samples.
        task: ``"classes"``, ``"binary"`` or ``"values"``.
        flips: samples whose predicted class changed.
        negative_flips: those that were right and are wrong; with labels, like all of the following but ``kl``.
        positive_flips: those that were wrong and are right.
        wrong_to_wrong: those that were wrong and are wrong in another way.
        mcnemar: the p-value of McNemar's exact test, of as many negative as positive flips. It describes, and supports
            no verdict: a large one of few samples shows nothing.
        accuracy: share of right predictions.
        brier: Brier score, the squared distance of probabilities from the label, summed over classes: 0 to 2.
        nll: negative log likelihood, in nats.
        ece_reference: the reference's expected calibration error in 15 bins of confidence, from 500 samples on.
        ece_candidate: the candidate's.
        worst_class: the class that lost most.
        kl: the divergence of the candidate's probabilities from the reference's, KL(reference || candidate), in nats.
        absolute_change: of values, mean absolute difference of the outputs.
        absolute_error: of values, mean absolute error against the labels.
        groups: the same for each group of samples, by its name.
    """

    n: int
    task: str
    flips: Share | None = None
    negative_flips: Share | None = None
    positive_flips: Share | None = None
    wrong_to_wrong: Share | None = None
    mcnemar: float | None = None
    accuracy: Paired | None = None
    brier: Paired | None = None
    nll: Paired | None = None
    ece_reference: float | None = None
    ece_candidate: float | None = None
    worst_class: WorstClass | None = None
    kl: Mean | None = None
    absolute_change: Mean | None = None
    absolute_error: Paired | None = None
    groups: dict[str, "PredictionChanges"] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, dicts and ``None``, which can be written as JSON.

        Example:
            >>> import json
            >>> changes = compare_predictions(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
            >>> json.loads(json.dumps(changes.to_dict()))["flips"]["value"]
            0.0
        """
        return asdict(self)


def compare_predictions(
    reference_logits: Tensor,
    candidate_logits: Tensor,
    labels: Tensor | None = None,
    groups: Sequence[Any] | Tensor | None = None,
    *,
    task: str | None = None,
) -> PredictionChanges:
    """Compare the predictions of two networks for the same samples.

    Args:
        reference_logits: of the network that is compared with, ``(N, classes)``; ``(N,)`` or ``(N, 1)`` for one logit
            or value per sample.
        candidate_logits: of the network that changed, of the same samples.
        labels: ``(N,)`` classes, or the values of a regression, shaped like the logits; one-hot rows count as classes.
        groups: the group of each sample, an integer or a string (a hospital, a sensor, an age group).
        task: ``"classes"``, ``"binary"`` or ``"values"``. Inferred by default: one output per sample is a logit where
            all labels are 0 or 1, and a value otherwise and without labels; several are classes, unless their labels
            are values of the same shape.

    Raises:
        ValueError: shapes or labels that do not fit, no samples, or logits that are not finite.

    Example:
        >>> reference = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> candidate = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        >>> changes = compare_predictions(reference, candidate, torch.tensor([0, 1, 1]), ["a", "b", "b"])
        >>> changes.flips.count, changes.negative_flips.count, changes.worst_class.label
        (1, 1, 1)
        >>> changes.groups["a"].flips.value, changes.groups["b"].flips.value
        (0.0, 0.5)
    """
    reference, candidate = _check_logits(reference_logits, candidate_logits)
    labels = None if labels is None else labels.detach().cpu()
    task = _infer(reference, labels) if task is None else check_choice("task", task, TASKS)
    if task != "values" and (reference.shape[1] == 1) != (task == "binary"):
        outputs = "one logit" if task == "binary" else "two or more logits"
        raise refusal("reference_logits", f"{outputs} per sample for task={task!r}", tuple(reference.shape))
    truth = _values(labels, reference) if task == "values" else _classes(labels, reference, task)
    if task == "binary":
        reference, candidate = (torch.cat([torch.zeros_like(part), part], 1) for part in (reference, candidate))
    whole = _compare(task, reference, candidate, truth)
    if groups is None:
        return whole
    found = {
        name: _compare(task, reference[rows], candidate[rows], None if truth is None else truth[rows])
        for name, rows in _rows_of(groups, whole.n).items()
    }
    return replace(whole, groups=found)


def _compare(task: str, reference: Tensor, candidate: Tensor, truth: Tensor | None) -> PredictionChanges:
    if task == "values":
        return PredictionChanges(
            len(reference),
            task,
            absolute_change=Mean.of((candidate - reference).abs().mean(1)),
            absolute_error=None
            if truth is None
            else Paired.of((reference - truth).abs().mean(1), (candidate - truth).abs().mean(1)),
        )
    logs = reference.log_softmax(1), candidate.log_softmax(1)
    kl = Mean.of(F.kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(1))
    flips = Share.of(reference.argmax(1) != candidate.argmax(1))
    labeled = {} if truth is None else _against_labels(logs[0], logs[1], truth)
    return PredictionChanges(len(reference), task, flips=flips, kl=kl, **labeled)


def _against_labels(reference: Tensor, candidate: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the figures that need labels ``(N,)``, of log probabilities ``(N, classes)``."""
    was, now = reference.argmax(1), candidate.argmax(1)
    was_right, is_right = was == labels, now == labels
    lost, gained = was_right & ~is_right, ~was_right & is_right
    enough = len(labels) >= ECE_FROM
    return {
        "negative_flips": Share.of(lost),
        "positive_flips": Share.of(gained),
        "wrong_to_wrong": Share.of(~was_right & ~is_right & (was != now)),
        "mcnemar": mcnemar(int(lost.sum()), int(gained.sum())),
        "accuracy": Paired.of(was_right, is_right),
        "brier": Paired.of(_brier(reference, labels), _brier(candidate, labels)),
        "nll": Paired.of(*(F.nll_loss(part, labels, reduction="none") for part in (reference, candidate))),
        "ece_reference": calibration_error(reference, labels) if enough else None,
        "ece_candidate": calibration_error(candidate, labels) if enough else None,
        "worst_class": _worst_class(was_right, is_right, labels),
    }


def mcnemar(negative_flips: int, positive_flips: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, that both kinds of flips are as likely.

    Q. McNemar 1947, https://doi.org/10.1007/BF02295996.

    Example:
        >>> mcnemar(0, 6), mcnemar(0, 0)
        (0.03125, 1.0)
    """
    from scipy import stats  # half a second to import

    flips = negative_flips + positive_flips
    return float(stats.binomtest(negative_flips, flips, 0.5).pvalue) if flips else 1.0


def calibration_error(log_probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error, the mean gap of confidence and accuracy in 15 bins of confidence.

    C. Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.

    Args:
        log_probabilities: ``(N, classes)``.
        labels: ``(N,)``.

    Example:
        >>> calibration_error(torch.tensor([[0.75, 0.25]] * 4).double().log(), torch.tensor([0, 0, 0, 1]))
        0.0
    """
    confidence, predicted = log_probabilities.double().exp().max(1)
    gaps = (predicted == labels).double() - confidence
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    return float(torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bins, gaps).abs().sum() / len(labels))


def _brier(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    truth = F.one_hot(labels, log_probabilities.shape[1])
    return (log_probabilities.exp() - truth).square().sum(1)


def _worst_class(was_right: Tensor, is_right: Tensor, labels: Tensor) -> WorstClass:
    found = []
    for label in labels.unique().tolist():
        own = labels == label
        before, after = Share.of(was_right[own]), Share.of(is_right[own])
        found.append(WorstClass(label, before.n, (before.count - after.count) / before.n, before, after))
    return max(found, key=lambda one: one.drop)


def _check_logits(reference: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits of both as ``(N, outputs)`` in double precision."""
    found = []
    for name, logits in (("reference_logits", reference), ("candidate_logits", candidate)):
        if logits.dim() not in (1, 2) or not logits.numel():
            raise refusal(name, "(N, classes) or (N,) of one or more samples", tuple(logits.shape))
        rows = logits.detach().double().cpu().reshape(len(logits), -1)
        if broken := int((~rows.isfinite()).any(1).sum()):
            raise ValueError(
                f"{name} expected finite numbers, but got NaN or infinity for {broken} of {len(rows)} samples."
            )
        found.append(rows)
    if found[0].shape != found[1].shape:
        raise refusal("candidate_logits", f"the reference's shape {tuple(found[0].shape)}", tuple(found[1].shape))
    return found[0], found[1]


def _infer(logits: Tensor, labels: Tensor | None) -> str:
    if logits.shape[1] == 1:
        return "binary" if labels is not None and is_multi_hot(labels) else "values"
    has_values = labels is not None and labels.shape == logits.shape and not is_multi_hot(labels)
    return "values" if has_values else "classes"


def _values(labels: Tensor | None, outputs: Tensor) -> Tensor | None:
    if labels is None:
        return None
    if labels.numel() != outputs.numel() or len(labels) != len(outputs):
        raise ValueError(f"labels expected values of shape {tuple(outputs.shape)}, but got {describe(labels)}.")
    return labels.double().reshape(outputs.shape)


def _classes(labels: Tensor | None, logits: Tensor, task: str) -> Tensor | None:
    """Return the class of each sample ``(N,)``."""
    if labels is None:
        return None
    count = 2 if task == "binary" else logits.shape[1]
    if task == "classes" and labels.dim() == 2 and labels.shape == logits.shape and bool((labels.sum(1) == 1).all()):
        labels = labels.argmax(1)
    if labels.numel() != len(logits):
        raise ValueError(f"labels expected one class for each of {len(logits)} samples, but got {describe(labels)}.")
    labels = labels.reshape(-1)
    if not bool(((labels >= 0) & (labels < count) & (labels == labels.long())).all()):
        raise ValueError(f"labels expected classes from 0 to {count - 1}, but got {labels.min()} to {labels.max()}.")
    return labels.long()


def _rows_of(groups: Sequence[Any] | Tensor, n: int) -> dict[str, Tensor]:
    """Return which samples are in each group, by the group's name in order."""
    names: list[Any] = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(names) != n or not all(isinstance(name, (int, str)) for name in names):
        raise ValueError(f"groups expected an integer or a string for each of {n} samples, but got {describe(groups)}.")
    known = sorted(set(names), key=lambda name: (isinstance(name, str), name))
    return {str(one): torch.tensor([str(name) == str(one) for name in names]) for one in known}
