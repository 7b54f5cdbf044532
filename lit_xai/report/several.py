"""Several runs held against each other: what each costs and keeps, and which are on the Pareto front."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_xai.export.folder import staged
from lit_xai.report import words
from lit_xai.report.drawings import letter, scatter
from lit_xai.report.estimates import estimate
from lit_xai.report.evidence import MedianRatio
from lit_xai.report.front import pareto_front
from lit_xai.report.record import Record
from lit_xai.report.same import check_same, has_same_reference, shared_notes
from lit_xai.report.summary import plain, summary
from lit_xai.report.templates import template

PAGE, TABLE, NUMBERS = "comparison.html", "comparison.csv", "comparison.json"
FILES = (PAGE, TABLE, NUMBERS)
"""The files of a comparison of runs."""

BOUNDED, ENDS = ("metric", "loss", "cost", "retention", "changed"), ("value", "low", "high")
"""Numbers of a row that have bounds."""

Row = dict[str, Any]
Cost = tuple[str, Callable[[Record], Any]]


def compare_runs(runs: Mapping[str, Record]) -> dict[str, Any]:
    """Return the networks that several runs judged side by side, as plain values, as ``comparison.json`` holds them.

    The front is that of the metric, the latency (or the size, where not all were timed) and the first explainer's
    retention, as far as every run has them. Of latencies it is the ratio to the reference that was measured in the same
    rounds, since runs are measured at different times.

    Args:
        runs: two records or more on the same test samples, by name.

    Raises:
        ValueError: the runs cannot stand in one table, as they are of other samples, labels or tasks; one sentence.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> dense, same, worse = (Candidate(name, np.eye(2)[place]) for name, place in
        ...     {"dense": [0, 1], "same": [0, 1], "worse": [0, 0]}.items())
        >>> runs = {one.name: Record((dense, one), "classes", np.array([0, 1])) for one in (same, worse)}
        >>> [(row["name"], row["metric"]["value"], row["on_front"]) for row in compare_runs(runs)["rows"]]
        [('reference', 1.0, True), ('same', 1.0, True), ('worse', 0.5, False)]
    """
    check_same(runs)
    found = {name: summary(record) for name, record in runs.items()}
    same = has_same_reference(list(runs.values()))
    cost, retained = _cost(runs, same), _retained(list(found.values()), same)
    rows = [_reference_row("reference", runs, found, cost, retained)] if same else []
    rows += [_row(name, record, found[name], cost, retained) for name, record in runs.items()]
    objectives = _objectives(rows)
    front = pareto_front([[row[key]["value"] for key, _ in objectives] for row in rows], [way for _, way in objectives])
    for row, is_on in zip(rows, front, strict=True):
        row["on_front"] = is_on
    first = next(iter(found.values()))
    comparison: dict[str, Any] = plain(
        {
            "version": 1,
            "task": first["task"],
            "n": first["n"],
            "metric": first["networks"][0]["metric"]["name"],
            "cost": None if cost is None else cost[0],
            "retained": None if retained is None else " of ".join(retained),
            "objectives": [{"name": name, "direction": way} for name, way in objectives],
            "same_reference": same,
            "rows": rows,
            "notes": [*shared_notes(runs, same), *_notes(objectives)],
        }
    )
    return comparison


def comparison_page(numbers: Mapping[str, Any]) -> str:
    """Return a comparison as one HTML page, the same for the same numbers.

    Args:
        numbers: as :func:`compare_runs` returns them.
    """
    rows = numbers["rows"]
    plain_columns = {"median latency (ms)": [row["latency_ms"] for row in rows]}
    for name in dict.fromkeys(name for row in rows for name in row["costs"]):
        plain_columns[name] = [row["costs"].get(name) for row in rows]
    columns = _columns(numbers)
    columns += [(title, [{"value": one} for one in values]) for title, values in plain_columns.items()]
    shown = {
        "words": words,
        "letter": letter,
        "comparison": numbers,
        "title": f"{sum(not row['is_reference'] for row in rows)} runs held against each other",
        "front": [(row, letter(place)) for place, row in enumerate(rows) if row["on_front"]],
        "goals": ", ".join(_titles(numbers)[one["name"]] for one in numbers["objectives"]),
        "columns": [(title, cells, words.decimals(cells)) for title, cells in columns],
        "figures": _figures(numbers),
    }
    return template("several.html").render(shown).rstrip() + "\n"


def comparison_table(numbers: Mapping[str, Any]) -> str:
    """Return a comparison as CSV: a line for each network, and three columns for a number with its bounds.

    Args:
        numbers: as :func:`compare_runs` returns them.

    Example:
        >>> row = {"name": "a", "network": "pruned", "metric": {"value": 0.5, "low": 0.4, "high": None}, "costs": {}}
        >>> print(comparison_table({"rows": [row]}).splitlines()[1])
        a,pruned,0.5,0.4,
    """
    lines = [_flat(row) for row in numbers["rows"]]
    names = list(dict.fromkeys(name for line in lines for name in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def write_comparison(runs: Mapping[str, Record], folder: Path) -> dict[str, Any]:
    """Write a comparison of runs into a folder: all files or, after an error, none.

    Args:
        runs: two records or more on the same test samples, by name.
        folder: is created; other files in it stay.

    Returns:
        The numbers.

    Raises:
        ValueError: as for :func:`compare_runs`, or the folder cannot be written to.
    """
    numbers = compare_runs(runs)
    text = {PAGE: comparison_page(numbers), TABLE: comparison_table(numbers)}
    text[NUMBERS] = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with staged(Path(folder), files=FILES) as temporary:
        for name, one in text.items():
            (temporary / name).write_bytes(one.encode())
    return numbers


# --- rows -------------------------------------------------------------------------------------------------------------


def _row(
    name: str,
    record: Record,
    report: Mapping[str, Any],
    cost: Cost | None,
    retained: tuple[str, str] | None,
) -> Row:
    last = report["networks"][-1]
    changes = last["changes"]
    return {
        "name": name,
        "network": report["candidate"],
        "is_reference": False,
        "reference": report["reference"],
        "verdict": report["verdict"]["outcome"],
        "requirements": [line["requirement"] for line in report["verdict"]["lines"]],
        "hurt": [f"{one['kind']} {one['name']}" for one in report["hurt"]["named"]],
        "metric": last["metric"],
        "loss": changes["loss"],
        "cost": cost[1](record) if cost else None,
        "retention": _retention_of(report, retained),
        "changed": changes.get("flips") or changes.get("absolute_change"),
        "latency_ms": (last["latency"] or {}).get("median"),
        "costs": last["costs"],
    }


def _reference_row(
    name: str,
    runs: Mapping[str, Record],
    found: Mapping[str, Mapping[str, Any]],
    cost: Cost | None,
    retained: tuple[str, str] | None,
) -> Row:
    record, report = next(iter(runs.values())), next(iter(found.values()))
    itself = Record((record.reference, record.reference), record.task)
    first, one = report["networks"][0], {"value": 1.0, "low": 1.0, "high": 1.0}
    return {
        "name": name,
        "network": report["reference"],
        "is_reference": True,
        "reference": report["reference"],
        "verdict": None,
        "requirements": [],
        "hurt": [],
        "metric": first["metric"],
        "loss": None,
        "cost": cost[1](itself) if cost else None,
        "retention": one if retained else None,
        "changed": None,
        "latency_ms": (first["latency"] or {}).get("median"),
        "costs": first["costs"],
    }


def _cost(runs: Mapping[str, Record], same: bool) -> Cost | None:
    """Return what a network costs and how it is read, of the first cost that all runs have."""
    records = list(runs.values())
    if all(_times(one) is not None for one in records):
        return ("latency ratio", _latency_ratio) if same else ("median latency in ms", _milliseconds)
    for name in ("size kB", "MACs", "parameters"):
        if all(name in each.costs for one in records for each in (one.reference, one.candidate)):
            return name, lambda record, name=name: {"value": record.candidate.costs[name]}
    return None


def _times(record: Record) -> tuple[Any, Any] | None:
    first, last = record.reference.latency, record.candidate.latency
    return None if first is None or last is None or not len(first) or len(first) != len(last) else (first, last)


def _latency_ratio(record: Record) -> Any:
    times = _times(record)
    assert times is not None  # asked before
    if record.reference is record.candidate:
        return {"value": 1.0, "low": 1.0, "high": 1.0}
    return estimate(MedianRatio(times[1] / times[0]))


def _milliseconds(record: Record) -> Any:
    times = _times(record)
    assert times is not None  # asked before
    return {"value": float(np.median(times[1]))}


def _retained(reports: Sequence[Mapping[str, Any]], same: bool) -> tuple[str, str] | None:
    """Return ``"retention"`` or ``"similarity"`` and the explainer, of the first that every run has."""
    if not same:
        return None
    for key in ("retention", "similarity"):
        for one in reports[0]["explainers"]:
            chosen = key, one["explainer"]
            if all(_retention_of(report, chosen) for report in reports):
                return chosen
    return None


def _retention_of(report: Mapping[str, Any], chosen: tuple[str, str] | None) -> Any:
    rows = [
        row
        for one in report["explainers"]
        for row in one["networks"]
        if chosen is not None and one["explainer"] == chosen[1] and row["name"] == report["candidate"]
    ]
    return rows[0][chosen[0]] if rows and chosen is not None else None


def _objectives(rows: Sequence[Row]) -> list[tuple[str, Any]]:
    lower = rows[0]["metric"]["lower_is_better"]
    wanted = [("metric", "minimize" if lower else "maximize"), ("cost", "minimize"), ("retention", "maximize")]
    return [(key, way) for key, way in wanted if all(row[key] is not None for row in rows)]


def _notes(objectives: Sequence[tuple[str, Any]]) -> list[str]:
    found = ["The front is that of the measured values: where intervals overlap, other samples may give another."]
    known = {key for key, _ in objectives}
    if left_out := [key for key in ("cost", "retention") if key not in known]:
        found.append(f"Not every run has the same {' and '.join(left_out)}, so the front is without.")
    return found


# --- page and table ---------------------------------------------------------------------------------------------------


def _titles(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the titles of the numbers that have bounds."""
    is_values = numbers["task"] == "values"
    return {
        "metric": numbers["metric"],
        "loss": f"{'rise' if is_values else 'drop'} of {numbers['metric']}",
        "cost": numbers["cost"],
        "retention": numbers["retained"],
        "changed": "mean absolute change" if is_values else "flips",
    }


