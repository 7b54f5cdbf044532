"""Table data: split, statistics, refused tables, and a dataset that an outsider adds in one file."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from lit_xai import AttributionMonitor
from lit_xai.data import Table, TableDataModule
from lit_xai.models import MLP, Classifier, Regressor

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")

# The whole file that adds a dataset.
BREAST_CANCER = '''
"""Is a tumor malignant? 30 measures of 569 cell nuclei, from scikit-learn."""

from sklearn.datasets import load_breast_cancer

from lit_xai.data import Table, TableDataModule


class BreastCancer(TableDataModule):
    """W. Wolberg et al., "Breast Cancer Wisconsin (Diagnostic)", UCI Machine Learning Repository (1995)."""

    def read(self):
        found = load_breast_cancer()
        return Table(found.data, found.target, found.feature_names, found.target_names)
'''


@pytest.fixture
def breast_cancer(tmp_path, monkeypatch):
    (tmp_path / "breast_cancer.py").write_text(BREAST_CANCER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "breast_cancer", raising=False)
    import breast_cancer

    return breast_cancer.BreastCancer


def numbers(n=50, columns=3):
    return np.random.default_rng(0).normal(5.0, 3.0, (n, columns))


def test_an_outsiders_dataset_trains_and_its_explanations_show_feature_names(
    breast_cancer, make_trainer, tmp_path, monkeypatch
):
    import lit_xai.render

    figures = []
    original = lit_xai.render.attribution_figure
    monkeypatch.setattr(lit_xai.render, "attribution_figure", lambda *a, **k: figures.append(k) or original(*a, **k))
    torch.manual_seed(0)
    data, model = breast_cancer(batch_size=32), Classifier(MLP(30, (16,), 2), num_classes=2)
    monitor = AttributionMonitor(baselines="black", on_error="raise")
    trainer = make_trainer(max_epochs=8, callbacks=[monitor], default_root_dir=tmp_path)
    trainer.fit(model, datamodule=data)
    assert trainer.test(model, datamodule=data, verbose=False)[0]["test/accuracy"] > 0.93
    assert figures[-1]["feature_names"] == list(load_breast_cancer().feature_names)
    assert figures[-1]["class_names"] == ["malignant", "benign"]
    # "black" is a row of zeros before normalization.
    baseline = np.load(next(tmp_path.rglob("attributions.npz")))["baseline"]
    np.testing.assert_allclose(baseline[0], -np.array(data.mean) / np.array(data.std), rtol=1e-5)


def test_an_outsiders_dataset_in_yaml(breast_cancer, tmp_path, monkeypatch):
    config = "data:\n  class_path: breast_cancer.BreastCancer\n  init_args: {batch_size: 16, val_size: 50}\n"
    (tmp_path / "table.yaml").write_text(config)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls a method of it with a new name
    monkeypatch.setattr(sys, "argv", ["lit-xai", "--config", str(tmp_path / "table.yaml")])
    data = LightningCLI(BoringModel, subclass_mode_data=True, seed_everything_default=False, run=False).datamodule
    data.setup("fit")
    assert isinstance(data, breast_cancer)
    assert (data.batch_size, len(data.val_dataset), data.num_classes) == (16, 50, 2)


def test_statistics_are_scikit_learns_of_the_training_rows():
    features = numbers() + np.array([0.0, 1e9, 0.0])  # of the second column float32 would keep no digit that differs
    data = TableDataModule.from_table(Table(features, np.arange(50) % 3))
    data.setup()
    train, val, test = data.split(50)
    scaler = StandardScaler().fit(features[train])
    np.testing.assert_allclose(data.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(data.std, scaler.scale_, rtol=1e-6)
    for rows, dataset in ((train, data.train_dataset), (val, data.val_dataset), (test, data.test_dataset)):
        np.testing.assert_allclose(dataset.inputs.numpy(), scaler.transform(features[rows]), atol=1e-5)
        assert dataset.targets.tolist() == (np.arange(50) % 3)[rows].tolist()


def test_without_normalization_and_with_a_constant_column():
    features = numbers(20)
    features[:, 1] = 4.0
    plain = TableDataModule.from_table(Table(features, np.zeros(20, int)), normalize=False)
    plain.setup()
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
    assert torch.equal(plain.test_dataset.inputs, torch.tensor(features[plain.split(20)[2]]).float())
    data = TableDataModule.from_table(Table(features, np.zeros(20, int)))
    data.setup()
    assert data.std[1] == 1.0
    assert not data.train_dataset.inputs[:, 1].any()


def test_the_split_has_no_row_twice_and_follows_the_seed():
    data, other = (TableDataModule(seed=seed, test_size=7, val_size=0.25, train_size=9) for seed in (0, 1))
    train, val, test = data.split(31)
    assert [len(part) for part in (train, val, test)] == [9, 6, 7]
    assert len(set(torch.cat([train, val, test]).tolist())) == 22
    assert not torch.equal(other.split(31)[2], test)


def test_read_once_and_by_any_stage():
    class Counted(TableDataModule):
        reads = 0

        def read(self):
            self.reads += 1
            return Table(numbers(), np.arange(50) % 2)

    tested, fitted = Counted(), Counted()
    tested.setup("test")
    for stage in ("fit", "validate", "test", "predict"):
        fitted.setup(stage)
    assert (tested.reads, fitted.reads) == (1, 1)
    assert tested.train_dataset is None
    assert torch.equal(tested.test_dataset.inputs, fitted.test_dataset.inputs)


def test_a_subclass_may_split_by_time():
    class Ordered(TableDataModule):
        def split(self, n):
            index = torch.arange(n)
            return index[:30], index[30:40], index[40:]

    data = Ordered.from_table(Table(numbers(), np.arange(50)))
    data.setup()
    assert data.val_dataset.targets.tolist() == list(range(30, 40))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regression(outputs, make_trainer):
    x = numbers(200)
    y = x[:, 0] if outputs == 1 else x[:, :2]
    data = TableDataModule.from_table(Table(x, y), batch_size=50)
    trainer, model = make_trainer(max_epochs=2), Regressor(MLP(3, (4,), outputs))
    trainer.fit(model, datamodule=data)
    assert data.train_dataset.targets.dtype == torch.float32
    assert data.feature_names is None


def test_constructor_arguments_are_in_the_checkpoint_and_the_table_is_not(breast_cancer, make_trainer, tmp_path):
    trainer = make_trainer(limit_train_batches=1, limit_val_batches=0)
    trainer.fit(Classifier(MLP(30, (4,), 2), num_classes=2), datamodule=breast_cancer(batch_size=17, normalize=False))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    again = breast_cancer.load_from_checkpoint(tmp_path / "some.ckpt")
    assert (again.batch_size, again.normalize) == (17, False)
    assert Path(tmp_path / "some.ckpt").stat().st_size < 20_000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": [["red", 1.0]] * 4}, "features expected numbers .* could not convert string"),
        ({"features": np.zeros(4)}, r"features expected numbers \(N, features\), but got shape \(4,\)"),
        ({"features": np.zeros((0, 2)), "labels": []}, r"but got shape \(0, 2\)"),
        ({"features": [[1.0, np.nan]] * 4}, "finite numbers, but got NaN or infinity in 1 columns, first in column 1"),
        ({"labels": [0, 1]}, "labels expected one class index or number for each of 4 rows, but got int64"),
        ({"labels": list("abcd")}, "labels expected one class index or number for each of 4 rows, but got <U1"),
        ({"labels": [0, 1, 2, 3], "class_names": ["no", "yes"]}, "labels expected classes from 0 to 1, but got 0 to 3"),
        ({"labels": [-1, 0, 1, 0]}, "labels expected classes from 0 to 1, but got -1 to 1"),
        ({"feature_names": ["one"]}, "feature_names expected 2 names, but got 1"),
    ],
)
def test_refuses_tables_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        Table(**{"features": np.zeros((4, 2)), "labels": [0, 1, 0, 1]} | given)


def test_refuses_what_leaves_nothing_to_train_on():
    table = Table(numbers(), np.arange(50))
    with pytest.raises(ValueError, match="test_size expected to leave some of the 50 rows to train on, but got 50"):
        TableDataModule.from_table(table, test_size=50).setup()
    with pytest.raises(ValueError, match="test_size expected a number of samples up to 50"):
        TableDataModule.from_table(table, test_size=51).setup()
    with pytest.raises(MisconfigurationException, match=r"has no table: implement read\(\)"):
        TableDataModule().setup()
