import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import FACTS, NASTY, record
from torchmetrics.functional.classification import multiclass_accuracy

from lit_xai.report.measured import evidence_of
from lit_xai.report.record import Candidate, Record
from lit_xai.report.summary import plain, summary
from lit_xai.report.verdict import judge
from lit_xai.retention.predictions import compare_predictions
from lit_xai.retention.requirements import read_requirements

CASES = {
    "full": {"facts": FACTS},
    "two": {"classes": 2},
    "binary": {"task": "binary", "classes": 2},
    "values": {"task": "values"},
    "values without labels": {"task": "values", "labels": False},
    "without labels": {"labels": False},
    "bare": {"labels": False, "groups": False, "explained": False, "latency": False, "costs": False, "n": 3},
    "one sample": {"n": 1, "explained": False},
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_plain_and_the_same_each_time(case):
    arguments = dict(CASES[case])
    facts = arguments.pop("facts", {})
    first, again = (summary(record(**arguments, **facts)) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(again, allow_nan=False)
    assert len(first["networks"]) == 3
    assert first["limits"]


def test_the_verdict_is_that_of_the_requirements():
    one = record(**FACTS)
    required = read_requirements(FACTS["requirements"])
    found, expected = summary(one)["verdict"], judge(required, evidence_of(one, required))
    assert found["outcome"] == expected.outcome
    assert [line["outcome"] for line in found["lines"]] == [line.outcome for line in expected.lines]
    assert [line["high"] for line in found["lines"]] == pytest.approx([line.high for line in expected.lines], rel=1e-5)


def test_the_numbers_of_the_table_are_those_of_the_verdict():
    found = summary(record(**FACTS))
    lines, last = {line["name"]: line for line in found["verdict"]["lines"]}, found["networks"][-1]
    for name, row in (("flips", last["changes"]["flips"]), ("accuracy", last["changes"]["loss"])):
        assert [row[key] for key in ("value", "low", "high")] == [lines[name][key] for key in ("value", "low", "high")]
    retention = found["explainers"][0]["networks"][-1]["retention"]
    assert [retention[key] for key in ("value", "low")] == [lines["retention"][key] for key in ("value", "low")]


def test_other_libraries_and_functions_agree():
    one = record()
    rows = summary(one)["networks"]
    labels = torch.from_numpy(one.labels)
    changes = compare_predictions(
        torch.from_numpy(one.reference.outputs), torch.from_numpy(one.candidate.outputs), labels
    )
    accuracy = multiclass_accuracy(torch.from_numpy(one.candidate.outputs), labels, 3, average="micro")
    assert rows[-1]["metric"]["value"] == pytest.approx(float(accuracy), rel=1e-5)
    assert rows[-1]["changes"]["negative_flips"]["value"] == pytest.approx(changes.negative_flips.value, rel=1e-5)
    assert rows[-1]["changes"]["kl"]["value"] == pytest.approx(changes.kl.value, rel=1e-5)
    assert rows[-1]["calibration"]["brier"]["value"] == pytest.approx(changes.brier.candidate, rel=1e-5)
    assert rows[0]["calibration"]["nll"]["value"] == pytest.approx(changes.nll.reference, rel=1e-5)
    assert rows[0]["calibration"]["ece"] == pytest.approx(changes.ece_reference, rel=1e-5)


@pytest.mark.parametrize("task", ["classes", "binary"])
def test_parts_add_up_to_the_whole(task):
    found = summary(record(task=task, classes=2))
    for kind in ("classes", "groups"):
        assert sum(row["n"] for row in found[kind]) == found["n"]
        for key in ("flips", "negative_flips", "loss"):
            whole = found["networks"][-1]["changes"][key]["value"] * found["n"]
            assert sum(row[key]["value"] * row["n"] for row in found[kind]) == pytest.approx(whole, abs=1e-2)
    assert NASTY in {row["name"] for row in found["groups"]}


def test_nothing_required_is_no_verdict():
    assert summary(record())["verdict"] == {"outcome": None, "stated": None, "reading": None, "lines": []}


def test_requirements_without_a_date_were_stated_afterwards():
    found = summary(record(requirements={"accuracy": "drop<=0.1"}))
    assert found["verdict"]["stated"] == "afterwards"
    assert any("stated after the run" in one for one in found["limits"])


def test_a_wide_null_leaves_the_similarity_alone():
    one = record()
    rng = np.random.default_rng(0)
    wide = type(one.explained[0])(
        "Saliency",
        one.explained[0].samples,
        one.explained[0].similarity,
        np.repeat(rng.normal(0.4, 0.2, (5, 1)), 128, 1),
    )
    found = summary(Record(one.networks, one.task, one.labels, explained=(wide,)))["explainers"][0]
    assert not found["speaks"]
    assert found["networks"][0]["retention"] is None
    assert "the similarity itself" in found["networks"][0]["paragraph"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"title": 3}, "The 'title' of facts"),
        ({"stated": "later"}, "The 'stated' of facts"),
        ({"data": {"splits": [{"n": "many"}]}}, r"'n'\] of facts in facts.json expected type int, but got 'many'"),
        ({"pictures": [{"png": "<svg onload=alert(1)>"}]}, "facts.pictures.0.png expected a PNG"),
        ({"requirements": {"accuracy": "very good"}}, "expected a requirement"),
    ],
)
def test_a_fact_of_another_kind_is_refused_in_a_sentence(facts, words):
    with pytest.raises(ValueError, match=words) as error:
        summary(record(n=20, explained=False, **facts))
    assert "\n" not in str(error.value)


@settings(max_examples=30, deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_have_six_digits_or_are_null(value):
    found = plain(value)
    assert found is None if not math.isfinite(value) else math.isclose(found, value, rel_tol=1e-5, abs_tol=1e-320)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.booleans(), st.booleans(), st.integers(0, 99))
def test_any_small_record_has_a_summary(n, classes, has_labels, has_groups, seed):
    rng = np.random.default_rng(seed)
    networks = [Candidate(name, rng.normal(size=(n, classes))) for name in "ab"]
    labels = rng.integers(classes, size=n) if has_labels else None
    groups = rng.integers(2, size=n) if has_groups else None
    clusters = rng.integers(3, size=n) if seed % 2 else None
    found = summary(Record(tuple(networks), "classes", labels, groups, clusters))
    json.dumps(found, allow_nan=False)
    for row in found["classes"] + found["groups"]:
        assert row["loss"]["low"] is None or row["loss"]["low"] <= row["loss"]["value"] <= row["loss"]["high"]
