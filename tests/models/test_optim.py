import math
from functools import partial

import pytest
import torch
from lightning.pytorch import cli as lightning_cli
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn, optim
from torch.optim import lr_scheduler as schedules
from torch.utils.data import Subset

from lit_xai.models import Classifier, CosineAnnealing, LinearModel
from lit_xai.models.optim import configure_optimizers

SGD = partial(optim.SGD, lr=0.1)
EPOCHS, BATCHES = 3, 10


@pytest.fixture
def run(digits, fit):
    """Fit with a schedule, and return its config and the learning rate of each optimizer step."""

    def train(lr_scheduler, optimizer=SGD, interval=None, **kwargs):
        module = Classifier(
            LinearModel(64, 10), 10, optimizer=optimizer, lr_scheduler=lr_scheduler, lr_scheduler_interval=interval
        )
        rates = []
        module.on_before_optimizer_step = lambda optimizer: rates.append(optimizer.param_groups[0]["lr"])
        data = Subset(digits, range(10 * BATCHES))
        trainer = fit(module, data, batch_size=10, **{"max_epochs": EPOCHS} | kwargs)
        return trainer.lr_scheduler_configs[0], rates

    return train


@pytest.mark.parametrize(
    "optimizer", [optim.Adam, partial(optim.AdamW, lr=0.01), SGD, lambda p: optim.RMSprop(p, lr=0.1)]
)
def test_any_optimizer_learns(digits, fit, optimizer):
    trainer = fit(Classifier(LinearModel(64, 10), 10, optimizer=optimizer), digits, max_epochs=3)
    assert type(trainer.optimizers[0]) is type(optimizer([nn.Parameter(torch.zeros(1))]))
    assert trainer.callback_metrics["val/loss"] < math.log(10)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_one_cycle_runs_once_per_optimizer_step(run, accumulate):
    config, rates = run(partial(schedules.OneCycleLR, max_lr=0.5), accumulate_grad_batches=accumulate)
    steps = EPOCHS * math.ceil(BATCHES / accumulate)
    assert config.interval == "step"
    assert config.scheduler.total_steps == len(rates) == steps
    assert max(rates) == pytest.approx(0.5, rel=0.2 if accumulate > 1 else 0.02)
    assert rates[0] == pytest.approx(0.5 / 25)
    assert rates[-1] < rates[0] / 100


def test_one_cycle_keeps_the_length_it_was_given(run):
    config, _ = run(partial(schedules.OneCycleLR, max_lr=0.5, total_steps=100))
    assert config.scheduler.total_steps == 100
    config, _ = run(partial(schedules.OneCycleLR, max_lr=0.5, epochs=7, steps_per_epoch=20))
    assert config.scheduler.total_steps == 140


def test_one_cycle_follows_max_steps(run):
    config, rates = run(partial(schedules.OneCycleLR, max_lr=0.5), max_epochs=-1, max_steps=20)
    assert config.scheduler.total_steps == len(rates) == 20


@pytest.mark.parametrize(
    "schedule", [schedules.CosineAnnealingLR, CosineAnnealing, partial(CosineAnnealing, T_max=None)]
)
@pytest.mark.parametrize(("interval", "length"), [(None, EPOCHS), ("epoch", EPOCHS), ("step", EPOCHS * BATCHES)])
def test_cosine_falls_over_the_whole_run(run, schedule, interval, length):
    config, rates = run(schedule, interval=interval)
    assert (config.interval, config.scheduler.T_max) == (interval or "epoch", length)
    step = 1 if interval == "step" else BATCHES
    expected = [0.05 * (1 + math.cos(math.pi * (i // step) / length)) for i in range(len(rates))]
    assert rates == pytest.approx(expected)


def test_cosine_keeps_the_length_it_was_given(run):
    assert run(partial(schedules.CosineAnnealingLR, T_max=2))[0].scheduler.T_max == 2
    assert run(lambda optimizer: schedules.CosineAnnealingLR(optimizer, 2))[0].scheduler.T_max == 2


@pytest.mark.parametrize(
    ("schedule", "interval"),
    [
        (partial(schedules.StepLR, step_size=1), "epoch"),
        (partial(schedules.LambdaLR, lr_lambda=lambda epoch: 0.5**epoch), "epoch"),
        (lambda optimizer: schedules.CyclicLR(optimizer, 0.01, 0.1), "step"),
        (lambda optimizer: schedules.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * BATCHES), "step"),
    ],
)
def test_the_interval_follows_the_schedule(run, schedule, interval):
    config, rates = run(schedule)
    assert config.interval == interval
    assert len(set(rates)) > (EPOCHS if interval == "step" else EPOCHS - 1)


@pytest.mark.parametrize(
    "schedule",
    [
        partial(schedules.ReduceLROnPlateau, patience=0, threshold=10.0, threshold_mode="abs"),
        partial(lightning_cli.ReduceLROnPlateau, monitor="val/loss", patience=0, threshold=10.0, threshold_mode="abs"),
    ],
)
def test_plateau_watches_the_validation_loss(run, schedule):
    config, rates = run(schedule)
    assert (config.reduce_on_plateau, config.monitor) == (True, "val/loss")
    assert rates[-1] == pytest.approx(0.01)  # no loss is lower by 10, so the second epoch ends with a cut


def test_plateau_says_what_it_watches_over_the_default(run):
    config, _ = run(partial(lightning_cli.ReduceLROnPlateau, monitor="train/loss"))
    assert config.monitor == "train/loss"


def test_plateau_on_an_unknown_metric_says_which_there_are(digits, fit):
    module = Classifier(
        LinearModel(64, 10), 10, lr_scheduler=schedules.ReduceLROnPlateau, lr_scheduler_monitor="val/los"
    )
    with pytest.raises(MisconfigurationException, match=r"val/los which is not available.*val/loss"):
        fit(module, digits)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (partial(schedules.OneCycleLR, max_lr=1.0), "total_steps of OneCycleLR .* give max_steps to the Trainer"),
        (schedules.CosineAnnealingLR, "T_max of CosineAnnealingLR .* give max_epochs to the Trainer or T_max"),
    ],
)
def test_a_run_without_end_has_no_length(run, schedule, message):
    with pytest.raises(MisconfigurationException, match=message):
        run(schedule, max_epochs=-1)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "message"),
    [
        (partial(optim.SGD, lr=-1), None, "optimizer could not be built: Invalid learning rate: -1"),
        (partial(optim.SGD, rate=1), None, "optimizer could not be built: .*'rate'"),
        (list, None, "optimizer expected to return a torch Optimizer, but got list"),
        (SGD, partial(schedules.StepLR), "lr_scheduler could not be built: .*'step_size'"),
        (SGD, lambda optimizer: optimizer, "lr_scheduler expected to return a torch LRScheduler, but got SGD"),
    ],
)
def test_what_cannot_be_built_is_named(optimizer, schedule, message):
    with pytest.raises(MisconfigurationException, match=message):
        configure_optimizers([nn.Parameter(torch.zeros(1))], optimizer, schedule, trainer=None)


def test_cosine_alone_asks_for_its_length():
    with pytest.raises(ValueError, match="T_max expected the number of scheduler steps, but got None"):
        CosineAnnealing(SGD([nn.Parameter(torch.zeros(1))]))
