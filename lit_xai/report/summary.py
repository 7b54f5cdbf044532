"""A report's numbers: the verdict, the networks side by side, who was hurt, and what the explanations retain."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lit_xai.report.explainers import explainer_row
from lit_xai.report.facts import Facts, facts_of
from lit_xai.report.hurt import margin_of
from lit_xai.report.limits import limits_of
from lit_xai.report.measured import evidence_of
from lit_xai.report.networks import network_row, what_is_measured
from lit_xai.report.parts import part_rows
from lit_xai.report.record import Record
from lit_xai.report.shortcuts import shortcut_rows
from lit_xai.report.verdict import Line, judge
from lit_xai.retention.requirements import Requirement, read_requirements

VERSION = 1
DIGITS = 6
"""Significant digits of every number: the last bits depend on the processor, and a report may not."""


def summary(record: Record) -> dict[str, Any]:
    """Return a report's numbers as plain values, as ``report.json`` holds them.

    It depends on the record alone. Every interval ``low``, ``high`` is a pair of one-sided bounds of 95%.

    Args:
        record: what was measured.

    Raises:
        ValueError: outputs that are not finite, or a fact of another kind; one sentence.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> dense, pruned = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2)[[0, 0]])
        >>> facts = {"requirements": {"accuracy": "drop<=0.01"}, "stated": "before"}
        >>> found = summary(Record((dense, pruned), "classes", np.array([0, 1]), facts=facts))
        >>> found["verdict"]["outcome"], found["networks"][1]["metric"]["value"], found["hurt"]["named"]
        ('inconclusive', 0.5, [])
    """
    facts = facts_of(record)
    _check(record)
    required = read_requirements(facts["requirements"], "requirements") if facts.get("requirements") else []
    margin = margin_of(record, required)
    parts = part_rows(record, margin)
    tested = len(parts) if margin is not None else 0
    explainers = [explainer_row(record, one) for one in record.explained]
    found = {
        "version": VERSION,
        "title": facts.get("title") or f"{record.candidate.name} against {record.reference.name}",
        "subject": facts.get("subject", ""),
        "task": record.task,
        "n": record.n,
        "has_labels": record.labels is not None,
        "clusters": None if record.clusters is None else len(np.unique(record.clusters)),
        "reference": record.reference.name,
        "candidate": record.candidate.name,
        "verdict": _verdict(record, required, facts),
        "limits": limits_of(record, facts, tested),
        "networks": [network_row(record, one) for one in record.networks],
        "hurt": {
            "of": what_is_measured(record),
            "margin": margin,
            "tested": tested,
            "named": [
                {key: row[key] for key in ("kind", "name", "n", "loss")} for row in parts if row["is_surely_hurt"]
            ],
            "shortcuts": shortcut_rows(record),
        },
        "classes": [row for row in parts if row["kind"] == "class"],
        "groups": [row for row in parts if row["kind"] == "group"],
        "explainers": explainers,
        "faithfulness": facts.get("faithfulness", []),
    }
    rounded: dict[str, Any] = plain(found)
    return rounded


def plain(value: Any) -> Any:
    """Return values as JSON knows them: numbers of six significant digits, ``None`` for those that are not finite.

    Example:
        >>> plain({"value": 1 / 3, "low": -math.inf, "n": np.int64(12345678)})
        {'value': 0.333333, 'low': None, 'n': 12345678}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0 if math.isfinite(value) else None  # no minus zero
    return value


def _check(record: Record) -> None:
    """Raise if there are outputs of which nothing can be said."""
    for one in record.networks:
        if broken := int((~np.isfinite(one.outputs)).any(1).sum()):
            raise ValueError(
                f"The outputs of {one.name} expected finite numbers, but got NaN or infinity for {broken} of"
                f" {record.n} samples."
            )


def _verdict(record: Record, required: list[Requirement], facts: Facts) -> dict[str, Any]:
    verdict = judge(required, evidence_of(record, required))
    return {
        "outcome": verdict.outcome if required else None,
        "stated": facts.get("stated", "afterwards") if required else None,
        "reading": facts.get("reading"),
        "lines": [_line(line) for line in verdict.lines],
    }


def _line(line: Line) -> dict[str, Any]:
    one = line.requirement
    known = not line.reason
    return {
        "requirement": str(one),
        "name": one.name,
        "relation": one.relation,
        "margin": one.bound,
        "outcome": line.outcome,
        "value": line.value,
        "low": line.low if known else None,
        "high": line.high if known else None,
        "n": line.n,
        "unit": line.unit,
        "needed": line.needed,
        "reason": line.reason,
    }
