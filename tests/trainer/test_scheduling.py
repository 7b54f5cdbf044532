import inspect
import typing

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from refusals import refused

import lit_xai.callbacks
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
        ((2, 12, 1, 10), ("end_epoch expected an epoch of the run", "0 to 9", "12", "never be taken")),
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


def numbers():
    for name in lit_xai.callbacks.__all__:
        for argument, annotation in typing.get_type_hints(getattr(lit_xai.callbacks, name).__init__).items():
            if {int, float} <= set(typing.get_args(annotation)):
                yield name, argument


@pytest.fixture(scope="module")
def parser():
    """As LightningCLI makes it: the Trainer's types come first."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Trainer, "trainer")
    return parser


def test_the_arguments_that_take_integers_and_fractions_are_found():
    assert {
        ("StructuredPruning", "end_epoch"),
        ("QuantizationAwareTraining", "start_epoch"),
        ("AttributionMonitor", "every_n_epochs"),
    } < set(numbers())


@pytest.mark.parametrize("value", [1, 3, 0.5, 1.0])
@pytest.mark.parametrize(("name", "argument"), list(numbers()))
def test_numbers_in_yaml_keep_their_type(name, argument, value, parser):
    cls = getattr(lit_xai.callbacks, name)
    given = {argument: value}
    given |= {p.name: "x" for p in inspect.signature(cls).parameters.values() if p.default is p.empty}
    parsed = parser.parse_object({"trainer": {"callbacks": [{"class_path": f"lit_xai.{name}", "init_args": given}]}})
    again = parser.parse_string(parser.dump(parsed))
    for config in (parsed, again):
        found = config.trainer.callbacks[0].init_args[argument]
        assert (type(found), found) == (type(value), value)
