"""How much is lost, from losses that a training could have."""

import math

import pytest

from lit_xai.trainer.wreck import has_learned, lost_share, median, quantile

UNTRAINED = [2.3, 2.35, 2.31, 2.28, 2.3]
LEARNED = [0.2 + 0.01 * (i % 5) for i in range(50)]
SHOCK = [2.2, 1.9, 1.7, 1.5, 1.3]


def flat(value, n=50, noise=0.02):
    return [value * (1 + noise * ((7 * i) % 5 - 2)) for i in range(n)]


@pytest.mark.parametrize("scale", [1, 1e-4, 1e6])
@pytest.mark.parametrize("offset", [0, -100, 5])
@pytest.mark.parametrize(("now", "share"), [(0.2, 0), (0.5, 0.13), (1.26, 0.5), (2.31, 1), (4.4, 2)])
def test_share_depends_on_no_scale_and_no_sign(now, share, scale, offset):
    def moved(values):
        return [scale * (value + offset) for value in values]

    found = lost_share(moved(UNTRAINED), moved(LEARNED), moved(SHOCK), moved(flat(now, noise=0.001)))
    assert found == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_no_number_is_lost_for_good(broken):
    assert lost_share(UNTRAINED, LEARNED, SHOCK, [broken] * 50) == math.inf
    # But not by this change, if it was so before.
    assert lost_share(UNTRAINED, [broken] * 50, SHOCK, [broken] * 50) == 0
    # One batch is no training.
    assert lost_share(UNTRAINED, LEARNED, SHOCK, [*flat(0.21, 49), broken]) == pytest.approx(0, abs=0.1)


def test_a_loss_that_still_falls_is_given_time():
    falling = [2.3 - 0.02 * i for i in range(50)]
    assert lost_share(UNTRAINED, LEARNED, SHOCK, falling) == 0
    # From a peak above the untrained loss it falls to nothing better.
    assert lost_share(UNTRAINED, LEARNED, SHOCK, [50.0] * 25 + flat(2.3, 25)) > 0.9


def test_losses_that_overlap_tell_nothing():
    by_turns = [0.5, 3.0] * 25  # two losses in one place, as of opponents trained by turns
    assert lost_share([3.0, 2.9, 3.1, 3.0, 3.0], by_turns, SHOCK, by_turns[1:] + [3.0] * 3) == 0


def test_a_network_trained_before_the_run_starts_low():
    trained = [0.01 + 0.002 * (i % 5) for i in range(50)]
    # A cut that has taken it to 2.2, from which it has recovered.
    assert lost_share(trained[:5], trained, SHOCK, flat(0.2)) < 0.2
    # Coarser integers, which cost it a little from the first step on.
    assert lost_share(trained[:5], trained, [0.02] * 5, flat(0.05)) == 0
    assert lost_share(trained[:5], trained, [0.02] * 5, flat(2.3)) == pytest.approx(1, abs=0.01)
    assert lost_share(trained[:5], trained, SHOCK, flat(2.2)) > 0.9
    assert lost_share(trained[:5], trained, [0.02] * 5, [200.0 - 8 * i for i in range(25)] + flat(2.3, 25)) > 0.9


def test_a_run_that_never_learned_has_nothing_to_lose():
    assert lost_share(UNTRAINED, flat(2.3), SHOCK, flat(2.33)) == 0


@pytest.mark.parametrize(
    ("lowest", "now", "learned"),
    [(2.2, 2.3, False), (0.2, 0.3, True), (1.5, 1.6, True), (0.2, 2.0, False), (2.0, math.nan, False)],
)
def test_has_learned(lowest, now, learned):
    assert has_learned(UNTRAINED, lowest, [now] * 50) is learned


def test_the_start_is_before_the_rate_shows():
    assert not has_learned([2.3, 1000.0, 500.0, 80.0, 60.0], 2.3, [2.3] * 50)


def test_quantiles_are_of_the_values():
    values = [3.0, 1.0, 2.0, math.nan]
    assert [quantile(values, share) for share in (0, 0.25, 0.5, 1)] == [1.0, 2.0, 3.0, math.inf]
    assert median([1.0, 5.0, 2.0]) == 2.0
