"""A model card in the Hub's format, with a report's numbers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lit_xai.report import words
from lit_xai.report.axes import LIMIT
from lit_xai.report.facts import Facts, facts_of
from lit_xai.report.networks import measures
from lit_xai.report.record import Record
from lit_xai.report.summary import plain, summary

TAGS = ("lit-xai", "model-compression", "explainability")
"""Tags of every card."""

_HUB_NAMES = {"mean absolute error": "mae"}
_TASKS = {"classes": "classification", "binary": "classification", "values": "regression"}
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~&$])")


def model_card(record: Record, numbers: Mapping[str, Any] | None = None) -> str:
    """Return the card of a record's candidate: a header of metadata in YAML, and Markdown.

    Args:
        record: what was measured.
        numbers: its :func:`~lit_xai.report.summary.summary`, if it is at hand.

    Raises:
        ValueError: a fact is of another kind; one sentence.

    Example:
        >>> import numpy as np
        >>> from lit_xai.report.record import Candidate
        >>> record = Record((Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))), "classes", np.arange(2))
        >>> print(model_card(record)[:35])
        ---
        library_name: pytorch-lightning
    """
    import yaml  # imported when used, as everywhere

    report, facts = numbers or summary(record), facts_of(record)
    header = yaml.safe_dump(_metadata(report, facts), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{header}---\n\n{_body(report, facts)}\n"


def markdown(text: Any) -> str:
    """Return a text that Markdown shows as it is, on one line.

    Example:
        >>> markdown("<b>|a_b")
        '\\\\<b\\\\>\\\\|a\\\\_b'
    """
    return _MARKUP.sub(r"\\\1", " ".join(words.plain_text(text).split()))


def _metadata(report: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    given = plain(facts.get("card", {}))
    tags = given.pop("tags", [])
    found = {"library_name": "pytorch-lightning", **given}
    found["tags"] = list(dict.fromkeys([*(tags if isinstance(tags, list) else [tags]), *TAGS]))
    if results := _metrics(report):
        splits = facts.get("data", {}).get("splits") or [{}]
        dataset = {"type": "unknown", "name": _dataset(facts), "split": splits[-1].get("name", "test")}
        task = {"type": _TASKS[report["task"]]}
        found["model-index"] = [
            {"name": report["candidate"], "results": [{"task": task, "dataset": dataset, "metrics": results}]}
        ]
    return found


def _dataset(facts: Facts) -> str:
    given = facts.get("card", {}).get("datasets", [])
    names = given if isinstance(given, list) else [given]
    return str(names[0]) if names else "test samples"


def _metrics(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the candidate's numbers as the Hub lists them."""
    last = report["networks"][-1]
    found = [(last["metric"]["name"], last["metric"]["value"])] if report["has_labels"] else []
    if last["calibration"]:
        found += [("nll", last["calibration"]["nll"]["value"]), ("ece", last["calibration"]["ece"])]
    if last["changes"] and "flips" in last["changes"]:
        found.append(("flips", last["changes"]["flips"]["value"]))
    for one in report["explainers"]:
        rows = [row for row in one["networks"] if row["name"] == last["name"] and row["retention"]]
        found += [(f"retention, {one['explainer']}", row["retention"]["value"]) for row in rows]
    if last["latency"]:
        found.append(("latency, median (ms)", last["latency"]["median"]))
    return [
        {"type": _HUB_NAMES.get(name, name.split(",")[0]), "value": value, "name": name}
        for name, value in found
        if value is not None
    ]


def _body(report: Mapping[str, Any], facts: Facts) -> str:
    sections = [
        f"# {markdown(report['title'])}",
        *([markdown(report["subject"])] if report["subject"] else []),
        f"{markdown(report['candidate'])}, held against {markdown(report['reference'])} on"
        f" {words.number(report['n'])} test samples. In brackets: one-sided bounds of 95%.",
        "## Verdict",
        *_verdict(report),
        "## Limits",
        "\n".join(f"- {markdown(one)}" for one in report["limits"]),
        "## Networks side by side",
        _networks(report),
        "## Who was hurt",
        _hurt(report),
        *_explanations(report),
    ]
    if changes := facts.get("changes"):
        rows = [[one.get(key) for key in ("what", "protocol", "impact")] for one in changes]
        sections += ["## Change log", _table(["what", "by which protocol", "with which impact"], rows)]
    return "\n\n".join(sections)


def _verdict(report: Mapping[str, Any]) -> list[str]:
    verdict = report["verdict"]
    found = [f"**{words.OUTCOMES[verdict['outcome']]}.** {words.SENTENCES[verdict['outcome']]}"]
    if verdict["stated"]:
        found.append(words.BEFORE if verdict["stated"] == "before" else f"**{words.AFTERWARDS}**")
    rows = [
        [
            words.requirement(line),
            words.OUTCOMES[line["outcome"]].lower(),
            line["reason"] or words.interval(line),
            line["n"] or None,
            words.deciding(line) or None,
        ]
        for line in verdict["lines"]
    ]
    return found + ([_table(["requirement", "outcome", "value", "n", "to decide"], rows)] if rows else [])


def _networks(report: Mapping[str, Any]) -> str:
    rows = []
    for title, cells in measures(report):
        decimals = words.decimals(cells)
        rows.append([title, *(words.interval(one, decimals) for one in cells)])
    return _table(["measure", *(one["name"] for one in report["networks"])], rows)


def _hurt(report: Mapping[str, Any]) -> str:
    hurt = report["hurt"]
    found = f"None of {hurt['tested']} classes and groups is surely hurt."
    if hurt["named"]:
        rows = [[one["kind"], one["name"], words.interval(one["loss"]), one["n"]] for one in hurt["named"]]
        margin = f" by more than {words.number(hurt['margin'])}" if hurt["margin"] else ""
        found = f"**{len(rows)} of {hurt['tested']} classes and groups are surely hurt{margin}** ({hurt['of']}):"
        found += f"\n\n{_table(['kind', 'name', 'loss', 'n'], rows)}"
    if hurt["shortcuts"]:
        rows = [
            [one["name"], words.interval(one["gain"]), words.interval(one["similarity"]), one["n"]]
            for one in hurt["shortcuts"]
        ]
        found += "\n\n**A shortcut?** Groups that improved more than the rest while their explanations changed more:"
        found += f"\n\n{_table(['group', 'improved more by', 'similarity above the rest', 'n'], rows)}"
    return found


def _explanations(report: Mapping[str, Any]) -> list[str]:
    found = [
        f"{markdown(row['name'])}: {markdown(row['paragraph'])}"
        for one in report["explainers"]
        for row in one["networks"]
    ]
    both = [markdown(one["faithful"]["reading"]) for one in report["explainers"] if one["faithful"]]
    found += [*filter(None, both), *([LIMIT] if any(both) else [])]
    return ["## Explanations", *found] if found else []


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[one if one == "---" else markdown(one) for one in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
