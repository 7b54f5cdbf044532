"""Verdicts on losses that a training could have."""

import math

import pytest
import torch

from lit_xai.trainer.loss_watch import MOST, RECOVERED, Change, LossWatch

CUT = Change("StructuredPruning", "by its step at the start of epoch 4", "Remove less.")
QUANTIZED = Change("QuantizationAwareTraining", "by its step at the start of epoch 8", "Start later.")
TAUGHT = Change("KnowledgeDistillation", "in which it takes part", "Lower alpha.", is_teacher=True)


def see(watch, *streams, taught=None):
    """Add batches, each with a loss from every stream; return the first verdict on the way."""
    for step, losses in enumerate(zip(*streams, strict=True)):
        watch.start_batch(step == 0)
        if verdict := watch.verdict():
            return verdict
        for loss in losses:
            if taught is not None:
                watch.teach(torch.tensor(loss), torch.tensor(taught))
            watch.add(torch.tensor(loss if taught is None else 0.0))
    return None


def learned(n=100):
    return [2.3] * 5 + [0.2 + 0.01 * (i % 5) for i in range(n)]


def test_says_what_was_and_what_is():
    watch = LossWatch()
    see(watch, learned())
    watch.change(CUT)
    see(watch, [2.3] * 80)
    assert watch.verdict(at_end=True) == (
        "StructuredPruning has wrecked this training, by its step at the start of epoch 4. The training loss was 0.22"
        " in the 50 steps before (median), and is 2.3 in the last 40, 80 steps later. Remove less."
    )
    assert watch.verdict(at_end=True) is None  # said once


def test_without_a_change_nothing_is_said():
    watch = LossWatch()
    see(watch, learned() + [math.nan] * 100)
    assert watch.verdict(at_end=True) is None


@pytest.mark.parametrize(("steps", "said"), [(29, False), (30, True)])
def test_needs_some_steps(steps, said):
    watch = LossWatch()
    see(watch, learned())
    watch.change(CUT)
    see(watch, [2.3] * steps)
    assert bool(watch.verdict(at_end=True)) is said


def test_nan_is_said_within_a_block():
    watch = LossWatch()
    see(watch, learned())
    watch.change(CUT)
    assert "is no finite number 50 steps later" in see(watch, [0.3] * 5 + [math.nan] * 60)


def test_a_batch_of_nan_is_no_wreck():
    watch = LossWatch()
    see(watch, learned())
    watch.change(CUT)
    assert see(watch, ([0.3] * 20 + [math.nan]) * 30) is None
    assert watch.verdict(at_end=True) is None


def test_long_runs_need_not_end():
    watch = LossWatch()
    see(watch, learned())
    watch.change(CUT)
    assert see(watch, [2.3] * RECOVERED) is None
    assert "wrecked" in see(watch, [2.3] * 60)
    assert see(watch, [2.3] * 2000) is None


def test_what_has_lost_less_is_given_the_rest_of_the_run():
    watch = LossWatch()
    see(watch, learned())
    watch.change(CUT)
    assert see(watch, [1.8] * 2000) is None
    assert "wrecked" in watch.verdict(at_end=True)


def test_names_the_change_that_did_it():
    for wrecked, name in ((0, "StructuredPruning"), (1, "QuantizationAwareTraining")):
        watch = LossWatch()
        see(watch, learned())
        watch.change(CUT)
        see(watch, [2.2] * 60 if wrecked == 0 else [1.5, 0.9, 0.6] + [0.3] * 60)
        watch.change(QUANTIZED)
        see(watch, [2.3] * 60)
        assert watch.verdict(at_end=True).startswith(name)


def test_recovery_is_from_the_last_change():
    watch = LossWatch()
    see(watch, learned())
    watch.change(CUT)
    see(watch, [0.3] * 60)
    watch.change(CUT)
    see(watch, [2.3] * 20)  # the run ends before anything can be said
    assert watch.verdict(at_end=True) is None


def test_opponents_are_lost_together_or_not_at_all():
    for other, said in (([2.3] * 80, True), ([0.2] * 80, False)):
        watch = LossWatch()
        see(watch, learned(), learned())
        watch.change(CUT)
        see(watch, [2.3] * 80, other)
        assert bool(watch.verdict(at_end=True)) is said


def test_many_backward_passes_are_bounded():
    watch = LossWatch()
    see(watch, *[[1.0] * 3] * (MOST + 5))
    assert len(watch.state()["histories"]) == MOST


@pytest.mark.parametrize(
    ("own", "distance", "said"),
    [
        ([2.3] * 200, 3.5, True),  # learned nothing
        (learned(200), 3.5, False),
        ([2.3] * 5 + [3.0] * 200, 0.1, False),  # wrong labels: nearer to the teacher, and further from them
    ],
)
def test_taught(own, distance, said):
    watch = LossWatch()
    watch.change(TAUGHT)
    see(watch, own[:10], taught=3.5)
    see(watch, own[10:], taught=distance)
    verdict = watch.verdict(at_end=True)
    assert bool(verdict) is said
    if said:
        assert "The distance from the teacher was 3.5, and is 3.5. Lower alpha." in verdict


def test_a_teacher_that_was_followed_excuses_a_cut_and_shares_the_blame_otherwise():
    for distance, said in ((0.1, False), (3.5, True)):
        watch = LossWatch()
        watch.change(TAUGHT)
        see(watch, learned(), taught=3.5)
        watch.change(CUT)
        see(watch, [2.3] * 80, taught=distance)
        verdict = watch.verdict(at_end=True)
        assert bool(verdict) is said
    assert verdict.endswith("Remove less. Lower alpha.")


def test_state_continues_the_judgement():
    whole, first = LossWatch(), LossWatch()
    for watch in (whole, first):
        see(watch, learned())
        watch.change(CUT)
        see(watch, [2.3] * 33)
    second = LossWatch()
    second.load_state(first.state())
    for watch in (whole, second):
        see(watch, [2.31] * 33)
    assert second.state() == whole.state()
    assert second.verdict(at_end=True) == whole.verdict(at_end=True) != None  # noqa: E711