def _columns(numbers: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return the numbers that have bounds, by their titles."""
    return [
        (title, [row[key] or {} for row in numbers["rows"]])
        for key, title in _titles(numbers).items()
        if title and any(row[key] for row in numbers["rows"])
    ]


def _figures(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return drawings and what they show."""
    rows, names = numbers["rows"], [one["name"] for one in numbers["objectives"]]
    titles = _titles(numbers)
    pairs = [("cost", "metric"), ("cost", "retention")] if "cost" in names else [("retention", "metric")]
    found = []
    for x, y in pairs:
        if x in names and y in names:
            points = [{**row[y], "x": row[x]["value"], "kind": _kind(row)} for row in rows]
            found.append((scatter(points, titles[x], titles[y], f"{x}-{y}"), f"{titles[y]} against {titles[x]}"))
    return found


def _kind(row: Row) -> str:
    return "reference" if row["is_reference"] else "front" if row["on_front"] else "other"


def _flat(row: Row) -> Row:
    found: Row = {}
    for key, value in row.items():
        if key == "costs":
            found |= value
        elif key in BOUNDED:
            found |= {key if end == "value" else f"{key} {end}": (value or {}).get(end) for end in ENDS}
        else:
            found[key] = _unlike_formula("; ".join(value)) if isinstance(value, list) else _unlike_formula(value)
    return found


def _unlike_formula(value: Any) -> Any:
    """Return a text that no spreadsheet takes for a formula to run."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
