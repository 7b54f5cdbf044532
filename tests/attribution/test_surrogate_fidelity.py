"""When a tree is called unfaithful, and in which words."""

import pytest

from lit_xai.attribution.surrogate_fidelity import Fidelity


@pytest.mark.parametrize(
    ("given", "start"),
    [
        (Fidelity(0.96, 50, constant=("a", 0.6)), ""),
        (Fidelity(1.0, 50, constant=("a", 1.0)), ""),
        (Fidelity(0.95, 50, constant=("a", 0.94)), "Tells little: to answer a always agrees with the network for 94%"),
        (Fidelity(0.76, 50, constant=("a", 0.1)), "Not faithful: for 24% of the samples the network answers otherwise"),
        (Fidelity(0.8, 50, of_values=True), "Not faithful: 20% of the variance"),
        (Fidelity(-2.0, 50, of_values=True), "Not faithful: 100% of the variance"),
        (Fidelity(0.95, 50, of_values=True), ""),
    ],
)
def test_caution(given, start):
    assert given.caution().startswith(start)
    assert bool(given.caution()) is bool(start) is given.is_low


def test_more_leaves_are_named_only_where_they_help():
    assert "with 64 leaves: 10%" in Fidelity(0.7, 50, by_leaves={8: 0.7, 64: 0.9}).caution()
    assert "64" not in Fidelity(0.7, 50, by_leaves={8: 0.7, 64: 0.65}).caution()


def test_summary_tells_every_number():
    given = Fidelity(0.7, 1234, False, ("benign", 0.6), {8: 0.7, 4: 0.65}, 0.71, 0.72)
    words = given.summary()
    for part in ("1,234", "70% (benign for all of them: 60%)", "4: 65% · 8: 70%", "71%", "72%", "bars"):
        assert part in words
    assert "bars" not in Fidelity(-0.5, 9, True).summary()
    assert "R² = \u22120.50" in Fidelity(-0.5, 9, True).summary()
