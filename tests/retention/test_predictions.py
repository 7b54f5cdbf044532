"""Changed predictions: every figure by another library or by its formula in NumPy."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import accuracy_score, log_loss
from torchmetrics.functional import kl_divergence
from torchmetrics.functional.classification import multiclass_calibration_error

from lit_xai.retention.predictions import ECE_FROM, calibration_error, compare_predictions, mcnemar


def outputs(seed, n, classes, labels_below=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(labels_below or classes, size=n)
    reference = rng.standard_normal((n, classes)) + 1.5 * np.eye(classes)[labels]
    return reference, reference + rng.standard_normal((n, classes)), labels


@given(seed=st.integers(0, 9999), n=st.integers(2, 80), classes=st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_every_figure_of_classes(seed, n, classes):
    reference, candidate, labels = outputs(seed, n, classes)
    found = compare_predictions(*map(torch.from_numpy, (reference, candidate, labels)))
    was, now = reference.argmax(1), candidate.argmax(1)
    pairs = list(zip(was.tolist(), now.tolist(), labels.tolist(), strict=True))
    assert (found.n, found.task) == (n, "classes")
    assert found.flips.count == sum(a != b for a, b, _ in pairs)
    assert found.negative_flips.count == sum(a == y != b for a, b, y in pairs)
    assert found.positive_flips.count == sum(a != y == b for a, b, y in pairs)
    assert found.wrong_to_wrong.count == sum(len({a, b, y}) == 3 for a, b, y in pairs)
    parts = found.negative_flips.count + found.positive_flips.count + found.wrong_to_wrong.count
    assert found.flips.count == parts
    assert found.accuracy.reference == pytest.approx(accuracy_score(labels, was))
    assert found.accuracy.candidate == pytest.approx(accuracy_score(labels, now))
    first, second = special.softmax(reference, 1), special.softmax(candidate, 1)
    for paired, score in ((found.nll, _nll), (found.brier, _brier)):
        old, new = score(first, labels), score(second, labels)
        assert (paired.reference, paired.candidate) == pytest.approx((old.mean(), new.mean()))
        interval = stats.ttest_rel(new, old).confidence_interval(0.95)
        assert (paired.change.low, paired.change.high) == pytest.approx((interval.low, interval.high))
    assert found.nll.reference == pytest.approx(log_loss(labels, first, labels=range(classes)))
    assert found.kl.value == pytest.approx(float(kl_divergence(torch.tensor(first), torch.tensor(second))))
    drops = {y: ((was == y) & (labels == y)).sum() - ((now == y) & (labels == y)).sum() for y in set(labels.tolist())}
    shares = {y: drops[y] / (labels == y).sum() for y in drops}
    worst = found.worst_class
    assert worst.drop == pytest.approx(max(shares.values()))
    assert shares[worst.label] == pytest.approx(worst.drop)
    assert worst.n == (labels == worst.label).sum()
    assert worst.reference.value - worst.candidate.value == pytest.approx(worst.drop)
    assert (found.ece_reference, found.absolute_change, found.absolute_error) == (None, None, None)


def _nll(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels])


def _brier(probabilities, labels):
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)


@given(negative=st.integers(0, 40), positive=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_tail_of_a_fair_coin(negative, positive):
    flips, few = negative + positive, min(negative, positive)
    tail = 2 * sum(math.comb(flips, k) for k in range(few + 1)) / 2**flips
    assert mcnemar(negative, positive) == pytest.approx(min(1.0, tail))


@given(seed=st.integers(0, 9999), classes=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_calibration_error_is_torchmetrics(seed, classes):
    logits, _, labels = (torch.from_numpy(part) for part in outputs(seed, 700, classes))
    expected = float(multiclass_calibration_error(logits.softmax(1), labels, classes, n_bins=15))
    assert calibration_error(logits.log_softmax(1), labels) == pytest.approx(expected, abs=1e-6)


def test_calibration_errors_come_with_enough_samples():
    reference, candidate, labels = (torch.from_numpy(part) for part in outputs(0, ECE_FROM, 3))
    found = compare_predictions(reference, candidate, labels)
    assert found.ece_reference == calibration_error(reference.log_softmax(1), labels)
    assert found.ece_candidate == calibration_error(candidate.log_softmax(1), labels)
    fewer = compare_predictions(reference[1:], candidate[1:], labels[1:])
    assert (fewer.ece_reference, fewer.ece_candidate) == (None, None)
    saturated = torch.eye(3)[labels] * 1e4
    assert compare_predictions(saturated, saturated, labels).ece_reference == 0


@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_one_logit_is_that_of_class_one(column, dtype):
    reference, candidate, labels = outputs(3, 60, 2)
    reference, candidate = (torch.from_numpy(part[:, 1] - part[:, 0]) for part in (reference, candidate))
    two = [torch.stack([torch.zeros_like(part), part], 1) for part in (reference, candidate)]
    expected = compare_predictions(*two, torch.from_numpy(labels)).to_dict()
    shape = (-1, 1) if column else (-1,)
    given_labels = torch.from_numpy(labels).to(dtype).reshape(shape)
    found = compare_predictions(reference.reshape(shape), candidate.reshape(shape), given_labels).to_dict()
    assert found == expected | {"task": "binary"}
    unlabeled = compare_predictions(reference, candidate, task="binary")
    assert unlabeled.flips.count == expected["flips"]["count"]


def test_values_have_no_flips():
    rng = np.random.default_rng(0)
    reference, candidate, labels = rng.standard_normal((3, 50, 2))
    found = compare_predictions(*map(torch.from_numpy, (reference, candidate, labels)))
    assert found.task == "values"
    assert found.absolute_change.value == pytest.approx(np.abs(candidate - reference).mean())
    errors = [np.abs(part - labels).mean(1) for part in (candidate, reference)]
    interval = stats.ttest_rel(*errors).confidence_interval(0.95)
    assert (found.absolute_error.change.low, found.absolute_error.change.high) == pytest.approx(tuple(interval))
    defined = {name for name, value in found.to_dict().items() if value not in (None, {})}
    assert defined == {"n", "task", "absolute_change", "absolute_error"}
    one = compare_predictions(torch.from_numpy(reference[:, 0]), torch.from_numpy(candidate[:, 0]))
    assert one.absolute_change.value == pytest.approx(np.abs(candidate - reference)[:, 0].mean())
    assert one.absolute_error is None


def test_without_labels():
    reference, candidate, _ = (torch.from_numpy(part) for part in outputs(0, 40, 4))
    found = compare_predictions(reference, candidate)
    defined = {name for name, value in found.to_dict().items() if value not in (None, {})}
    assert defined == {"n", "task", "flips", "kl"}


@pytest.mark.parametrize("form", ["list", "tensor", "array", "words"])
def test_groups_are_the_same_for_their_samples(form):
    reference, candidate, labels = (torch.from_numpy(part) for part in outputs(1, 90, 3))
    numbers = [10, 2, 2] * 30
    groups = {"list": numbers, "tensor": torch.tensor(numbers), "array": np.array(numbers)}
    given_groups = groups.get(form, [f"hospital {number}" for number in numbers])
    found = compare_predictions(reference, candidate, labels, given_groups)
    names = ["hospital 10", "hospital 2"] if form == "words" else ["2", "10"]
    assert list(found.groups) == names
    for name, number in zip(names, (10, 2) if form == "words" else (2, 10), strict=True):
        rows = torch.tensor(numbers) == number
        assert found.groups[name] == compare_predictions(reference[rows], candidate[rows], labels[rows])
    assert sum(one.flips.count for one in found.groups.values()) == found.flips.count
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["groups"][names[0]]["nll"]["change"]["low"] < plain["groups"][names[0]]["nll"]["change"]["high"]


def test_a_group_of_one_sample_has_numbers_without_intervals():
    reference, candidate, labels = (torch.from_numpy(part) for part in outputs(1, 3, 3))
    one = compare_predictions(reference, candidate, labels, ["a", "b", "b"]).groups["a"]
    assert (one.n, one.flips.n, one.kl.low, one.nll.change.high) == (1, 1, None, None)
    assert json.dumps(one.to_dict(), allow_nan=False)


def test_the_same_predictions_have_not_changed():
    reference, _, labels = (torch.from_numpy(part) for part in outputs(1, 60, 3))
    found = compare_predictions(reference, reference.clone(), torch.nn.functional.one_hot(labels).float())
    assert (found.flips.count, found.mcnemar, found.worst_class.drop) == (0, 1.0, 0.0)
    assert found.kl.value == pytest.approx(0, abs=1e-12)
    assert found.accuracy.change.value == found.brier.change.value == found.nll.change.value == 0


LOGITS = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LOGITS, torch.zeros(4, 2)), r"candidate_logits expected the reference's shape \(4, 3\), but got \(4, 2\)"),
        ((LOGITS, torch.zeros(3, 3)), "candidate_logits expected the reference's shape"),
        ((torch.zeros(0, 3), torch.zeros(0, 3)), r"reference_logits expected \(N, classes\) or \(N,\) of one or more"),
        ((torch.zeros(4, 3, 8, 8), LOGITS), r"reference_logits expected \(N, classes\) or \(N,\) of one or more"),
        ((LOGITS, LOGITS / 0), "candidate_logits expected finite numbers, but got NaN or infinity for 4 of 4 samples"),
        ((LOGITS, LOGITS, torch.tensor([0, 1, 2, 3])), "labels expected classes from 0 to 2, but got 0 to 3"),
        ((LOGITS, LOGITS, torch.tensor([0, 1, 2, -100])), "labels expected classes from 0 to 2"),
        ((LOGITS, LOGITS, torch.tensor([0.5, 1, 2, 0])), "labels expected classes from 0 to 2"),
        ((LOGITS, LOGITS, torch.tensor([0, 1])), "labels expected one class for each of 4 samples, but got"),
        ((LOGITS, LOGITS, torch.ones(4, 3)), "labels expected one class for each of 4 samples, but got"),
        ((LOGITS[:, 0], LOGITS[:, 0], torch.rand(5)), r"labels expected values of shape \(4, 1\), but got"),
        ((LOGITS, LOGITS, None, ["a"]), "groups expected an integer or a string for each of 4 samples"),
        ((LOGITS, LOGITS, None, [0.5] * 4), "groups expected an integer or a string for each of 4 samples"),
    ],
)
def test_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare_predictions(*arguments)


@pytest.mark.parametrize(
    ("task", "logits", "message"),
    [
        ("class", LOGITS, "task expected one of classes, binary, values, but got 'class'. Did you mean 'classes'"),
        ("binary", LOGITS, "reference_logits expected one logit per sample for task='binary'"),
        ("classes", LOGITS[:, 0], "reference_logits expected two or more logits per sample for task='classes'"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(task, logits, message):
    with pytest.raises(ValueError, match=message):
        compare_predictions(logits, logits, task=task)
