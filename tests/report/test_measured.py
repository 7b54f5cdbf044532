"""Tests of what a record says of requirements, against torch, torchmetrics and plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from report.test_record import record
from torchmetrics.functional import mean_absolute_error

from lit_xai.report.evidence import Mean, MedianRatio, Share, ShareDrop
from lit_xai.report.measured import MEASURED, evidence_of
from lit_xai.report.record import Candidate, Record
from lit_xai.report.verdict import Exact, judge, quantity
from lit_xai.retention.requirements import Requirement

RELATIONS = ("drop<=", "rise<=", "ratio<=", ">=", "<=")


def evidence(one, name, text):
    relation = next(each for each in RELATIONS if text.startswith(each))
    requirement = Requirement(name, relation, float(text.removeprefix(relation).split()[0]))
    return evidence_of(one, [requirement])[quantity(requirement)]


def test_counts_of_predictions():
    one = record(200, clusters=None)
    was, now = (network.outputs.argmax(1) for network in one.networks)
    lost, gained = (sum((was == one.labels) & (now != one.labels)), sum((was != one.labels) & (now == one.labels)))
    assert evidence(one, "accuracy", "drop<=0.01") == ShareDrop(lost, gained, 200)
    assert evidence(one, "accuracy", ">=0.8") == Share(sum(now == one.labels), 200)
    assert evidence(one, "flips", "<=0.02") == Share(sum(was != now), 200)
    assert evidence(one, "negative_flips", "<=0.02") == Share(lost, 200)


def test_means_of_losses():
    one = record(200, clusters=None)
    first, last = (torch.from_numpy(network.outputs) for network in one.networks)
    labels = torch.from_numpy(one.labels)
    loss = [torch.nn.functional.cross_entropy(part, labels).item() for part in (first, last)]
    assert evidence(one, "nll", "<=1").value == pytest.approx(loss[1])
    assert evidence(one, "nll", "ratio<=1.1").value == pytest.approx(loss[1] / loss[0])
    truth = torch.nn.functional.one_hot(labels, 3)
    assert evidence(one, "brier", "<=1").value == pytest.approx(float((last.softmax(1) - truth).square().sum(1).mean()))


def test_a_single_logit_is_that_of_class_1():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(100, 1)), rng.integers(2, size=100)
    one = Record((Candidate("a", logits), Candidate("b", 2 * logits)), "binary", labels)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(2 * logits[:, 0]), torch.from_numpy(labels).double()
    )
    assert evidence(one, "nll", "<=1").value == pytest.approx(float(loss))
    assert evidence(one, "flips", "<=1").count == 0


def test_errors_of_values():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 2))
    networks = Candidate("a", truth + 0.1), Candidate("b", truth + rng.normal(size=(60, 2)))
    one = Record(networks, "values", truth)
    expected = mean_absolute_error(torch.from_numpy(networks[1].outputs), torch.from_numpy(truth))
    assert evidence(one, "mae", "<=1").value == pytest.approx(float(expected))
    assert isinstance(evidence(one, "mse", "ratio<=2"), Mean)
    assert evidence(one, "accuracy", ">=0.5") == "it is not defined for values"


def test_clusters_are_counted():
    assert evidence(record(200), "accuracy", "drop<=0.01").n == 100


def test_costs_and_latency():
    one = record()
    assert evidence(one, "size", "ratio<=0.3") == Exact(0.25)
    assert evidence(one, "size", "<=30 kB") == Exact(25.0)
    found = evidence(one, "latency", "ratio<=0.3")
    assert isinstance(found, MedianRatio)
    assert found.value == pytest.approx(np.median(one.candidate.latency / one.reference.latency))
    assert evidence(one, "latency", "<=1 ms").value == pytest.approx(np.median(one.candidate.latency))


def test_explanations():
    one = record(clusters=None)
    similar, null = one.explained[0].similarity["int8"], one.explained[0].null
    expected = (similar.mean() - null.mean()) / (1 - null.mean())
    assert evidence(one, "retention", ">=0.4").value == pytest.approx(expected)
    assert evidence(one, "similarity", ">=0.4").value == pytest.approx(similar.mean())


@pytest.mark.parametrize(
    ("name", "text", "changes", "reason"),
    [
        ("accuracy", ">=0.5", {"labels": None}, "there are no labels"),
        ("retention", ">=0.5", {"explained": ()}, "no explanations were compared"),
        ("retention", "ratio<=0.5", {}, "retention is 1 for the reference by definition"),
        ("macs", "ratio<=0.5", {}, "the MACs was not measured"),
        ("acuracy", ">=0.5", {}, "nothing is measured by the name 'acuracy'"),
        ("mae", "<=1", {}, "it is not defined for classes"),
    ],
)
def test_what_is_not_known_says_why(name, text, changes, reason):
    found = evidence(record(**changes), name, text)
    assert isinstance(found, str)
    assert reason in found


def test_every_name_is_answered():
    for name in MEASURED:
        for relation in (">=0.5", "<=0.5", "ratio<=0.5"):
            assert evidence(record(), name, relation) is not None


def wrecked(task):
    """A record of a good network and of one that has lost everything there is to lose."""
    n = 200
    labels = np.arange(n) % 3
    good, bad = np.eye(3)[labels] * 5, np.eye(3)[(labels + 1) % 3] * 5
    if task == "values":
        labels = labels[:, None] * 1.0
        good, bad = labels + 0.01 * np.arange(n)[:, None] / n, labels + 100
    costs = {"size kB": 10.0, "MACs": 10.0, "parameters": 10.0}, {"size kB": 1e4, "MACs": 1e4, "parameters": 1e4}
    explained = record().explained[0]
    unlike = {name: np.full(n, -1.0) for name in explained.similarity}
    one = replace(explained, similarity={"pruned": unlike["int8"]}, null=np.zeros((10, n)))
    networks = (Candidate("dense", good, costs[0], np.ones(9)), Candidate("pruned", bad, costs[1], np.full(9, 1e3)))
    return Record(networks, task, labels=labels, explained=(one,))


@pytest.mark.parametrize("task", ["classes", "values"])
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", MEASURED)
def test_whatever_is_accepted_is_not_passed_by_a_wrecked_network(name, relation, task):
    bound = {"drop<=": 0.05, "rise<=": 0.05, "ratio<=": 1.05, ">=": 0.1, "<=": 0.4}[relation]
    try:
        requirement = Requirement.read(name, f"{relation}{bound}")
    except ValueError as error:
        assert "X, as " in str(error)  # noqa: PT017  # says what to write, and why
        return
    assert judge([requirement], evidence_of(wrecked(task), [requirement])).outcome != "passed"
