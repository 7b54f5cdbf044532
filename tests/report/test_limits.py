"""A reference that was hardly trained makes a margin for a loss mean nothing: the limits say so."""

import numpy as np
import pytest

from lit_xai.report.limits import gain_of_training, limits_of
from lit_xai.report.record import Candidate, Record


def record(right_before, right_after, n=400, task="classes"):
    labels = np.zeros(n, dtype=np.int64)
    if task == "values":
        outputs = [np.where(np.arange(n) < right * n, 0.0, 1.0)[:, None] for right in (right_before, right_after)]
        return Record((Candidate("dense", outputs[0]), Candidate("pruned", outputs[1])), task, labels=labels * 1.0)
    shares = (right_before, right_after)
    outputs = [np.eye(2)[(np.arange(n) >= right * n).astype(int)] for right in shares]
    return Record((Candidate("dense", outputs[0]), Candidate("pruned", outputs[1])), task, labels=labels)


@pytest.mark.parametrize("task", ["classes", "values"])
def test_a_surely_better_candidate_is_named_first_with_both_numbers(task):
    one = record(0.76, 0.91, task=task)
    (first, *_) = limits_of(one, {}, 0)
    assert first == gain_of_training(one)
    assert "pruned is surely better than dense" in first
    assert ("91.0% against 76.0%" if task == "classes" else "0.09 against 0.24") in first


@pytest.mark.parametrize("task", ["classes", "values"])
@pytest.mark.parametrize(("before", "after"), [(0.91, 0.91), (0.91, 0.76), (0.9, 0.9025)])
def test_what_is_not_surely_better_is_not_named(before, after, task):
    assert gain_of_training(record(before, after, task=task)) == ""


def test_a_gain_below_the_margin_is_no_warning():
    assert gain_of_training(record(0.76, 0.91), 0.05)
    assert gain_of_training(record(0.90, 0.94), 0.0)
    assert gain_of_training(record(0.90, 0.94), 0.05) == ""


def test_without_labels_nothing_is_known():
    one = record(0.76, 0.91)
    assert gain_of_training(Record(one.networks, "classes")) == ""


@pytest.mark.parametrize(("answers_both", "is_told"), [(False, True), (True, False)])
def test_a_network_no_better_than_one_answer_is_told_of(answers_both, is_told):
    labels = (np.arange(400) >= 300).astype(np.int64)
    outputs = np.eye(2)[labels if answers_both else np.zeros_like(labels)]
    networks = Candidate("dense", outputs), Candidate("pruned", outputs)
    told = "pruned is right for 75.0% of the samples, and always answering low would be for 75.0%"
    limits = limits_of(Record(networks, "classes", labels=labels, class_names=("low", "high")), {}, 0)
    assert any(one.startswith(told) for one in limits) == is_told
