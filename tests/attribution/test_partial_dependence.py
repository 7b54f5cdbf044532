"""PartialDependence in runs: curves of planted effects, silent for the training, and refusing before it."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from witness import Witness

from lit_xai import PartialDependence
from lit_xai.data import Diabetes, Digits, Table, TableDataModule
from lit_xai.models import MLP, Classifier, LinearModel, NeuralAdditiveModel, Regressor


def run(model, data, folder, *callbacks, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "log_every_n_steps": 1, **quiet, **options}
    trainer = Trainer(callbacks=list(callbacks), default_root_dir=folder, **options)
    trainer.fit(model, datamodule=data)
    return trainer


def people(n=400):
    rng = np.random.default_rng(0)
    columns = {"age": rng.uniform(20, 60, n), "job": rng.choice(["cook", "nurse", "pilot"], n)}
    return TableDataModule.from_table(Table.from_columns(columns, rng.choice(["low", "high"], n)))


class Planted(nn.Module):
    """Logits that are known: of age in years, normalized, and of the job's column."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        score = x[:, 0] ** 2 + 3 * x[:, 2] + 0 * self.unused
        return torch.stack([torch.zeros_like(score), score], 1)


def test_curves_are_the_planted_effects_in_the_features_own_units(tmp_path):
    data = people()
    run(Classifier(Planted(), num_classes=2), data, tmp_path, PartialDependence(n=1000))
    (path,) = tmp_path.rglob("curves.npz")
    with np.load(path) as curves:
        ages = curves["age/values"]
        normalized = (ages - data.mean[0]) / data.std[0]
        effects = curves["age/effects"]
        np.testing.assert_allclose(effects - effects.mean(), normalized**2 - (normalized**2).mean(), atol=1e-4)
        assert 20 <= ages[0] < ages[-1] <= 60
        jobs = curves["job/effects"]
    np.testing.assert_allclose(jobs - jobs[0], [0, 3, 0], atol=1e-5)
    shares = (data.val_dataset.inputs[:, 1:] + torch.tensor(data.mean[1:])).mean(0).numpy()
    assert float(jobs @ shares) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("model", [lambda: NeuralAdditiveModel(10, hidden=[4]), lambda: MLP(10, [4], 1)])
def test_a_run_is_bit_for_bit_the_run_without_it(model, tmp_path):
    seen = []
    for callbacks in ([PartialDependence(n=20, points=3)], []):
        torch.manual_seed(0)
        witness = Witness()
        run(Regressor(model()), Diabetes(batch_size=64), tmp_path / str(len(seen)), *callbacks, witness, max_epochs=2)
        seen.append(witness.seen())
    assert seen[0] == seen[1]
    assert len(list(tmp_path.rglob("figure.png"))) == 2


def test_images_and_several_classes_are_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r"inputs expected one table \(N, features\) of real numbers"):
        run(Classifier(MLP(64, [4], 10), num_classes=10), Digits(batch_size=64), tmp_path, PartialDependence())
    rng = np.random.default_rng(0)
    data = TableDataModule.from_table(Table(rng.normal(size=(90, 2)), np.arange(90) % 3))
    with pytest.raises(ValueError, match="target expected a class from 0 to 2, as the network has 3 outputs"):
        run(Classifier(LinearModel(2, 3), num_classes=3), data, tmp_path, PartialDependence())
    run(Classifier(LinearModel(2, 3), num_classes=3), data, tmp_path, PartialDependence(target=2))
    assert len(list(tmp_path.rglob("figure.png"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n expected an integer of at least 2"),
        ({"points": 1}, "points expected an integer of at least 2"),
        ({"target": -1}, "target expected an integer of at least 0"),
    ],
)
def test_refuses_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        PartialDependence(**options)
