"""Metrics of explanations: an outsider's own, refused ones, and their values in the logs."""

import csv
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, Metric

from lit_xai import AttributionMonitor
from lit_xai.attribution.quality import resolve_metrics
from lit_xai.functional import call_network

# The whole file that adds a metric.
SPARSENESS = '''
"""Does an explanation name a few features or all of them?"""

import torch
from torchmetrics import Metric


class Sparseness(Metric):
    """The mean Gini index of absolute attributions: 0 where all are equal, towards 1 where one holds everything.

    P. Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training" (2020).
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("n", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, network, inputs, attributions, target):
        sizes = attributions.abs().flatten(1).sort().values
        places = torch.arange(1, sizes.shape[1] + 1, device=sizes.device)
        below = (sizes * (sizes.shape[1] - places + 0.5)).sum(1) / (sizes.sum(1) * sizes.shape[1])
        self.total += (1 - 2 * below).sum()
        self.n += len(sizes)

    def compute(self):
        return self.scale * self.total / self.n
'''


@pytest.fixture
def sparseness(tmp_path, monkeypatch):
    (tmp_path / "sparseness.py").write_text(SPARSENESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sparseness", raising=False)
    import sparseness

    return sparseness.Sparseness


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        x = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, torch.arange(24) % 3), batch_size=8)

    test_dataloader = train_dataloader


def trainer_of(folder, *callbacks, **options):
    return Trainer(
        **{"max_epochs": 3, "logger": CSVLogger(folder, "run", ""), "enable_checkpointing": False} | options,
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def logged(folder, tag):
    rows = csv.DictReader((folder / "run" / "metrics.csv").read_text().splitlines())
    return [float(row[tag]) for row in rows if row.get(tag)]


def gini(values):
    """By its definition: half the mean absolute difference of all pairs, over the mean."""
    values = np.abs(values)
    return np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())


def test_an_outsiders_metric_is_logged_with_every_evaluation(sparseness, tmp_path):
    monitor = AttributionMonitor(metrics=[sparseness, Answers], on_error="raise")
    trainer_of(tmp_path, monitor).fit(Module())
    maps = [np.load(path)["attributions"] for path in sorted(tmp_path.rglob("attributions.npz"))]
    expected = [np.mean([gini(one) for one in values]) for values in maps]
    assert logged(tmp_path, "attribution/IntegratedGradients/Sparseness") == pytest.approx(expected, rel=1e-4)
    assert logged(tmp_path, "attribution/IntegratedGradients/Answers/agreement") == [1.0] * 3
    assert logged(tmp_path, "attribution/IntegratedGradients/Answers/n") == [8.0] * 3


def test_without_a_logger_the_numbers_are_in_the_file(sparseness, tmp_path):
    trainer_of(tmp_path, AttributionMonitor(metrics=[sparseness, Answers], on_error="raise"), logger=False).fit(
        Module()
    )
    for path in sorted(tmp_path.rglob("attributions.npz")):
        arrays = np.load(path)
        expected = np.mean([gini(one) for one in arrays["attributions"]])
        assert arrays["metrics/Sparseness"] == pytest.approx(expected, rel=1e-4)
        assert (arrays["metrics/Answers/agreement"], arrays["metrics/Answers/n"]) == (1, 8)
        assert set(arrays) - {f"metrics/{name}" for name in ("Sparseness", "Answers/agreement", "Answers/n")} == {
            *("attributions", "logits", "targets", "sample_ids", "labels", "baseline", "convergence_delta")
        }


class Answers(Metric):
    """Calls the network and differentiates it; several numbers."""

    def __init__(self):
        super().__init__()
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("n", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, network, inputs, attributions, target):
        assert not network.training
        first = call_network(network, inputs)
        self.logits.append((call_network(network, inputs) == first).all(1).float())
        with torch.enable_grad():
            torch.autograd.grad(call_network(network, inputs.requires_grad_()).sum(), inputs)
        assert attributions.shape == inputs.shape
        self.n += len(target)

    def compute(self):
        return {"agreement": torch.cat(self.logits).mean(), "n": self.n}


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_outside_fit_too(stage, sparseness, tmp_path):
    module = Module()
    module.validation_step, module.val_dataloader = module.test_step, module.test_dataloader
    trainer = trainer_of(tmp_path, AttributionMonitor(metrics=[sparseness(), Answers()], on_error="raise"))
    getattr(trainer, stage)(module, verbose=False)
    assert len(logged(tmp_path, f"attribution/IntegratedGradients/{stage}/Sparseness")) == 1


