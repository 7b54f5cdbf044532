import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_xai.report.evidence import ShareDrop
from lit_xai.report.hurt import exact_drop, margin_of, parts_of, surely_hurt
from lit_xai.report.record import Candidate, Record
from lit_xai.report.summary import summary
from lit_xai.retention.requirements import Requirement


def paired(lost, gained, kept, n, groups=None, clusters=None):
    """Return a record of two networks of which so many samples are right before and wrong now, and so on."""
    before = np.repeat([1, 0, 1, 0], [lost, gained, kept, n - lost - gained - kept])
    now = np.repeat([0, 1, 1, 0], [lost, gained, kept, n - lost - gained - kept])
    return Record(
        (Candidate("dense", np.eye(2)[1 - before]), Candidate("now", np.eye(2)[1 - now])),
        "classes",
        np.zeros(n, int),
        groups,
        clusters,
        group_names=("left", "right"),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 6), st.sampled_from([0.0, 0.01, 0.05, 0.3]))
def test_the_exact_tail_is_that_of_all_outcomes(lost, gained, more, margin):
    n = lost + gained + more
    b = -lost - gained + (2 * n - lost + gained) * margin
    q = (math.sqrt(b * b + 8 * n * gained * margin * (1 - margin)) - b) / (4 * n)
    q = min(q, (1 - margin) / 2)
    total = 0.0
    for first, second in itertools.product(range(n + 1), repeat=2):
        if first + second <= n and first - second >= lost - gained:
            ways = math.comb(n, first) * math.comb(n - first, second)
            total += ways * (q + margin) ** first * q**second * (1 - 2 * q - margin) ** (n - first - second)
    assert exact_drop(lost, gained, n, margin) == pytest.approx(total if lost > gained else 1.0, abs=1e-9)


@pytest.mark.parametrize(("n", "margin", "gained"), [(30, 0.0, 0.03), (100, 0.01, 0.01), (100, 0.02, 0.01)])
def test_at_the_margin_at_most_one_of_twenty_is_named(n, margin, gained):
    # Exactly, over all outcomes: the score alone names up to 6.6%.
    found = 0.0
    p, q = gained + margin, gained
    for lost, won in itertools.product(range(20), range(12)):
        ways = math.comb(n, lost) * math.comb(n - lost, won)
        chance = ways * p**lost * q**won * (1 - p - q) ** (n - lost - won)
        if chance > 1e-9 and ShareDrop(lost, won, n).above(margin) <= 0.05:
            found += chance * (exact_drop(lost, won, n, margin) <= 0.05)
    assert found <= 0.05


def test_a_group_is_named_although_the_whole_passes():
    groups = np.r_[np.ones(30, int), np.zeros(970, int), np.ones(70, int)]
    one = paired(30, 0, 1000, 1070, groups)
    required = {"requirements": {"accuracy": "drop<=0.05"}, "stated": "before"}
    found = summary(Record(one.networks, one.task, one.labels, groups, group_names=one.group_names, facts=required))
    assert found["verdict"]["outcome"] == "passed"
    assert [(row["kind"], row["name"], row["n"]) for row in found["hurt"]["named"]] == [("group", "right", 100)]
    assert found["hurt"]["named"][0]["loss"]["value"] == 0.3


def test_over_many_equal_networks_few_reports_name_anybody():
    rng, named = np.random.default_rng(0), 0
    for _ in range(200):
        labels, groups = rng.integers(10, size=1000), rng.integers(5, size=1000)
        # Two networks as good as each other: 4% of the samples change, either way with the same chance.
        right = rng.random(1000) < 0.9
        changed = rng.random(1000) < 0.04
        other = np.where(changed, rng.random(1000) < 0.5, right)
        right = np.where(changed, rng.random(1000) < 0.5, right)
        outputs = [np.eye(10)[np.where(one, labels, (labels + 1) % 10)] for one in (right, other)]
        one = Record((Candidate("a", outputs[0]), Candidate("b", outputs[1])), "classes", labels, groups)
        named += any(surely_hurt(one, parts_of(one), 0.0))
    assert named <= 10


def test_clusters_count_as_one():
    # Thirty lost samples and twelve gained ones are a loss, unless those that are lost are of two patients.
    everyone = paired(30, 12, 958, 1000)
    patients = paired(30, 12, 958, 1000, clusters=np.r_[np.repeat([0, 1], 15), np.arange(970) % 60 + 2])
    assert surely_hurt(everyone, parts_of(everyone), 0.0) == [True]
    assert surely_hurt(patients, parts_of(patients), 0.0) == [False]


def test_without_labels_changes_are_held_against_what_may_change():
    networks = (
        Candidate("dense", np.eye(2)[np.repeat([0, 1], 100)]),
        Candidate("now", np.eye(2)[np.repeat([0, 1], [150, 50])]),
    )
    one = Record(networks, "classes")
    assert margin_of(one, []) is None
    assert surely_hurt(one, parts_of(one), None) == [False, False]
    assert surely_hurt(one, parts_of(one), margin_of(one, [Requirement.read("flips", "<=0.3")])) == [False, True]


def test_values_are_held_against_the_errors_that_the_whole_may_have():
    rng = np.random.default_rng(0)
    truth, groups = rng.normal(size=(400, 1)), np.repeat([0, 1], 200)
    first = truth + rng.normal(0, 0.1, truth.shape)
    last = np.where(groups[:, None] == 1, truth + 2 * (first - truth), first)
    one = Record((Candidate("a", first), Candidate("b", last)), "values", truth, groups, group_names=("x", "y"))
    margin = margin_of(one, [Requirement.read("mae", "ratio<=1.5")])
    assert margin == pytest.approx(0.5 * np.abs(first - truth).mean())
    assert surely_hurt(one, parts_of(one), margin) == [False, True]
