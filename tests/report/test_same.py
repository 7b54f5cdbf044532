"""Tests of which runs may stand in one table."""

from dataclasses import replace

import numpy as np
import pytest
from reports import record

from lit_xai.report.record import Candidate
from lit_xai.report.same import SEEDS, check_same, has_same_reference, shared_notes


def small(seed=0, **changes):
    return record(n=40, explained=False, latency=False, costs=False, groups=False, seed=seed, **changes)


def hashed(text, **facts):
    split = {"name": "test", "n": 40, "hash": text}
    return small(data={"splits": [{"name": "train", "n": 40, "hash": "x"}, split]}, **facts)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (small(task="values"), "another task"),
        (record(n=41, explained=False, latency=False, costs=False), "another number of samples"),
        (hashed("b"), "other samples, by their hash"),
        (small(classes=4), "another number of outputs"),
        (replace(hashed("a"), class_names=("x", "y", "z")), "other classes"),
        (small(seed=1), "other labels"),
        (small(labels=False), "other labels"),
    ],
)
def test_what_is_no_answer_to_one_question_is_refused_in_a_sentence(other, difference):
    with pytest.raises(ValueError, match=rf"b has {difference},? .*than a: they cannot stand in one table\.\Z"):
        check_same({"a": hashed("a"), "b": other})


def test_one_run_is_no_comparison():
    with pytest.raises(ValueError, match="runs expected two or more"):
        check_same({"a": small()})


def test_a_reference_is_the_same_up_to_rounding():
    one = small()
    near = replace(one, networks=(Candidate("again", one.reference.outputs * (1 + 1e-6)), *one.networks[1:]))
    assert has_same_reference([one, near])
    assert not has_same_reference([one, small(seed=1)])


def test_the_reader_is_told_what_differs():
    one, other = hashed("a", requirements={"flips": "<=0.1"}, stated="before"), small(requirements={"flips": "<=0.2"})
    found = list(shared_notes({"a": one, "b": other}, False))
    assert found[0] == SEEDS
    said = " ".join(found)
    for part in ("different references", "different requirements", "afterwards for b", "No hash", "2 networks"):
        assert part in said
    assert len(list(shared_notes({"a": one, "b": one}, True))) == 2


def test_samples_are_the_same_whatever_other_splits_are_recorded():
    check_same({"a": hashed("a"), "b": replace(hashed("a"), labels=np.array(small().labels))})
