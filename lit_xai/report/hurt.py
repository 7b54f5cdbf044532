"""Who was hurt: classes and groups that surely lost more than the whole may, although the whole may well pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_xai.report.evidence import LEVEL, Mean, Share, ShareDrop
from lit_xai.report.measured import classes
from lit_xai.report.record import Record
from lit_xai.report.verdict import holm
from lit_xai.retention.requirements import Requirement

FEWEST = 30
"""Samples, or clusters, below which a mean says nothing."""


@dataclass(frozen=True)
class Part:
    """Samples that share a class or a group.

    Args:
        kind: ``"class"`` or ``"group"``.
        name: its name.
        rows: the places of its samples, ``(n,)``.
    """

    kind: str
    name: str
    rows: NDArray[np.int64]


def parts_of(record: Record) -> list[Part]:
    """Return the classes and groups of a record that have samples.

    Classes are those of the labels, or, without labels, those that the reference predicts.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> networks = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))
        >>> record = Record(networks, "classes", groups=np.array([0, 0]), group_names=("left",))
        >>> [(part.kind, part.name, len(part.rows)) for part in parts_of(record)]
        [('class', '0', 1), ('class', '1', 1), ('group', 'left', 2)]
    """
    found = []
    if record.task != "values":
        labels = record.labels if record.labels is not None else classes(record, record.reference.outputs)
        found += _split("class", labels.astype(np.int64), record.class_names)
    if record.groups is not None:
        found += _split("group", record.groups.astype(np.int64), record.group_names)
    return found


def margin_of(record: Record, required: Sequence[Requirement]) -> float | None:
    """Return what a class or group may lose: as much as the whole may.

    Args:
        record: what was measured.
        required: of the whole.

    Returns:
        0.0 where nothing was said of the whole; ``None`` without labels, as every network changes some predictions.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> record = Record((Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))), "classes")
        >>> margin_of(record, [Requirement.read("flips", "<=0.02")]), margin_of(record, [])
        (0.02, None)
    """
    bounds = {(one.name, one.relation): one.bound for one in required}
    if record.labels is None:
        return bounds.get(("flips", "<=")) if record.task != "values" else None
    if record.task != "values":
        return bounds.get(("accuracy", "drop<="), 0.0)
    times = bounds.get(("mae", "ratio<="), 1.0)
    return max(times - 1, 0.0) * float(-worth(record)[0].mean())


def surely_hurt(record: Record, parts: Sequence[Part], margin: float | None) -> list[bool]:
    """Return which parts surely lost more than the margin, by Holm's correction over all of them.

    What is lost is the share of right predictions; without labels that of unchanged ones; of values, how far off
    they are.

    Args:
        record: what was measured.
        parts: of it.
        margin: what the whole may lose; of ``None`` no part is.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> dense, now = np.eye(2)[np.repeat([0, 1], 40)], np.eye(2)[np.repeat([0, 1, 0], [40, 20, 20])]
        >>> record = Record((Candidate("dense", dense), Candidate("pruned", now)), "classes", np.repeat([0, 1], 40))
        >>> surely_hurt(record, parts_of(record), 0.01)
        [False, True]
    """
    if margin is None:
        return [False] * len(parts)
    before, after = worth(record)
    return holm([_p_value(record, before[part.rows], after[part.rows], part, margin) for part in parts])


def worth(record: Record) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each sample is worth to the reference and to the candidate, ``(N,)`` each; more is better.

    1.0 for a right prediction, else 0.0; without labels for the reference's prediction; of values, minus how far off
    they are, or without labels how far from the reference's.
    """
    first, last = record.reference.outputs, record.candidate.outputs
    if record.task == "values":
        truth = first if record.labels is None else np.asarray(record.labels).reshape(first.shape)
        return tuple(-np.abs(one.astype(np.float64) - truth).mean(1) for one in (first, last))
    truth = classes(record, first) if record.labels is None else record.labels
    return tuple((classes(record, one) == truth).astype(np.float64) for one in (first, last))


def _split(kind: str, places: NDArray[np.int64], names: Sequence[str]) -> list[Part]:
    order = np.argsort(places, kind="stable")
    known, starts = np.unique(places[order], return_index=True)
    return [
        Part(kind, names[place] if 0 <= place < len(names) else str(place), rows)
        for place, rows in zip(known.tolist(), np.split(order, starts[1:]), strict=True)
    ]


def _p_value(
    record: Record, before: NDArray[np.float64], after: NDArray[np.float64], part: Part, margin: float
) -> float:
    clusters = None if record.clusters is None else record.clusters[part.rows]
    if record.task == "values" or clusters is not None:
        n = len(part.rows) if clusters is None else len(np.unique(clusters))
        return Mean.of(before - after, clusters).above(margin) if n >= FEWEST else 1.0
    if record.labels is None:  # nothing can be gained
        return Share(int((before > after).sum()), len(part.rows)).above(margin)
    lost, gained = int((before > after).sum()), int((before < after).sum())
    p = ShareDrop(lost, gained, len(part.rows)).above(margin)
    return max(p, exact_drop(lost, gained, len(part.rows), margin)) if p <= LEVEL else p


def exact_drop(lost: int, gained: int, n: int, margin: float) -> float:
    """Return how likely so large a drop of a share is if the true one is the margin, without an approximation.

    The score's normal tail is a little too light: of 100 samples it names 6 to 7% at the margin in place of 5%. Here
    the drop's own distribution is summed, at the likeliest share of gained samples under the margin.

    Args:
        lost: samples that were right and are wrong.
        gained: samples that were wrong and are right.
        n: samples.
        margin: from 0 to 1.

    Example:
        >>> round(exact_drop(5, 0, 5, 0.0), 5), exact_drop(2, 2, 5, 0.0)
        (0.03125, 1.0)
    """
    if lost <= gained or margin >= 1:
        return 1.0
    b = -lost - gained + (2 * n - lost + gained) * margin
    likeliest = (math.sqrt(max(b * b + 8 * n * gained * margin * (1 - margin), 0.0)) - b) / (4 * n)
    q = min(max(likeliest, 0.0), (1 - margin) / 2)
    # The distribution of a sum of n draws of -1, 0 and 1 is the transform of the n-th power of one draw's.
    angles = 2 * np.pi * np.arange(2 * n + 1) / (2 * n + 1)
    one = (q + margin) * np.exp(1j * angles) + q * np.exp(-1j * angles) + (1 - 2 * q - margin)
    chances = np.fft.fft(one**n).real / (2 * n + 1)  # of 0, 1 ... n, -n ... -1
    return float(min(max(chances[lost - gained : n + 1].sum(), 0.0), 1.0))
