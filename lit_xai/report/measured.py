"""The evidence that a record holds on each number that can be required."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lit_xai.network.spelling import nearest
from lit_xai.report.evidence import Evidence, Mean, MedianRatio, Share, ShareDrop, retained
from lit_xai.report.record import Record
from lit_xai.report.verdict import Exact, quantity
from lit_xai.retention.intervals import prediction_band
from lit_xai.retention.requirements import Requirement, read_requirements
from lit_xai.retention.retention import WIDE_NULL

COSTS = {"size": "size kB", "macs": "MACs", "params": "parameters"}
"""Names of costs in requirements, and in records."""

PREDICTIONS = ("accuracy", "flips", "negative_flips", "nll", "brier", "mae", "mse")
EXPLANATIONS = ("retention", "similarity")

MEASURED = (*PREDICTIONS, *EXPLANATIONS, "latency", *COSTS)
"""All names that can be required."""

FEWEST = 30
"""Samples below which a mean is no evidence."""

_Values = NDArray[np.float64]


def read_measured(given: Any, argument: str = "require") -> list[Requirement]:
    """Return requirements as they are given, on what is measured; none of ``None``.

    Args:
        given: a text for each name.
        argument: for errors.

    Raises:
        ValueError: a name is not measured, or a text is no requirement; one sentence.

    Example:
        >>> read_measured({"acuracy": ">=0.9"})
        Traceback (most recent call last):
        ...
        ValueError: require expected names of what is measured, but got 'acuracy'. Did you mean 'accuracy'?
    """
    requirements = [] if given is None else read_requirements(given, argument)
    for one in requirements:
        if one.name not in MEASURED:
            hint = nearest(one.name, MEASURED) or f" Expected one of {', '.join(MEASURED)}."
            raise ValueError(f"{argument} expected names of what is measured, but got {one.name!r}.{hint}")
    return requirements


def needs_labels(requirements: Iterable[Requirement]) -> bool:
    """Return whether a requirement is about labels.

    Example:
        >>> needs_labels(read_measured({"flips": "<=0.1"})), needs_labels(read_measured({"accuracy": ">=0.1"}))
        (False, True)
    """
    return any(one.name in PREDICTIONS and one.name != "flips" for one in requirements)


def evidence_of(record: Record, requirements: Iterable[Requirement]) -> dict[str, Evidence | str]:
    """Return what a record says of each requirement, by :func:`~lit_xai.report.verdict.quantity`; a text says why not.

    Args:
        record: what was measured.
        requirements: what was required.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> dense, pruned = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 2, 1]]
        >>> record = Record((Candidate("dense", dense), Candidate("pruned", pruned)), "classes", np.array([0, 1, 2, 0]))
        >>> evidence_of(record, [Requirement.read("accuracy", "drop<=0.01")])
        {'accuracy drop': ShareDrop(lost=1, gained=0, n=4, unit='samples')}
    """
    return {quantity(one): _evidence(record, one) for one in requirements}


def _evidence(record: Record, requirement: Requirement) -> Evidence | str:
    name, relation = requirement.name, requirement.relation.removesuffix("<=").removesuffix(">=")
    if name in COSTS:
        return _cost(record, COSTS[name], relation)
    if name == "latency":
        return _latency(record, relation)
    if name in EXPLANATIONS:
        return _explanations(record, name, relation)
    if name in PREDICTIONS:
        return _predictions(record, name, relation)
    return f"nothing is measured by the name {name!r}: expected one of {', '.join(MEASURED)}"


def _cost(record: Record, key: str, relation: str) -> Evidence | str:
    found = [one.costs.get(key) for one in (record.reference, record.candidate)]
    if found[1] is None or (relation and found[0] is None):
        return f"the {key} was not measured"
    if not relation:
        return Exact(found[1])
    assert found[0] is not None
    return Exact(found[1] / found[0])


def _latency(record: Record, relation: str) -> Evidence | str:
    first, last = record.reference.latency, record.candidate.latency
    if last is None or (relation and first is None):
        return "the latency was not measured"
    return MedianRatio(last if first is None or not relation else last / first)


def _explanations(record: Record, name: str, relation: str) -> Evidence | str:
    if not record.explained:
        return "no explanations were compared"
    first, clusters = record.explained[0], record.clusters
    if (first.arguments.get("sanity") or {}).get("passed") is False:
        return f"{first.explainer} failed its sanity check, and cannot support a verdict"
    if relation:
        return f"{name} is 1 for the reference by definition: require '>=0.4', say"
    similarity = first.similarity[record.candidate.name]
    if len(similarity) < FEWEST:
        return f"{len(similarity)} samples were explained, of {FEWEST} or more that an interval takes"
    clusters = None if clusters is None else clusters[first.samples]
    if name == "similarity":
        return Mean.of(similarity, clusters)
    if len(first.null) < 2:
        return "there are no untrained networks of the reference's architecture to hold it against: require similarity"
    band = prediction_band(torch.from_numpy(first.null).mean(1))
    if band is not None and band.high > WIDE_NULL:
        return f"explanations of an untrained network may be as similar as {band.high:.2f}: require similarity"
    return retained(similarity, first.null, clusters)


def _predictions(record: Record, name: str, relation: str) -> Evidence | str:
    needs = {"flips": record.task != "values", "mae": record.task == "values", "mse": record.task == "values"}
    if not needs.get(name, record.task != "values"):
        return f"it is not defined for {'classes' if name in ('mae', 'mse') else 'values'}"
    if name != "flips" and record.labels is None:
        return "there are no labels"
    if name in ("flips", "negative_flips", "accuracy") and record.clusters is None:
        return _counted(record, name, relation)
    if (n := record.n if record.clusters is None else len(np.unique(record.clusters))) < FEWEST:
        return f"there are {n} samples or clusters, of {FEWEST} or more that an interval takes"
    was, now = each_sample(record, name)
    if relation == "ratio":
        return Mean.of_ratio(now, was, record.clusters) if was.mean() > 0 else "the reference's is 0"
    is_share = name in ("flips", "negative_flips", "accuracy")
    ends = (-1.0 if relation == "drop" else 0.0, 1.0) if is_share else (-math.inf, math.inf)
    change = {"drop": was - now, "rise": now - was}.get(relation, now)
    return Mean.of(change, record.clusters, ends)


def _counted(record: Record, name: str, relation: str) -> Evidence | str:
    was, now = each_sample(record, name)
    if not relation:
        return Share(int(now.sum()), record.n)
    if relation == "ratio":
        return Mean.of_ratio(now, was) if was.mean() > 0 else "the reference's is 0"
    return ShareDrop(int(((was == 1) & (now == 0)).sum()), int(((was == 0) & (now == 1)).sum()), record.n)


def each_sample(record: Record, name: str) -> tuple[_Values, _Values]:
    """Return a number of each sample, of the reference and of the candidate, ``(N,)`` each."""
    labels = record.labels
    first, last = record.reference.outputs, record.candidate.outputs
    if name in ("flips", "negative_flips"):
        was, now = classes(record, first), classes(record, last)
        changed = was != now if name == "flips" else (was == labels) & (now != labels)
        return np.zeros(record.n), changed.astype(np.float64)
    each: Callable[[NDArray[np.float64]], _Values] = {
        "accuracy": lambda outputs: (classes(record, outputs) == labels).astype(np.float64),
        "nll": lambda outputs: -_log_probabilities(record, outputs)[np.arange(record.n), _as_classes(labels)],
        "brier": lambda outputs: (
            (np.exp(_log_probabilities(record, outputs)) - np.eye(_n_classes(record))[_as_classes(labels)]) ** 2
        ).sum(1),
        "mae": lambda outputs: np.abs(outputs - np.asarray(labels).reshape(outputs.shape)).mean(1),
        "mse": lambda outputs: ((outputs - np.asarray(labels).reshape(outputs.shape)) ** 2).mean(1),
    }[name]
    return each(first.astype(np.float64)), each(last.astype(np.float64))


def classes(record: Record, outputs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class that outputs ``(N, outputs)`` predict for each sample."""
    return (outputs[:, 0] > 0).astype(np.int64) if record.task == "binary" else outputs.argmax(1)


def _n_classes(record: Record) -> int:
    return 2 if record.task == "binary" else record.reference.outputs.shape[1]


def _as_classes(labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
    assert labels is not None  # checked by the caller
    return labels.astype(np.int64)


def _log_probabilities(record: Record, outputs: NDArray[np.float64]) -> _Values:
    if record.task == "binary":
        outputs = np.concatenate([np.zeros_like(outputs), outputs], 1)
    found: _Values = torch.from_numpy(outputs).double().log_softmax(1).numpy()
    return found
