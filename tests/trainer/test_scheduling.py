import inspect
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from refusals import refused

import lit_xai
import lit_xai.callbacks
from lit_xai.trainer.scheduling import CURVES, Point, RunLength, Schedule, Times, resolve, value_at


@pytest.mark.parametrize(
    ("value", "max_epochs", "expected"),
    [
        (0, 20, 0),
        (5, 20, 5),
        (5, None, 5),
        (50, 20, 50),
        (0.1, 20, 2),
        (1.0, 20, 20),
        (0.0, 20, 0),
        (0.26, 10, 3),
        (0.99, 20, 19),
    ],
)
def test_integers_count_and_fractions_share(value, max_epochs, expected):
    found = resolve(value, max_epochs, "start_epoch")
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
    ],
)
def test_refused(value, max_epochs):
    with refused("start_epoch", str(value)):
        resolve(value, max_epochs, "start_epoch")


def plan(start, end, every, run=None, schedule="linear", unit="epoch"):
    """Return the plan by counts; a number stands for a run of so many epochs."""
    names = ("start_epoch", "end_epoch", "every_n_epochs")
    names = [name.replace("epoch", unit) for name in names]
    run = RunLength(run) if run is None or isinstance(run, int) else run
    times = Times(dict(zip(names, (start, end, every), strict=True)), unit)
    return {point.count: share for point, share in Schedule(times, schedule).plan(run).items()}


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 5, 10, 37, 100])
def test_default_plan_leaves_half_of_the_epochs(max_epochs):
    found = plan(0.1, None, 0.1, max_epochs)
    assert list(found) == sorted(found)
    assert found[max(found)] == 1.0
    assert max_epochs - max(found) >= max_epochs / 2


@pytest.mark.parametrize("schedule", CURVES)
def test_a_plan_only_goes_forwards_and_ends_with_all_of_it(schedule):
    found = list(plan(3, 20, 4, 30, schedule).values())
    assert found == sorted(found)
    assert found[-1] == 1.0
    assert len(found) == 6  # 3, 7, 11, 15, 19 and the end


def test_one_cut():
    assert plan(4, 4, 1, 10) == {4: 1.0}
    assert plan(8, None, 1, 10) == {8: 1.0}  # later than the middle: then is the end
    assert plan(2, 2, 1, None) == {2: 1.0}  # training without end
    assert plan(2, 2, 0.1, None) == {2: 1.0}  # which needs no distance


@given(
    st.integers(0, 50),
    st.one_of(st.none(), st.integers(0, 90)),
    st.one_of(st.integers(1, 20), st.floats(0, 0.5)),
    st.integers(1, 99),
    st.sampled_from(sorted(CURVES)),
)
def test_steps_are_planned_as_epochs_are(start, end, every, total, schedule):
    def outcome(run, unit):
        try:
            return plan(start, end, every, run, schedule, unit)
        except ValueError as error:
            return str(error).replace("epoch", "step").replace("an step", "a step")

    assert outcome(RunLength(epochs=total), "epoch") == outcome(RunLength(steps=total), "step")


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 10**6))
def test_a_fraction_of_a_run_is_inside_it(fraction, total):
    found = resolve(fraction, total, "start_step", "step")
    assert 0 <= found < total
    assert abs(found - fraction * total) <= 1


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ((2, 12, 1, 10), ("end_epoch expected an epoch of the run", "0 to 9", "12", "never be reached")),
        ((12, None, 1, 10), ("start_epoch expected an epoch of the run", "12")),
        ((5, 3, 1, 10), ("end_epoch expected an epoch from start_epoch=5 on", "3")),
        ((0.5, None, 1, None), ("start_epoch=0.5 is a fraction of max_epochs", "give a number of epochs")),
        ((1, 2, -1, 10), ("every_n_epochs expected", "-1")),
        ((1, 2, 1, 10, "square"), ("schedule expected one of linear, cubic", "'square'")),
        (
            (0.5, None, 0.1, RunLength(unit="step")),
            ("start_epoch=0.5 is a fraction of the optimizer steps", "set max_steps of the Trainer, or start_step to"),
        ),
        ((20, None, 0.1, RunLength(steps=20), "linear", "step"), ("start_step expected a step of the run", "0 to 19")),
        ((2, 9, 0.1, RunLength(), "linear", "step"), ("every_n_steps=0.1 is a fraction", "every_n_steps to a number")),
    ],
)
def test_plans_refused(given, parts):
    with refused(*parts):
        plan(*given)


def test_fractions_count_steps_where_the_run_does():
    times = Times({"start_epoch": 0.5, "freeze_epoch": 0.9})
    assert times.point("start", RunLength(1, 400, 400, "step")) == Point(200, "step")
    assert times.point("start", RunLength(10, 4000, 400)) == Point(5)
    # An integer is what it was said to be.
    assert Times({"start_epoch": 0, "freeze_epoch": 0.9}).point("start", RunLength(1, 400, 400, "step")) == Point(0)
    assert Times({"start_step": 0.5}, "step").point("start", RunLength(10, 4000, 400)) == Point(2000, "step")


@pytest.mark.parametrize(
    ("cls", "arguments", "parts"),
    [
        (
            "StructuredPruning",
            {"pruning_ratio": 0.5, "start_epoch": 2, "start_step": 9},
            ("start_epoch=2, start_step=9",),
        ),
        (
            "StructuredPruning",
            {"pruning_ratio": 0.5, "every_n_epochs": 1, "end_step": 9},
            ("every_n_epochs=1, end_step=9",),
        ),
        ("QuantizationAwareTraining", {"start_epoch": 2, "freeze_step": 0.5}, ("start_epoch=2, freeze_step=0.5",)),
        ("AttributionMonitor", {"every_n_epochs": 2, "every_n_steps": 5}, ("every_n_epochs=2, every_n_steps=5",)),
        (
            "StructuredPruning",
            {"pruning_ratio": 0.5, "start_step": 1.5},
            ("start_step expected an integer, or a fraction",),
        ),
        ("QuantizationAwareTraining", {"start_step": -1}, ("start_step expected a number of steps", "-1")),
        ("AttributionMonitor", {"every_n_steps": True}, ("every_n_steps expected a number of steps", "True")),
    ],
)
def test_wrong_in_any_run(cls, arguments, parts):
    with refused(*parts):
        getattr(lit_xai, cls)(**arguments | ({"pruning_ratio": 0.5} if cls == "StructuredPruning" else {}))


def test_values_spread_over_steps():
    run = RunLength(steps=101)
    found = [value_at([1.0, 0.5, 0.1], Point(step, "step"), run, "alpha") for step in (0, 25, 50, 100, 200)]
    assert found == [1.0, 0.75, 0.5, 0.1, 0.1]
    with refused("alpha=[1, 2] is spread over the run", "max_steps"):
        value_at([1, 2], Point(0, "step"), RunLength(), "alpha")


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
        ("StructuredPruning", "start_step"),
        ("AttributionMonitor", "every_n_steps"),
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
