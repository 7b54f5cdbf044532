"""The classes and groups of a report: what each lost, with its samples and bounds."""

from typing import Any

import numpy as np

from lit_xai.report.estimates import mean, retention, share
from lit_xai.report.hurt import parts_of, surely_hurt, worth
from lit_xai.report.measured import each_sample
from lit_xai.report.networks import flips
from lit_xai.report.record import Record


def part_rows(record: Record, margin: float | None) -> list[dict[str, Any]]:
    """Return the numbers of every class and group.

    Args:
        record: what was measured.
        margin: what each may lose; ``None`` if nobody said.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> networks = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2)[[0, 0]])
        >>> [(row["name"], row["loss"]["value"]) for row in part_rows(Record(networks, "classes", np.arange(2)), 0.0)]
        [('0', 0.0), ('1', 1.0)]
    """
    parts = parts_of(record)
    before, after = worth(record)
    has_brier = record.task != "values" and record.labels is not None
    brier = np.subtract(*each_sample(record, "brier")[::-1]) if has_brier else None
    found = []
    for part, is_surely_hurt in zip(parts, surely_hurt(record, parts, margin), strict=True):
        rows = part.rows
        clusters = None if record.clusters is None else record.clusters[rows]
        if record.task == "values":
            numbers: dict[str, Any] = {"before": mean(-before[rows], clusters), "after": mean(-after[rows], clusters)}
            numbers["loss"] = mean(before[rows] - after[rows], clusters)
        else:
            numbers = {"before": share(before[rows] == 1, clusters), "after": share(after[rows] == 1, clusters)}
            numbers |= flips(record, rows)
            numbers["brier_change"] = None if brier is None else mean(brier[rows], clusters)
        found.append(
            {
                "kind": part.kind,
                "name": part.name,
                "n": len(rows),
                "is_surely_hurt": is_surely_hurt,
                **numbers,
                "retention": _retention(record, rows),
            }
        )
    return found


def _retention(record: Record, rows: Any) -> dict[str, Any] | None:
    """Return what the first explainer's explanations of some samples retain, of those that were explained."""
    first = record.explained[0] if record.explained else None
    if first is None or record.candidate.name not in first.similarity:
        return None
    own = np.isin(first.samples, rows)
    clusters = None if record.clusters is None else record.clusters[first.samples[own]]
    null = first.null[:, own] if len(first.null) else first.null
    found = retention(first.similarity[record.candidate.name][own], null, clusters)
    return None if found is None else dict(found)