def test_a_layer_and_several_inputs(tmp_path):
    class Shapes(Answers):
        def update(self, network, inputs, attributions, target):
            shapes.append((type(inputs), {k: tuple(v.shape) for k, v in attributions.items()}, target))
            self.logits.append(torch.ones(8))

    class Towers(Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(2, 1), nn.Linear(4, 1)

        def forward(self, left, right):
            return self.left(left) + self.right(right)

        def training_step(self, batch, batch_idx):
            return F.mse_loss(self(batch["left"], batch["right"])[:, 0], batch["y"])

        def train_dataloader(self):
            return DataLoader([{"left": torch.ones(2), "right": torch.ones(4), "y": 0.5}] * 16, batch_size=8)

    shapes = []
    trainer_of(tmp_path, AttributionMonitor(metrics=[Shapes], on_error="raise"), max_epochs=1).fit(Towers())
    assert shapes[0][:2] == (dict, {"left": (8, 2), "right": (8, 4)})


def test_classes_paths_and_instances_in_yaml(sparseness, tmp_path, monkeypatch):
    config = """
trainer:
  callbacks:
  - class_path: lit_xai.callbacks.AttributionMonitor
    init_args:
      metrics:
      - {class_path: sparseness.Sparseness, init_args: {scale: 2.0}}
  - class_path: lit_xai.callbacks.AttributionMonitor
    init_args: {name: other, metrics: [sparseness.Sparseness]}
  - class_path: lit_xai.callbacks.AttributionMonitor
    init_args: {name: alone, metrics: sparseness.Sparseness}
  - class_path: lit_xai.callbacks.AttributionMonitor
    init_args:
      name: alone with arguments
      metrics: {class_path: sparseness.Sparseness, init_args: {scale: 3.0}}
"""
    (tmp_path / "metrics.yaml").write_text(config)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls a method of it with a new name
    arguments = ["--config", str(tmp_path / "metrics.yaml"), "--trainer.accelerator=cpu", "--trainer.logger=false"]
    cli = LightningCLI(Module, args=arguments, seed_everything_default=0, run=False)
    first, second, third, fourth = (c for c in cli.trainer.callbacks if isinstance(c, AttributionMonitor))
    assert first.metrics["Sparseness"].scale == 2.0
    assert second.metrics["Sparseness"].scale == third.metrics["Sparseness"].scale == 1.0
    assert fourth.metrics["Sparseness"].scale == 3.0


class Raises(Answers):
    def update(self, network, inputs, attributions, target):
        raise RuntimeError("no update today")


class RaisesLater(Answers):
    def compute(self):
        raise RuntimeError("no number today")


class ReturnsMany(Answers):
    def compute(self):
        return torch.zeros(3)


@pytest.mark.parametrize(
    ("metric", "message"),
    [(Raises, "no update today"), (RaisesLater, "no number today"), (ReturnsMany, "expected one number, but got tens")],
)
def test_a_metric_that_fails_is_one_warning_and_costs_nothing_else(metric, message, sparseness, tmp_path):
    with pytest.warns(UserWarning, match=f"the metric {metric.__name__} is left out.*{message}") as warned:
        trainer_of(tmp_path, AttributionMonitor(metrics=[metric, sparseness])).fit(Module())
    assert sum(message in str(w.message) for w in warned) == 1
    assert len(logged(tmp_path, "attribution/IntegratedGradients/Sparseness")) == 3
    assert len(list(tmp_path.rglob("figure.png"))) == 3
    with pytest.raises((RuntimeError, ValueError), match=message):
        trainer_of(tmp_path, AttributionMonitor(metrics=[metric], on_error="raise"), logger=False).fit(Module())


class DividesByZero(Answers):
    def compute(self):
        return {"share": torch.zeros(()) / 0, "n": self.n}


def test_nan_is_logged_with_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="the metric DividesByZero/share is nan. Attributions may all be 0") as warned:
        trainer_of(tmp_path, AttributionMonitor(metrics=DividesByZero, on_error="raise")).fit(Module())
    assert sum("DividesByZero" in str(w.message) for w in warned) == 1
    assert np.isnan(logged(tmp_path, "attribution/IntegratedGradients/DividesByZero/share")).tolist() == [True] * 3
    assert logged(tmp_path, "attribution/IntegratedGradients/DividesByZero/n") == [8.0] * 3


class Wide(Metric):
    def __init__(self, width):
        super().__init__()

    def update(self, network, inputs, attributions, target):
        pass

    def compute(self):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "metrics expected instances, classes or import paths of torchmetrics.Metric, but got 3"),
        ({"a": Answers}, "metrics expected instances, classes or import paths of torchmetrics.Metric, but got {'a'"),
        ([3], "metrics expected instances, classes or import paths of torchmetrics.Metric, but got 3"),
        ([nn.ReLU], "metrics expected instances, classes or import paths of torchmetrics.Metric"),
        (["sparsenes.Sparseness"], "metrics expected an import path .* but got 'sparsenes.Sparseness'"),
        (["torchmetrics.MeanMetrik"], "Did you mean 'MeanMetric'"),
        (
            [MeanMetric()],
            r"metrics expected update\(network, inputs, attributions, target\), but got MeanMetric.update",
        ),
        ([Wide], "metrics: Wide cannot be built .*width.*: give an instance"),
        ([Answers, Answers()], "metrics expected different classes, .* two Answers: .* class Another\\(Answers\\)"),
    ],
)
def test_refused_by_the_constructor(given, message):
    with pytest.raises(ValueError, match=message):
        AttributionMonitor(metrics=given)


@pytest.mark.parametrize("make", [lambda cls: "sparseness.Sparseness", lambda cls: cls, lambda cls: cls()])
def test_one_alone(make, sparseness):
    assert list(resolve_metrics(make(sparseness))) == ["Sparseness"]
