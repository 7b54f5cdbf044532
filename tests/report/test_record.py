"""Tests of records: saved and loaded they are the same, and damaged ones are refused in one sentence."""

import json

import numpy as np
import pytest

from lit_xai.report.record import ARRAYS, FACTS, Candidate, Explained, Record


def record(n=40, classes=3, **changes):
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 3 * np.eye(classes)[labels]
    networks = (
        Candidate("dense", logits, {"size kB": 100.0}, rng.uniform(1, 2, 21)),
        Candidate("int8", logits + 0.1 * rng.normal(size=(n, classes)), {"size kB": 25.0}, rng.uniform(0.2, 0.3, 21)),
    )
    explained = Explained(
        "Occlusion", np.arange(n), {"int8": rng.uniform(0.8, 1, n)}, rng.normal(0, 0.1, (10, n)), {"steps": 16}
    )
    given = {
        "labels": labels,
        "groups": np.arange(n) % 2,
        "clusters": np.arange(n) // 2,
        "explained": (explained,),
        "group_names": ("a", "b"),
        "class_names": ("x", "y", "z"),
        "facts": {"title": "A", "requirements": {"accuracy": "drop<=0.01"}},
    }
    return Record(networks, "classes", **{**given, **changes})


def test_saved_and_loaded_it_is_the_same(tmp_path):
    one = record()
    one.save(tmp_path)
    other = Record.load(tmp_path)
    for first, second in zip(one.networks, other.networks, strict=True):
        assert (first.name, first.costs) == (second.name, second.costs)
        np.testing.assert_array_equal(first.outputs, second.outputs)
        np.testing.assert_array_equal(first.latency, second.latency)
    np.testing.assert_array_equal(one.explained[0].similarity["int8"], other.explained[0].similarity["int8"])
    np.testing.assert_array_equal(one.explained[0].null, other.explained[0].null)
    for name in ("labels", "groups", "clusters"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.facts, one.class_names, one.group_names) == (other.facts, other.class_names, other.group_names)


def test_of_a_record_without_anything_else(tmp_path):
    one = record(labels=None, groups=None, clusters=None, explained=(), facts={})
    one.save(tmp_path)
    assert Record.load(tmp_path).labels is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: facts.pop("task"),
        lambda facts: facts.update(task="colours"),
        lambda facts: facts.update(networks=facts["networks"][:1]),
        lambda facts: facts["arrays"].remove("outputs/1"),
        lambda facts: facts["networks"].append({"name": "x", "costs": {}}),
        lambda facts: facts.update(networks="dense"),
    ],
)
def test_damaged_facts_are_one_sentence(tmp_path, damage):
    record().save(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    damage(facts)
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        Record.load(tmp_path)


@pytest.mark.parametrize("cut", [0, 10, -10])
@pytest.mark.parametrize("name", [ARRAYS, FACTS])
def test_cut_files_are_one_sentence(tmp_path, cut, name):
    record().save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        Record.load(tmp_path)
