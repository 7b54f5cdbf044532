"""What several runs have to have in common to stand in one table, and what the reader is told where they differ."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lit_xai.network.check import refusal
from lit_xai.report.facts import facts_of
from lit_xai.report.record import Array, Record

SEEDS = (
    "Intervals cover the test samples, not the training seed: another training by the same recipe may lie outside them."
)
"""Said wherever two recipes stand side by side."""


def check_same(runs: Mapping[str, Record]) -> None:
    """Refuse runs that are no answers to one question.

    Args:
        runs: by name.

    Raises:
        ValueError: there are fewer than two, or they are of other samples, labels, classes or tasks; one sentence.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> one, other = (Record((Candidate("a", np.eye(n)), Candidate("b", np.eye(n))), "classes") for n in (2, 3))
        >>> check_same({"runs/1": one, "runs/2": other})
        Traceback (most recent call last):
        ...
        ValueError: RUN expected reports on the same test data, but runs/2 has another number of samples than ...
    """
    if len(runs) < 2:
        raise refusal("runs", "two or more", list(runs))
    (first, one), *others = runs.items()
    for name, other in others:
        if difference := _difference(one, other):
            raise ValueError(
                f"RUN expected reports on the same test data, but {name} has {difference} than {first}: they"
                " cannot stand in one table."
            )


def has_same_reference(records: Sequence[Record]) -> bool:
    """Return whether all runs are held against the same network: one that gives the same outputs, up to rounding."""
    first = records[0].reference.outputs.astype(np.float64)
    near = 1e-4 * max(1.0, float(np.abs(first).max()))
    return all(bool(np.allclose(one.reference.outputs, first, rtol=1e-4, atol=near)) for one in records[1:])


def shared_notes(runs: Mapping[str, Record], same_reference: bool) -> Iterator[str]:
    """Yield what has to be known to read the table.

    Args:
        runs: by name.
        same_reference: whether all are held against one network.
    """
    yield SEEDS
    yield (
        f"{len(runs)} networks were judged on the same test samples: the best of them looks better here than it is."
        " Choose by validation samples, and test what was chosen."
    )
    if not same_reference:
        yield (
            "The runs have different references, so drops, changed predictions and retention are each of another"
            " network's, and retention is no part of the front."
        )
    facts = [facts_of(one) for one in runs.values()]
    if len({str(sorted(one.get("requirements", {}).items())) for one in facts}) > 1:
        yield "The runs had different requirements: a network that passed may be worse than one that failed."
    if any(one.get("requirements") and one.get("stated") != "before" for one in facts):
        after = [name for name, one in runs.items() if facts_of(one).get("stated") != "before"]
        yield f"Requirements were stated afterwards for {', '.join(after)}."
    if len({tuple(one.get("environment", {}).get(key) for key in ("processor", "threads")) for one in facts}) > 1:
        yield "The runs were measured on different machines or threads: their latencies are not of one kind."
    if unknown := [name for name, one in runs.items() if _hash(one) is None]:
        yield f"No hash of the samples is known for {', '.join(unknown)}: that they are the same was not checked."


def _difference(one: Record, other: Record) -> str:
    """Return in what another run differs, such that the numbers of both cannot be compared."""
    sides = {
        "another task": lambda record: record.task,
        "another number of samples": lambda record: record.n,
        "other samples, by their hash": _hash,
        "another number of outputs": lambda record: record.reference.outputs.shape[1],
        "other classes": lambda record: record.class_names or None,
    }
    for what, side in sides.items():
        if None not in (side(one), side(other)) and side(one) != side(other):
            return what
    return "" if _same_labels(one.labels, other.labels) else "other labels, or in another order,"


def _same_labels(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool((one == other).all())


def _hash(record: Record) -> str | None:
    """Return the checksum of the samples that were judged, which stand last among the splits."""
    splits = facts_of(record).get("data", {}).get("splits", [])
    known = [one["hash"] for one in splits if one.get("hash") and one.get("n", record.n) == record.n]
    return known[-1] if known else None
