"""A report as one HTML page that needs nothing else: no network, no script, no other file."""

from collections.abc import Mapping, Sequence
from typing import Any

from lit_xai.report import crosswalk, words
from lit_xai.report.axes import LIMIT, MEASURE
from lit_xai.report.drawings import both_axes, letter, reliability, similarities, trade_off
from lit_xai.report.estimates import FEWEST
from lit_xai.report.facts import Facts, facts_of, in_section
from lit_xai.report.networks import measures
from lit_xai.report.record import Record
from lit_xai.report.strips import strip, strips
from lit_xai.report.summary import plain, summary
from lit_xai.report.templates import template

MOST = 10
"""Classes, or groups, in a table: those that lost most. ``report.json`` holds all."""

_OF_PARTS = ("before", "after", "loss", "negative_flips", "positive_flips", "brier_change", "retention")
"""Numbers of a class or group."""

_OF_CHANGES = ("flips", "negative_flips", "positive_flips", "wrong_to_wrong", "kl")
"""Numbers of changed predictions."""

LARGEST = 4_000_000
"""Characters of pictures on a page."""

SECTIONS = {
    "verdict": "Verdict",
    "limits": "Limits",
    "networks": "Networks side by side",
    "explanations": "Explanations: the same, and faithful",
    "hurt": "Who was hurt",
    "flips": "Changed predictions",
    "pictures": "Samples that changed most",
    "robustness": "Disturbed inputs",
    "reasons": "Reason codes",
    "calibration": "Calibration",
    "explainers": "Explainers",
    "layers": "Channels and bits",
    "tables": "Further tables",
    "identity": "Identity",
    "environment": "Environment",
    "data": "Data",
    "changes": "Change log",
    "crosswalk": "Crosswalk to rules",
    "sign-off": "Sign-off",
}
"""Titles by anchor, in order."""


def page(record: Record, numbers: Mapping[str, Any] | None = None) -> str:
    """Return a record's report as a page, the same for the same record.

    :class:`~lit_xai.report.facts.Facts` lists the facts that are shown beside the measurements.

    Args:
        record: what was measured.
        numbers: its :func:`~lit_xai.report.summary.summary`, if it is at hand.

    Raises:
        ValueError: a fact is of another kind; one sentence.

    Example:
        >>> import numpy as np
        >>> from lit_xai.report.record import Candidate
        >>> record = Record((Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))), "classes")
        >>> page(record).startswith("<!DOCTYPE html>")
        True
    """
    report, facts = numbers or summary(record), facts_of(record)
    axis = _axis(report)
    explained = {f"{one['of']}, {one['explainer']}": one["by_network"] for one in axis}
    shown = {
        "report": report,
        "facts": facts,
        "words": words,
        "letter": letter,
        "fewest": FEWEST,
        "lines": [_line(line) for line in report["verdict"]["lines"]],
        "axis": axis,
        "faithful": _with_strips(report["faithfulness"]),
        "measured_faithful": [
            _faithful(one, report, place) for place, one in enumerate(report["explainers"]) if one["faithful"]
        ],
        "axes_limit": LIMIT,
        "parts": [_most_hurt(report[kind], kind, report["hurt"]["margin"]) for kind in ("groups", "classes")],
        "measures": [(title, cells, words.decimals(cells)) for title, cells in measures(report, explained)],
        "changed": _decimals([one["changes"] or {} for one in report["networks"]], _OF_CHANGES),
        "calibrated": _decimals([one["calibration"] or {} for one in report["networks"]], ("brier", "nll")),
        "figures": _figures(record, report),
        "shown": _by_section(facts),
        "crosswalk": crosswalk.ITEMS,
        "sections": {key: title for key, title in SECTIONS.items() if _has(key, facts, report)},
    }
    return template("template.html").render(shown).rstrip() + "\n"


def _has(section: str, facts: Facts, report: Mapping[str, Any]) -> bool:
    """Return whether there is anything to show in a section that may be empty."""
    if section in _FILLED:
        return any(bool(one) for one in _by_section(facts)[section].values())
    empty = {
        "explainers": not report["explainers"],
        "flips": report["task"] == "values",
        "calibration": not report["networks"][0]["calibration"],
    }
    return not empty.get(section, False)


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **line,
        "words": words.requirement(line),
        "deciding": words.deciding(line),
        "strip": strip(line, line["margin"], line["relation"]),
    }


