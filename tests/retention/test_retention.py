"""Retention and its paragraph."""

import json

import pytest
import torch
from torch import nn

from lit_xai.retention.explainer import Explainer
from lit_xai.retention.intervals import Interval
from lit_xai.retention.reference import ReferenceExplanations
from lit_xai.retention.retention import (
    LIMIT,
    References,
    Retention,
    describe_retention,
    measure_references,
    measure_retention,
    rounding_level,
    summarize,
)


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


X = torch.randn(100, 30, generator=torch.Generator().manual_seed(0))


def test_the_reference_itself_has_one_and_another_network_none():
    same = measure_retention(small(), small(), X, nulls=4, ladder=(8, 3))
    assert same.retention == pytest.approx(1, abs=1e-6)
    assert same.interval == pytest.approx((1, 1), abs=1e-6)
    assert same.agreement == 1
    assert same.disagreeing is None
    assert same.references["8 bits"] > same.references["3 bits"]
    other = measure_retention(small(), small(1), X, nulls=4, ladder=())
    assert abs(other.retention) < 0.15
    assert other.null.band.low < other.similarity < other.null.band.high
    assert 0 < other.agreement < 1
    assert other.agreeing is not None


def test_it_is_the_retention_of_the_means():
    similarity, null = torch.rand(100).double(), 0.3 * torch.rand(5, 100).double()
    found = summarize("IG", similarity, References(null))
    s, s0 = float(similarity.mean()), float(null.mean())
    assert found.retention == pytest.approx((s - s0) / (1 - s0))
    assert found.interval.low < found.retention < found.interval.high
    json.dumps(found.to_dict())


def test_where_an_untrained_network_may_be_alike_the_similarity_stands_alone():
    null = 0.6 + 0.1 * torch.rand(5, 100).double()
    found = summarize("IG", torch.full((100,), 0.8).double(), References(null))
    assert found.retention is None
    assert found.interval is None
    assert "resembles the reference's with 0.80" in str(found)
    assert "This is the similarity itself, as an untrained network may be as similar." in str(found)
    alone = summarize("IG", torch.full((100,), 0.8).double(), References(torch.empty(0, 100)))
    assert alone.retention is None
    assert "no untrained network" in str(alone)


def test_few_samples_have_no_interval():
    found = measure_retention(small(), small(), X[:20], nulls=3, ladder=())
    assert found.interval is None
    assert "Fewer than 30 samples give no interval." in str(found)


def test_references_of_ones_own():
    reference = ReferenceExplanations(small(), X, Explainer())
    steps = []
    found = measure_references(reference, 2, (8, 4), {"another seed": small(1)}, lambda: steps.append(1))
    assert list(found.others) == [
        "another sample of the same class",
        "the input itself",
        "8 bits",
        "4 bits",
        "another seed",
    ]
    assert len(steps) == 5
    assert found.null.shape == (2, 100)


def test_the_paragraph():
    lines = {"another sample of the same class": 0.47, "4 bits": 0.93, "3 bits": 0.82}
    from lit_xai.retention.retention import Null

    null = Null(10, 0.0, Interval(-0.04, 0.04))
    found = Retention(
        "IntegratedGradients", 256, 0.48, None, null, 0.48, Interval(0.46, 0.50), agreement=0.93, references=lines
    )
    assert describe_retention(found, "validation images", "the dense model's") == (
        "IntegratedGradients on 256 validation images resembles the dense model's with 0.48 [0.46, 0.50]. An untrained"
        " network: 0.00 ± 0.04; another sample of the same class: 0.47; this network at 4 bits: 0.93; this network at 3"
        f" bits: 0.82. Predictions agree on 93%. {LIMIT}"
    )
    assert rounding_level(found) == "more than rounding to 3 bits"


@pytest.mark.parametrize(
    ("value", "words"), [(0.95, "about as much as rounding to 4 bits"), (0.5, "more than rounding to 3 bits")]
)
def test_the_ladder_in_words(value, words):
    lines = {"8 bits": 0.99, "4 bits": 0.93, "3 bits": 0.82}
    assert rounding_level(Retention("IG", 256, value, None, None, value, None, references=lines)) == words
    assert rounding_level(Retention("IG", 256, value, None, None, value, None)) is None
