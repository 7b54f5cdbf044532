"""SurrogateTree in runs: faithful to a network that is a tree, silent for the training, and refusing before it."""

import csv

import numpy as np
import pytest
import torch
from callbacks_settings import fit
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lit_xai import AttributionMonitor, SurrogateTree
from lit_xai.data import BreastCancer, Diabetes, Digits, Table, TableDataModule
from lit_xai.models import MLP, Classifier, LinearModel, Regressor


def run(model, data, tmp_path, *callbacks, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logger = CSVLogger(tmp_path, name="", version="run")
    options = {"max_epochs": 1, "accelerator": "cpu", "logger": logger, "log_every_n_steps": 1, **quiet, **options}
    trainer = Trainer(callbacks=list(callbacks), **options)
    trainer.fit(model, datamodule=data)
    with open(tmp_path / "run" / "metrics.csv") as file:
        return [{k: float(v) for k, v in row.items() if v and "/" in k} for row in csv.DictReader(file)]


def logged(rows, name):
    return [row[name] for row in rows if name in row]


@pytest.mark.parametrize("setting", ["norm and dropout", "bf16-mixed"])
def test_a_run_is_bit_for_bit_the_run_without_it(setting, tmp_path):
    tree, monitored = SurrogateTree(n=16, leaves=3, on_labels=True), {"probe": 2}
    with_tree = fit(setting, AttributionMonitor(**monitored), tmp_path / "a", further=[tree])
    assert with_tree == fit(setting, AttributionMonitor(**monitored), tmp_path / "b")
    assert len(list((tmp_path / "a").rglob("surrogate/*/tree.txt"))) == 2


def test_a_network_that_is_a_rule_has_a_faithful_tree(tmp_path):
    class Rule(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            score = torch.where(x[:, 0] > 0, x[:, 1], -torch.ones_like(x[:, 1])) + 0 * self.unused
            return torch.stack([-score, score], 1)

    x = np.random.default_rng(0).normal(40, 10, (1200, 3))
    data = TableDataModule.from_table(Table(x, (x[:, 2] > 40).astype(int), ["age", "hours", "height"], ["no", "yes"]))
    rows = run(Classifier(Rule(), num_classes=2), data, tmp_path, SurrogateTree(leaves=3, on_labels=True))
    assert logged(rows, "surrogate/fidelity")[0] > 0.98
    assert logged(rows, "surrogate/label_agreement")[0] < 0.65
    assert logged(rows, "surrogate/label_tree")[0] > 0.98
    tree = next(tmp_path.rglob("tree.txt")).read_text()
    # In years and hours, as before normalization, and of the two features that the network looks at.
    assert "height" not in tree
    limits = [float(line.rpartition("<=")[2]) for line in tree.splitlines() if "<=" in line]
    assert np.abs(np.array(limits) - 40).max() < 1.5


@pytest.mark.parametrize(
    ("data", "model", "least"),
    [
        (BreastCancer(batch_size=32), lambda: Classifier(MLP(30, [16], 2), num_classes=2), 0.9),
        (Digits(batch_size=64), lambda: Classifier(MLP(64, [32], 10), num_classes=10), 0.6),
        (Diabetes(batch_size=32), lambda: Regressor(LinearModel(10)), 0.5),
    ],
)
def test_real_data(data, model, least, tmp_path):
    torch.manual_seed(0)
    callback = SurrogateTree(leaves=16, every_n_epochs=2)
    rows = run(model(), data, tmp_path, callback, max_epochs=3)
    fidelity = logged(rows, "surrogate/fidelity")
    assert len(fidelity) == 2  # after the second epoch and after the last one
    assert fidelity[-1] > least
    assert sorted(path.parent.name for path in tmp_path.rglob("figure.png")) == ["epoch=1", "epoch=2"]


def test_a_tree_that_is_not_the_network_says_so_loudly(tmp_path, caplog):
    torch.manual_seed(0)
    model = Classifier(MLP(64, [32], 10), num_classes=10)
    with caplog.at_level("INFO"):
        rows = run(model, Digits(batch_size=64), tmp_path, SurrogateTree(), max_epochs=3)
    # Ten classes get twenty leaves, and yet not what the network answers.
    assert 0.3 < logged(rows, "surrogate/fidelity")[-1] < 0.9
    assert logged(rows, "surrogate/constant")[-1] < 0.3
    assert next(tmp_path.rglob("tree.txt")).read_text(encoding="utf-8").startswith("Not faithful: for ")
    assert "surrogate, the last tree: Not faithful: for " in caplog.text


@pytest.mark.filterwarnings("ignore:Total length of")  # Lightning's, of no validation data
def test_without_validation_data_a_quarter_is_held_out(tmp_path):
    callback = SurrogateTree(n=100)
    rows = run(Classifier(MLP(30, [4], 2), num_classes=2), BreastCancer(val_size=0), tmp_path, callback)
    assert len(logged(rows, "surrogate/fidelity")) == 1
    assert len(callback._train.labels) == 75
    assert len(callback._held_out.labels) == 25


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))

    def forward(self, x):
        return self.layers(x)


def test_tokens_are_refused_before_the_first_step(tmp_path):
    from torch.utils.data import DataLoader, TensorDataset

    model = Classifier(Tokens(), num_classes=2)
    loader = DataLoader(TensorDataset(torch.randint(9, (16, 3)), torch.arange(16) % 2), batch_size=8)
    options = {"logger": False, "accelerator": "cpu", "default_root_dir": tmp_path, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=1, log_every_n_steps=1, callbacks=[SurrogateTree()], **options)
    with pytest.raises(ValueError, match=r"inputs expected a tensor \(N, ...\) of real numbers"):
        trainer.fit(model, loader, loader)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leaves": 1}, "leaves expected an integer of at least 2, but got 1"),
        ({"n": 4}, "n expected an integer of at least 8, but got 4"),
        ({"on_labels": "yes"}, "on_labels expected True or False"),
        ({"name": "a/b"}, "name expected the name of a folder"),
    ],
)
def test_refuses_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SurrogateTree(**options)