def _axis(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what each explainer says, with what would mean something, on one scale."""
    found = []
    for one in report["explainers"]:
        key = "retention" if one["speaks"] else "similarity"
        rows = [{"name": each["name"], "kind": "network", **(each[key] or {})} for each in one["networks"]]
        null = one["null"]
        if null is not None:
            center, scale = (null["similarity"], 1 - null["similarity"]) if one["speaks"] else (0.0, 1.0)
            ends = {end: (null[end] - center) / scale for end in ("low", "high") if null[end] is not None}
            value = (null["similarity"] - center) / scale
            name = f"untrained networks ({null['n']})"
            rows.append({"name": name, "kind": "null", "value": value, **ends})
        bits = "this network at {}".format
        rows += [
            {
                "name": bits(name) if name.endswith(" bits") else name,
                "kind": "reference",
                "value": value,
                "low": value,
                "high": value,
            }
            for name, value in one["references"].items()
        ]
        rows = plain(rows)
        for row, where in zip(rows, strips(rows), strict=True):
            row["strip"] = where
        by_network = {row["name"]: row for row in rows if row["kind"] == "network"}
        found.append({"explainer": one["explainer"], "of": key, "n": one["n"], "rows": rows, "by_network": by_network})
    return found


def _decimals(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, int | None]:
    """Return the decimals of columns."""
    return {key: words.decimals(row.get(key) for row in rows) for key in keys}


def _faithful(one: Mapping[str, Any], report: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return how faithful an explainer is to each network, to be shown."""
    found, points = one["faithful"], _points(one, report)
    x = "retention" if one["speaks"] else "similarity to the reference's"
    return {
        **found,
        "explainer": one["explainer"],
        "n": one["n"],
        "rows": _with_strips(found["networks"]),
        "zero": "an untrained network" if one["speaks"] else "no similarity",
        "figure": both_axes(points, x, MEASURE, f"axes-{place}") if points else None,
    }


def _with_strips(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "strip": where} for one, where in zip(given, strips(given), strict=True)]


def _most_hurt(rows: Sequence[Mapping[str, Any]], kind: str, margin: float | None) -> dict[str, Any]:
    """Return the rows that lost most, and in any case those that are named."""
    ordered = sorted(rows, key=lambda row: (not row["is_surely_hurt"], -(row["loss"]["value"] or 0.0)))
    shown = ordered[:MOST]
    where = strips([row["loss"] for row in shown], margin, "<=" if margin is not None else "")
    return {
        "kind": kind,
        "decimals": _decimals(shown, _OF_PARTS),
        "rows": [{**row, "strip": one} for row, one in zip(shown, where, strict=True)],
        "total": len(rows),
    }


def _figures(record: Record, report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trade_off": trade_off(report["networks"]),
        "reliability": reliability(record),
        "similarities": [
            similarities(record, one, f"similarity-{place}") for place, one in enumerate(record.explained)
        ],
    }


def _points(one: Mapping[str, Any], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return where each network lies on both axes; nothing where there are not two of them."""
    key = "retention" if one["speaks"] else "similarity"
    kept = {row["name"]: row[key] for row in one["networks"]} | {report["reference"]: {"value": 1.0}}
    names = [row["name"] for row in report["networks"]]
    rows = (one["faithful"] or {}).get("networks", [])
    found = [
        {
            "letter": letter(names.index(row["name"])),
            "is_reference": row["name"] == report["reference"],
            "x": kept[row["name"]],
            "y": row,
        }
        for row in rows
        if row["value"] is not None and kept.get(row["name"])
    ]
    return found if len(found) > 1 else []


_FILLED = ("pictures", "robustness", "reasons", "layers", "tables")
"""Sections that consist of tables and pictures alone."""


def _by_section(facts: Facts) -> dict[str, dict[str, list[Any]]]:
    """Return the tables and pictures of each section, as many pictures as a page may hold."""
    pictures, total = [], 0
    for one in facts.get("pictures", []):
        total += len(one.get("png", ""))
        pictures.append(one if total <= LARGEST else {**one, "png": "", "caption": "It would make the page too large."})
    return {
        section: {
            "tables": in_section(facts.get("tables", []), section, "tables"),
            "pictures": in_section(pictures, section, "pictures"),
        }
        for section in ("networks", *_FILLED)
    }
