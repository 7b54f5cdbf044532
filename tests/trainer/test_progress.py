"""Lengths of runs and steps of their first optimizers; every number is counted again by the test."""

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from step_runs import BATCHES, Alike, Manual, Recorded, Streamed, fit

from lit_xai.trainer.progress import Progress, is_within_epoch, run_length
from lit_xai.trainer.scheduling import Point


class Look(Callback):
    """Ask for the length before the first step, and for the steps at every batch."""

    def __init__(self):
        self.progress, self.steps = Progress(), []

    def on_train_start(self, trainer, pl_module):
        self.run, self.estimated = run_length(trainer), trainer.estimated_stepping_batches
        self.progress.start(trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.steps.append((self.progress.steps(trainer), pl_module.steps))

    def on_train_end(self, trainer, pl_module):
        self.progress.stop()


def test_the_start_of_an_epoch_is_not_within_it(tmp_path):
    class Ask(Callback):
        def __init__(self):
            self.found = []

        def on_train_epoch_start(self, trainer, pl_module):
            self.found.append(is_within_epoch(trainer))

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.on_train_epoch_start(trainer, pl_module)

    ask = Ask()
    fit(Recorded(), tmp_path, ask, max_epochs=2, limit_train_batches=3)
    assert ask.found == 2 * [False, False, True, True]


@pytest.mark.parametrize(
    ("module", "options", "unit"),
    [
        (Recorded, {"max_epochs": 3}, "epoch"),
        (Recorded, {"max_epochs": 3, "accumulate_grad_batches": 4}, "epoch"),
        (Recorded, {"max_epochs": 1}, "step"),
        (Recorded, {"max_steps": 7}, "step"),
        (Recorded, {"max_epochs": -1, "max_steps": 12}, "step"),
        (Recorded, {"max_epochs": 3, "max_steps": 12}, "step"),
        (Recorded, {"max_epochs": 2, "max_steps": 100}, "epoch"),
        (Recorded, {"max_epochs": 2, "limit_train_batches": 0.5}, "epoch"),
        (Recorded, {"fast_dev_run": True}, "step"),
        (Streamed, {"max_steps": 7, "accumulate_grad_batches": 2}, "step"),
        (Streamed, {"max_epochs": 2, "limit_train_batches": 5}, "epoch"),
        (Streamed, {"max_epochs": 3, "max_steps": 9}, "step"),
    ],
)
def test_length_is_what_lightning_estimates_and_what_the_run_takes(module, options, unit, tmp_path):
    look, module = Look(), module()
    trainer = fit(module, tmp_path, look, **options)
    assert look.run.steps == look.estimated == trainer.global_step == module.steps
    assert look.run.unit == unit
    assert [ours for ours, _ in look.steps] == [counted for _, counted in look.steps]


def test_length_without_end_is_none(tmp_path):
    look, stop = Look(), StopAt(3)
    fit(Streamed(), tmp_path, look, stop, max_epochs=2)
    assert look.run.steps is None  # as Lightning says by -1
    assert look.estimated == -1
    fit(Recorded(), tmp_path, look, stop, max_epochs=-1)
    assert (look.run.epochs, look.run.steps, look.run.steps_per_epoch) == (None, None, BATCHES)


class StopAt(Callback):
    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = batch_idx == self.batch


def test_scheduled_accumulation_is_followed(tmp_path):
    look, module = Look(), Recorded()
    trainer = fit(module, tmp_path, look, GradientAccumulationScheduler({0: 4, 2: 1}), max_epochs=4)
    assert look.run.steps == trainer.global_step == 3 + 3 + 10 + 10
    assert look.run.is_before(Point(1), Point(9, "step")) is None


def test_the_first_of_several_optimizers_is_counted(tmp_path):
    look, module = Look(), Manual()
    trainer = fit(module, tmp_path, look, max_epochs=2)
    assert module.steps == BATCHES
    assert trainer.global_step == 5 * BATCHES
    assert look.steps == [(i // 2, i // 2) for i in range(2 * BATCHES)]
    assert look.progress.steps(trainer) == BATCHES  # also after the run
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def test_max_steps_of_several_optimizers_are_shared(tmp_path):
    look, module = Look(), Alike()
    fit(module, tmp_path, look, max_epochs=-1, max_steps=8)
    assert look.run.steps == module.steps == 4


def test_a_checkpoint_without_a_count_is_estimated(tmp_path):
    class Resumed(Callback):
        def on_train_start(self, trainer, pl_module):
            progress = Progress()
            trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = 30
            progress.start(trainer)
            assert progress.steps(trainer) == 15
            progress.start(trainer, 6)
            assert progress.steps(trainer) == 6
            progress.stop()

    fit(Manual(), tmp_path, Resumed(), max_epochs=1)
