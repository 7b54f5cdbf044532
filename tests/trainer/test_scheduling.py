import pytest
from refusals import refused

from lit_xai.trainer.scheduling import CURVES, plan_steps, resolve_epochs


@pytest.mark.parametrize(
    ("value", "max_epochs", "expected"),
    [(0, 20, 0), (5, 20, 5), (5, None, 5), (50, 20, 50), (0.1, 20, 2), (1.0, 20, 20), (0.0, 20, 0), (0.26, 10, 3)],
)
def test_integers_count_and_fractions_share(value, max_epochs, expected):
    found = resolve_epochs(value, max_epochs, "start_epoch")
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    ("value", "max_epochs"),
    [
        (-1, 20),
        (True, 20),
        ("5", 20),
        (None, 20),
        (1.5, 20),
        (float("nan"), 20),
        (float("inf"), 20),
        (-0.5, 20),
        (0.5, None),
        (0.5, -1),
    ],
)
def test_refused(value, max_epochs):
    with refused("start_epoch", str(value)):
        resolve_epochs(value, max_epochs, "start_epoch")


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 5, 10, 37, 100])
def test_default_plan_leaves_half_of_the_epochs(max_epochs):
    plan = plan_steps(0.1, None, 0.1, max_epochs)
    assert list(plan) == sorted(plan)
    assert plan[max(plan)] == 1.0
    assert max_epochs - max(plan) >= max_epochs / 2


@pytest.mark.parametrize("schedule", CURVES)
def test_a_plan_only_goes_forwards_and_ends_with_all_of_it(schedule):
    plan = list(plan_steps(3, 20, 4, 30, schedule).values())
    assert plan == sorted(plan)
    assert plan[-1] == 1.0
    assert len(plan) == 6  # 3, 7, 11, 15, 19 and the end


def test_one_cut():
    assert plan_steps(4, 4, 1, 10) == {4: 1.0}
    assert plan_steps(8, None, 1, 10) == {8: 1.0}  # later than the middle: then is the end
    assert plan_steps(2, 2, 1, -1) == {2: 1.0}  # training without end


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ((2, 12, 1, 10), ("end_epoch expected an epoch of the run", "0 to 9", "12", "never happen")),
        ((12, None, 1, 10), ("start_epoch expected an epoch of the run", "12")),
        ((5, 3, 1, 10), ("end_epoch expected an epoch from start_epoch=5 on", "3")),
        ((0.5, None, 1, None), ("start_epoch=0.5 is a fraction of max_epochs",)),
        ((1, 2, -1, 10), ("every_n_epochs expected", "-1")),
        ((1, 2, 1, 10, "square"), ("schedule expected one of linear, cubic", "'square'")),
    ],
)
def test_plans_refused(given, parts):
    with refused(*parts):
        plan_steps(*given)
