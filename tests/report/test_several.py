"""Tests of several runs on one page: the table, the front, and the files."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from reports import NASTY, record

from lit_xai.report.front import pareto_front
from lit_xai.report.record import Candidate
from lit_xai.report.several import compare_runs, comparison_page, comparison_table, write_comparison

BASE = record(n=300, costs=True)


def run(share, times, similarity=None, costs=None, base=BASE, **facts):
    """Return a run whose candidate answers otherwise for a share of the samples, and takes so many times as long."""
    rng = np.random.default_rng(0)
    moved = rng.random(base.n) < share
    outputs = np.where(moved[:, None], np.roll(base.reference.outputs, 1, 0), base.reference.outputs)
    latency = None if times is None else base.reference.latency * times
    one = Candidate("now", outputs, {"size kB": 10.0} if costs is None else costs, latency)
    first = base.explained[0]
    explained = ()
    if similarity is not None:
        explained = (replace(first, similarity={"now": np.full(len(first.samples), similarity)}),)
    return replace(base, networks=(base.reference, one), explained=explained, facts=facts)


@pytest.fixture(scope="module")
def runs():
    return {
        "fast": run(0.05, 0.2, 0.6),
        f"worse, {NASTY}": run(0.2, 0.3, 0.5, requirements={"accuracy": "drop<=0.01"}),
        "alike": run(0.01, 0.7, 0.9, requirements={"latency": "ratio<=0.9"}),
    }


@pytest.fixture(scope="module")
def numbers(runs):
    return compare_runs(runs)


def test_the_front_is_of_metric_latency_and_retention(numbers):
    assert [row["name"] for row in numbers["rows"] if row["on_front"]] == ["reference", "fast", "alike"]
    values = [[row[key]["value"] for key in ("metric", "cost", "retention")] for row in numbers["rows"]]
    assert pareto_front(values, ["maximize", "minimize", "maximize"]) == [row["on_front"] for row in numbers["rows"]]
    assert [row["verdict"] for row in numbers["rows"]] == [None, None, "failed", "passed"]
    assert numbers["rows"][1]["cost"]["value"] == pytest.approx(0.2)


def test_every_number_of_the_table_is_that_of_the_run(runs, numbers):
    lines = list(csv.DictReader(io.StringIO(comparison_table(numbers))))
    assert [line["name"] for line in lines] == ["reference", *runs]
    for line, one in zip(lines[1:], runs.values(), strict=True):
        right = one.candidate.outputs.argmax(1) == one.labels
        assert float(line["metric"]) == pytest.approx(right.mean(), abs=1e-5)
        assert float(line["metric low"]) < float(line["metric"]) < float(line["metric high"])
        assert float(line["latency_ms"]) == pytest.approx(np.median(one.candidate.latency), rel=1e-5)


def test_no_cell_is_a_formula():
    one = {"name": "=1+1", "network": "@x", "hurt": ["-a"], "metric": None, "costs": {}}
    assert comparison_table({"rows": [one]}).splitlines()[1].startswith("'=1+1,'@x,'-a")


def test_the_page_says_the_front_and_that_seeds_are_not_covered(numbers):
    text = comparison_page(numbers)
    shown = re.sub(r"<svg.*?</svg>|<[^>]*>", "", text, flags=re.DOTALL)
    assert "3 of 4 networks are on the Pareto front" in shown
    assert shown.index("not the training seed") < shown.index("surely hurt")
    assert NASTY not in text  # escaped
    assert "<script" not in text
    assert text.count("<svg") == 2
    assert comparison_page(json.loads(json.dumps(numbers))) == text


@pytest.mark.parametrize(
    ("others", "objectives"),
    [
        ({"a": run(0.1, None, 0.5), "b": run(0.2, 0.5, 0.4)}, ["metric", "cost", "retention"]),  # sizes
        ({"a": run(0.1, None, None), "b": run(0.2, 0.5, 0.4)}, ["metric", "cost"]),
        ({"a": run(0.1, None, 0.5, {}), "b": run(0.2, None, 0.4)}, ["metric", "retention"]),
        ({"a": run(0.1, None, None, {}), "b": run(0.2, None, None, {})}, ["metric"]),
    ],
)
def test_what_a_run_lacks_is_left_out_of_the_front_and_said(others, objectives):
    found = compare_runs(others)
    assert [one["name"] for one in found["objectives"]] == objectives
    assert any("the front is without" in note for note in found["notes"]) == (len(objectives) < 3)
    assert comparison_page(found)
    assert comparison_table(found)


def test_another_reference_is_said_and_retention_left_out():
    other = record(n=300, labels=True, seed=0, change=0.3)
    other = replace(other, networks=other.networks[1:], labels=BASE.labels)
    found = compare_runs({"a": run(0.1, 0.5, 0.5), "b": run(0.1, 0.5, 0.5, base=other)})
    assert not found["same_reference"]
    assert [row["reference"] for row in found["rows"]] == ["dense", "pruned"]
    assert [one["name"] for one in found["objectives"]] == ["metric", "cost"]
    assert '<th scope="col">reference</th>' in comparison_page(found)


def test_values_are_better_the_lower_they_are():
    base = record(n=60, task="values", classes=2)
    found = compare_runs({name: run(share, 0.5, base=base) for name, share in (("a", 0.0), ("b", 0.5))})
    assert found["objectives"][0] == {"name": "metric", "direction": "minimize"}
    assert [row["on_front"] for row in found["rows"]] == [False, True, False]
    assert comparison_page(found)


def test_files_are_written_all_or_none(tmp_path, runs):
    write_comparison(runs, tmp_path / "a")
    write_comparison(runs, tmp_path / "b")
    assert sorted(one.name for one in (tmp_path / "a").iterdir()) == [
        "comparison.csv",
        "comparison.html",
        "comparison.json",
    ]
    for one in (tmp_path / "a").iterdir():
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()
    with pytest.raises(ValueError, match="cannot stand in one table"):
        write_comparison({"a": runs["fast"], "b": record(n=20)}, tmp_path / "c")
    assert not (tmp_path / "c").exists()
