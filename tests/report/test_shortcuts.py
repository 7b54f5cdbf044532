"""Tests of groups that got better for a reason of their own."""

import numpy as np
import pytest

from lit_xai.report.page import page
from lit_xai.report.record import Candidate, Explained, Record
from lit_xai.report.shortcuts import shortcut_rows
from lit_xai.report.summary import summary

N = 800


def made(gain, change, rng, clusters=None, group=None):
    """Return a record in which a quarter of the samples, a group, gains and whose explanations change."""
    group = np.arange(N) % 4 == 0 if group is None else group
    was = rng.random(N) < 0.8
    flipped = rng.random(N) < 0.03
    now = (was ^ (flipped & (rng.random(N) < 0.5))) | (group & (rng.random(N) < gain))
    similarity = np.clip(rng.normal(0.9, 0.05, 256) - change * group[:256], -1, 1)
    return Record(
        (Candidate("dense", np.eye(2)[was.astype(int)]), Candidate("now", np.eye(2)[now.astype(int)])),
        "classes",
        np.ones(N, dtype=int),
        group.astype(int),
        clusters,
        (Explained("IntegratedGradients", np.arange(256), {"now": similarity}, rng.normal(0, 0.05, (5, 256))),),
        ("rest", "marked"),
    )


@pytest.mark.parametrize(("gain", "change", "expected"), [(0.5, 0.1, ["marked"]), (0.5, 0, []), (0, 0.1, [])])
def test_a_group_is_named_if_both_signs_are_sure(gain, change, expected):
    one = made(gain, change, np.random.default_rng(0))
    assert [row["name"] for row in shortcut_rows(one)] == expected
    numbers = summary(one)
    assert [row["name"] for row in numbers["hurt"]["shortcuts"]] == expected
    text = page(one, numbers)
    first_screen = text[: text.index('<h2 id="limits"')]
    assert ("A shortcut?" in first_screen and ">marked<" in first_screen) == bool(expected)


def test_the_numbers_are_differences_from_the_rest():
    one = made(0.5, 0.1, np.random.default_rng(0))
    (row,) = shortcut_rows(one)
    right = np.stack([each.outputs[:, 1] for each in one.networks])
    own = one.groups == 1
    gains = right[1] - right[0]
    assert row["gain"]["value"] == pytest.approx(gains[own].mean() - gains[~own].mean())
    similarity = one.explained[0].similarity["now"]
    assert row["similarity"]["value"] == pytest.approx(similarity[own[:256]].mean() - similarity[~own[:256]].mean())


def test_of_equal_networks_few_reports_name_anything():
    rng = np.random.default_rng(0)
    named = [bool(shortcut_rows(made(0, 0, rng, group=rng.random(N) < 0.25))) for _ in range(200)]
    assert sum(named) <= 10


def test_a_sign_alone_names_at_most_one_of_twenty():
    # Explanations change more under any compression where samples are harder: the other sign holds the level.
    rng = np.random.default_rng(1)
    assert sum(bool(shortcut_rows(made(0, 0.3, rng))) for _ in range(200)) <= 16


def test_samples_of_one_patient_count_as_one():
    rng = np.random.default_rng(0)
    one = made(0.2, 0.1, rng)
    assert shortcut_rows(one)
    # All samples that the group gained are of two patients.
    gained = one.networks[1].outputs[:, 1] > one.networks[0].outputs[:, 1]
    clusters = np.where(gained & (one.groups == 1), np.arange(N) // 4 % 2, np.arange(N) + 2)
    assert not shortcut_rows(Record(one.networks, one.task, one.labels, one.groups, clusters, one.explained))


def test_small_groups_and_what_is_missing_name_nothing():
    rng = np.random.default_rng(0)
    group = np.arange(N) < 20
    assert shortcut_rows(made(1.0, 0.5, rng, group=group)) == []
    one = made(0.5, 0.1, rng)
    assert shortcut_rows(Record(one.networks, one.task, None, one.groups, None, one.explained)) == []
    assert shortcut_rows(Record(one.networks, one.task, one.labels, one.groups)) == []
