"""Tests of verdicts: passed, failed and inconclusive lines, and what they make together."""

import numpy as np
import pytest

from lit_xai.report.evidence import Mean, Share, ShareDrop
from lit_xai.report.verdict import Exact, holm, judge, quantity, to_dict
from lit_xai.retention.requirements import Requirement

DROP, FLIPS = Requirement.read("accuracy", "drop<=1 %"), Requirement.read("flips", "<=2 %")
GOOD, BAD, UNSURE = ShareDrop(2, 2, 5000), ShareDrop(300, 10, 5000), ShareDrop(10, 8, 400)


@pytest.mark.parametrize(
    ("evidence", "outcome", "code"),
    [
        ([GOOD, Share(10, 5000)], "passed", 0),
        ([BAD, Share(10, 5000)], "failed", 10),
        ([UNSURE, Share(10, 5000)], "inconclusive", 11),
        ([UNSURE, Share(500, 5000)], "failed", 10),
        ([GOOD, "there are no labels"], "inconclusive", 11),
    ],
)
def test_outcomes(evidence, outcome, code):
    found = judge([DROP, FLIPS], dict(zip(["accuracy drop", "flips"], evidence, strict=True)))
    assert (found.outcome, found.exit_code) == (outcome, code)
    assert to_dict(found)["outcome"] == outcome
    assert str(found).startswith(f"Verdict: {outcome}.")


def test_an_inconclusive_line_says_how_many_samples_would_decide():
    (line,) = judge([DROP], {"accuracy drop": UNSURE}).lines
    assert line.outcome == "inconclusive"
    assert line.needed > 400
    assert f"about {line.needed} would decide" in str(line)


def test_nothing_is_known_of_what_was_not_measured():
    (line,) = judge([Requirement.read("auc", ">=0.9")], {}).lines
    assert (line.outcome, line.reason) == ("inconclusive", "nothing was measured by this name")


def test_one_failure_of_many_lines_is_corrected_for_their_number():
    # Each of ten lines lies at its margin: alone one of them would fail in 40% of cases.
    rng, failed = np.random.default_rng(0), 0
    for _ in range(60):
        lines = {f"m{i}": Mean.of(rng.normal(0.5, 0.1, 50)) for i in range(10)}
        failed += judge([Requirement.read(name, ">=0.5") for name in lines], lines).outcome == "failed"
    assert failed / 60 < 0.16


def test_holm_equals_an_independent_loop():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(0, 0.1, 5)
        order, rejected = np.argsort(p), np.zeros(5, bool)
        for rank, place in enumerate(order):
            if p[place] * (5 - rank) > 0.05:
                break
            rejected[place] = True
        assert holm(p.tolist()) == rejected.tolist()


@pytest.mark.parametrize(("text", "value", "outcome"), [("ratio<=0.25", 0.25, "passed"), ("<=3 MB", 3001.0, "failed")])
def test_numbers_without_chance(text, value, outcome):
    one = Requirement.read("size", text)
    assert judge([one], {quantity(one): Exact(value)}).outcome == outcome
