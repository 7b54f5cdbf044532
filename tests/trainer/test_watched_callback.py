"""Trainings that a callback has wrecked are told so, others are not, and none of them notices the watch."""

import json
import re
import time
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import run_script
from watched_runs import CLIP, HEALTHY, STEPS, WRECKED, ByHand, Classify, Run, both, distill, mlp, prune, qat

from lit_xai.trainer.loss_watch import LossWatch
from lit_xai.trainer.structural_callback import FollowRecipe
from lit_xai.trainer.watched_callback import KEY, WatchedCallback

QUICK_WRECKS = [
    "QAT of 2 bits, MLP",
    "cut 90%, rate x 100, MLP",
    "cut 70%, by hand",
    "not a number",
    "taught, rate 1",
    "taught by the dense",
]
QUICK = [
    "cut 70% of an MLP",
    "cut 70%, by hand, unvalidated",
    "cut 70%, auxiliary loss, MLP",
    "QAT of 3 bits, MLP",
    "taught, MLP",
]
AT_FAULT = {"QAT": "QuantizationAwareTraining", "taught": "KnowledgeDistillation", "cut": "StructuredPruning"}


def of_runs(runs, quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in runs]


def fit(run, *args, **kwargs):
    """Return the Trainer after a run, and what it was told; warnings about anything else are ignored."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer = run.fit(*args, **kwargs)
    return trainer, [str(one.message) for one in seen if "has wrecked" in str(one.message)]


def verdicts(run, *args, **kwargs):
    return fit(run, *args, **kwargs)[1]


def history(trainer):
    """Return the state of the one history that the first callback of a Trainer has watched."""
    (found,) = trainer.callbacks[0]._watch.state()["histories"]
    return found


@pytest.mark.parametrize("name", of_runs(WRECKED, QUICK_WRECKS))
def test_wrecked_training_is_said_once_with_the_fix(name, tmp_path):
    (verdict,) = verdicts(WRECKED[name], tmp_path)
    callback = AT_FAULT.get(re.split(r"[ ,]", name)[0], "ScaleOnce")
    if name in ("taught by the dense", "cut, then QAT"):  # the last change of several
        callback = "StructuredPruning" if name == "taught by the dense" else "QuantizationAwareTraining"
    assert verdict.startswith(f"{callback} has wrecked this training")
    assert "learning rate" in verdict
    assert re.search(r"loss.* was [\d.e+-]+ in the (first )?\d+ steps.*, and is (no finite number|[\d.e+]+)", verdict)


@pytest.mark.parametrize("name", of_runs(HEALTHY, QUICK))
def test_healthy_training_is_left_in_peace(name, tmp_path):
    assert verdicts(HEALTHY[name], tmp_path) == []


def test_numbers_of_runs():
    assert len(WRECKED) >= 20
    assert len(HEALTHY) >= 50


class Weights(Callback):
    """Everything of a run that an observer might have changed."""

    def on_fit_end(self, trainer, pl_module):
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.seen = metrics, torch.random.get_rng_state(), *pl_module.state_dict().values()


@pytest.mark.parametrize(
    "run",
    [
        Run(prune(), mlp, epochs=3),
        Run(both(prune(0.5), distill("dense"), qat(0.7)), mlp, epochs=4),
        Run(distill(), mlp, module=ByHand, epochs=2),
        Run(prune(), mlp, epochs=3, scaled=True, options={"accumulate_grad_batches": 3, **CLIP}),
        WRECKED["not a number"],
    ],
    ids=["cuts", "all", "by hand", "scaled", "wrecked"],
)
def test_run_is_bit_identical(run, tmp_path, monkeypatch):
    watched, unwatched = Weights(), Weights()
    verdicts(run, tmp_path, watched)
    monkeypatch.setattr(WatchedCallback, "is_watched", lambda self: False)
    monkeypatch.setattr("lit_xai.trainer.structural_callback.StructuralCallback.is_watched", lambda self: False)
    assert verdicts(run, tmp_path, unwatched) == []
    (metrics, *tensors), (metrics_without, *tensors_without) = watched.seen, unwatched.seen
    assert str(metrics) == str(metrics_without)  # NaN is NaN
    for one, other in zip(tensors, tensors_without, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_losses_are_those_of_the_step(scaled, accumulate, tmp_path):
    run = Run(prune(), mlp, epochs=2, scaled=scaled, options={"accumulate_grad_batches": accumulate})
    seen, scales = [], []

    class Look(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            scales.append(float(loss))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(float(outputs["loss"]) * accumulate)

    found = history(fit(run, tmp_path, Look())[0])
    assert found["first"] == pytest.approx(seen[:5], rel=1e-3)
    assert found["recent"] == pytest.approx(seen[-50:], rel=1e-3)
    assert (scales[0] > 1000) is scaled  # what the hook was given


@pytest.mark.parametrize("base", [Classify, ByHand])
def test_own_loss_is_read_under_a_teacher(base, tmp_path):
    seen = []

    class Recorded(base):
        def loss(self, batch):
            loss = super().loss(batch)
            if isinstance(self.trainer, Trainer):  # not the stand-in, with which the step is watched
                seen.append(loss)
            return loss

    found = history(fit(Run(distill(), mlp, epochs=2, module=Recorded), tmp_path)[0])
    assert found["first"] == pytest.approx([float(loss) for loss in seen[:5]])
    assert found["count"] == len(seen)


def test_one_watch_for_all_callbacks(tmp_path):
    run = Run(both(lambda: [FollowRecipe()], prune(), distill("dense"), qat(0.7)), mlp, epochs=4)
    callbacks = fit(run, tmp_path)[0].callbacks
    follow, *others = [one for one in callbacks if isinstance(one, WatchedCallback)]
    assert follow._watch is None
    assert len({id(one._watch) for one in others}) == 1
    assert [one._is_first for one in others] == [True, False, False]
    assert [one.callback for one in others[0]._watch.changes][-1] == "QuantizationAwareTraining"


class Raise(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 5:
            raise RuntimeError("planted")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays(fails, tmp_path):
    run = Run(both(prune(), distill("dense")), mlp, epochs=3)
    modules = []

    class Keep(Callback):
        def setup(self, trainer, pl_module, stage):
            modules.append((pl_module, set(vars(pl_module)), list(trainer.callbacks)))

        def teardown(self, trainer, pl_module, stage):
            assert trainer.callbacks == modules[0][2]

    if fails:
        with pytest.raises(RuntimeError, match="planted"):
            fit(run, tmp_path, Keep(), Raise())
    else:
        fit(run, tmp_path, Keep())
    module = modules[0][0]
    assert not any(hook for part in module.modules() for hook in part._forward_hooks.values())
    assert "training_step" not in vars(module)


def test_a_second_fit_begins_a_new_watch(tmp_path):
    run = WRECKED["not a number"]
    callbacks = run.callbacks()
    again = Run(lambda: callbacks, mlp)
    assert len(verdicts(again, tmp_path)) == 1
    callbacks[0].factor = 1.0
    assert verdicts(again, tmp_path) == []


@pytest.mark.parametrize("stop_at", [3 * STEPS, 5 * STEPS, 5 * STEPS + 7])
def test_resumed_run_is_judged_as_a_whole(stop_at, tmp_path):
    run = WRECKED["cut 90%, rate x 100, MLP"]
    (whole,) = verdicts(run, tmp_path)
    first = Run(
        run.callbacks, mlp, optimizer=run.optimizer, schedule=run.schedule, options={"enable_checkpointing": True}
    )

    class Stop(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == stop_at:
                raise RuntimeError("killed")

    saved = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=stop_at, save_top_k=-1)
    with pytest.raises(RuntimeError, match="killed"):
        fit(first, tmp_path, saved, Stop())
    (path,) = (tmp_path / "saved").glob(f"step={stop_at}*.ckpt")
    (resumed,) = verdicts(run, tmp_path, ckpt_path=path)
    steps, numbers = re.compile(r"\d+ steps later"), re.compile(r"was ([\d.]+) in the (\d+) steps before")
    assert numbers.findall(resumed) == numbers.findall(whole) or stop_at < 4 * STEPS
    if stop_at % STEPS == 0:
        assert steps.findall(resumed) == steps.findall(whole)


def test_state_is_plain_and_small(tmp_path):
    run = Run(prune(), mlp, epochs=3, options={"enable_checkpointing": True})
    fit(run, tmp_path, ModelCheckpoint(tmp_path, "last"))
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)[KEY]
    assert len(json.dumps(state)) < 10_000


def test_a_failing_observer_ends_no_run(tmp_path, monkeypatch):
    def fail(self, loss):
        raise ValueError("planted")

    monkeypatch.setattr(LossWatch, "add", fail)
    with pytest.warns(UserWarning, match=r"cannot read the training loss \(ValueError: planted\)") as seen:
        trainer = Run(prune(), mlp, epochs=2).fit(tmp_path)
    assert trainer.global_step == 2 * STEPS
    assert sum("cannot read" in str(one.message) for one in seen) == 1


@pytest.mark.slow
def test_two_processes_say_it_once(tmp_path):
    run_script(Path(__file__).with_name("ddp_watch.py"), tmp_path)
    said = [json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(one) for one in said] == [1, 0]
    assert said[0][0].startswith("StructuredPruning has wrecked this training")


@pytest.mark.slow
def test_cost_of_a_step(tmp_path):
    """The watch's own hooks against the rest of a step of a small network, in one run."""
    spent, steps = [0.0], []
    names = ("on_before_backward", "on_train_batch_start")

    class Clock(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.start = time.perf_counter()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            steps.append((time.perf_counter() - self.start, spent[0]))
            spent[0] = 0.0

    def timed(method):
        def call(self, *args):
            start = time.perf_counter()
            method(self, *args)
            spent[0] += time.perf_counter() - start

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(WatchedCallback, name, timed(getattr(WatchedCallback, name)))
        fit(Run(prune(start_epoch=1, end_epoch=1), epochs=12), tmp_path, Clock())
    whole, own = (sorted(values)[len(values) // 2] for values in zip(*steps, strict=True))
    assert own < 0.02 * whole, f"{1e6 * own:.0f} of {1e6 * whole:.0f} microseconds"
