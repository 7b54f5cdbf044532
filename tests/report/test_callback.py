"""The callback that reports a run: stated before, compared once on the test samples, and never in the way."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import run_script
from retention_runs import QUIET, Module, data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import ModelExport, ModelReport, StructuredPruning
from lit_xai.report.checking import check_folder, rebuild
from lit_xai.report.record import Record
from lit_xai.report.statement import read_statement
from lit_xai.report.writing import FILES, verify

QUICK = {"n": 40, "nulls": 3, "rounds": 0, "explainers": ["IntegratedGradients"]}
SLOW = pytest.mark.slow
EXPECTED = ".*The number of training batches|.*exists and is not empty|The dirpath has changed"


class Data(LightningDataModule):
    """Two test samples are training samples too."""

    def __init__(self, test=True):
        super().__init__()
        self.test = test

    def train_dataloader(self):
        return DataLoader(data(64), 16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(data(50, 1), 16)

    def test_dataloader(self):
        if not self.test:
            raise NotImplementedError
        (x, y), (own, label) = data(118, 2)[:], data(64)[:2]
        return DataLoader(TensorDataset(torch.cat([x, own]), torch.cat([y, label])), 50)


def fit(folder, *callbacks, module=None, datamodule=None, epochs=3, ckpt_path=None, **options):
    torch.manual_seed(0)
    module = Module() if module is None else module
    trainer = Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), **{**QUIET, **options})
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*The number of training batches|.*exists and is not empty|The dirpath has"
        )
        trainer.fit(module, datamodule=datamodule or Data(), ckpt_path=ckpt_path)
    return trainer, module


def cut():
    return StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)


def facts(folder):
    return json.loads((Path(folder) / "facts.json").read_text())["facts"]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A run that ends with the file in integers; the report stands before the callbacks that it waits for."""
    folder = tmp_path_factory.mktemp("pruned")
    report = ModelReport({"accuracy": "drop<=90 %", "similarity": ">=-1", "size": "ratio<=5"}, **QUICK)
    trainer, module = fit(folder, report, cut(), ModelExport(int8=True, program=False))
    return folder, report, trainer, module


def test_the_file_in_integers_is_judged_against_the_dense_model(pruned):
    folder, report, *_ = pruned
    record = Record.load(folder)
    assert [one.name for one in record.networks] == ["dense", "pruned", "int8 file"]
    # The file has no gradients: what was asked for is left out, and said.
    assert [one.explainer for one in record.explained] == ["Occlusion"]
    assert any(one.startswith("IntegratedGradients was left out: ") for one in facts(folder)["limits"])
    assert set(FILES) <= {path.name for path in folder.iterdir()}
    assert verify(folder, report.digest) == []
    assert check_folder(folder)[1] == 0
    found = facts(folder)
    assert (found["stated"], found["reading"]) == ("before", 1)
    assert found["requirements"] == {"accuracy": "drop<=0.9", "similarity": ">=-1", "size": "ratio<=5"}
    assert "sha256 of model.onnx" in found["identity"]
    assert found["changes"][0]["protocol"].startswith("StructuredPruning(pruning_ratio=0.5")
    assert found["changes"][0]["impact"].startswith("MACs 496 -> ")


def test_the_data_are_named_with_what_they_served(pruned):
    found = facts(pruned[0])["data"]
    assert [(one["name"], one["n"]) for one in found["splits"]] == [("train", 64), ("val", 50), ("test", 120)]
    assert [one["n"] for one in found["overlaps"]] == [0, 2, 0]
    assert "2 of the test samples are train samples too." in facts(pruned[0])["limits"]
    before = "The reference is the model as it was just before the first structural step, and was trained no further"
    assert any(one.startswith(before) for one in facts(pruned[0])["limits"])
    assert found["splits"][2]["served"] == "this report"
    # In any order: the training data are shuffled in the run.
    again = facts(pruned[0])["data"]["splits"][0]["hash"]
    assert len(again) == 16


def test_the_reference_is_the_model_before_its_first_cut(pruned):
    folder, _, _, module = pruned
    record, x = Record.load(folder), Data().test_dataloader().dataset[:][0]
    with torch.no_grad():
        np.testing.assert_allclose(record.networks[1].outputs, module(x).numpy(), atol=1e-5)
    assert not np.allclose(record.reference.outputs, record.networks[1].outputs, atol=1e-2)
    assert record.reference.costs["parameters"] == 531


def test_a_run_is_bit_identical(tmp_path):
    _, alone = fit(tmp_path / "without", cut())
    report = ModelReport({"accuracy": "drop<=50 %"}, **QUICK)
    _, observed = fit(tmp_path / "with", cut(), report)
    assert report.record is not None
    for name, value in alone.state_dict().items():
        assert torch.equal(value, observed.state_dict()[name]), name


def test_without_test_loader_the_first_limits_say_so(tmp_path):
    best = ModelCheckpoint(tmp_path / "saved", monitor="val_loss")
    report = ModelReport({"flips": "<=100 %"}, **QUICK)
    fit(tmp_path, report, best, datamodule=Data(test=False))
    found = facts(tmp_path)
    assert found["limits"][0] == (
        "There is no test loader: what is called test samples here are the validation samples, which served decisions"
        " of the training (choice of the best epoch (val_loss), this report)."
    )
    assert report.record.networks[0].name == "start"
    assert found["identity"]["judged"].startswith("trained, with the weights of epoch ")


class Wardrobe(LightningModule):
    """Has no forward, and batches of its own form; one output stands for two classes."""

    def __init__(self):
        super().__init__()
        self.eyes = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        return nn.functional.binary_cross_entropy_with_logits(self.eyes(batch["pixels"])[:, 0], batch["coat"].float())

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx), batch_size=20)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Prices(Module):
    """A regression of two values."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


class Rows(LightningDataModule):
    def __init__(self, kind):
        super().__init__()
        x, y = data(60)[:]
        self.rows = (
            [{"pixels": a, "coat": int(b > 0), "shop": "ab"[i % 2]} for i, (a, b) in enumerate(zip(x, y, strict=True))]
            if kind == "dict"
            else TensorDataset(x, x[:, :2])
        )

    def train_dataloader(self):
        return DataLoader(self.rows, 20)

    val_dataloader = test_dataloader = train_dataloader


@pytest.mark.parametrize(
    ("module", "kind", "task", "require", "options"),
    [
        (Wardrobe, "dict", "binary", {"accuracy": "drop<=99 %"}, {"groups": "shop"}),
        (Prices, "values", "values", {"mae": "ratio<=9"}, {}),
    ],
)
def test_other_tasks_and_batches(module, kind, task, require, options, tmp_path):
    report = ModelReport(require, **QUICK, **options)
    fit(tmp_path, report, module=module(), datamodule=Rows(kind), epochs=1)
    assert report.record.task == task
    assert report.record.labels is not None
    assert report.record.group_names == (("a", "b") if options else ())
    assert check_folder(tmp_path)[1] == 0


def test_a_resumed_run_keeps_the_first_statement(tmp_path):
    saved = tmp_path / "saved"

    def callbacks(text="drop<=50 %"):
        keep = ModelCheckpoint(saved, filename="{epoch}", save_top_k=-1)
        return [cut(), ModelReport({"accuracy": text}, **QUICK), keep]

    fit(tmp_path, *callbacks(), epochs=3)
    first, record = read_statement(tmp_path), Record.load(tmp_path)
    fit(tmp_path, *callbacks(), epochs=3, ckpt_path=saved / "epoch=1.ckpt")
    second = read_statement(tmp_path)
    assert (second.time, second.sha256, second.readings) == (first.time, first.sha256, 2)
    assert (facts(tmp_path)["stated"], facts(tmp_path)["reading"]) == ("before", 2)
    np.testing.assert_allclose(Record.load(tmp_path).reference.outputs, record.reference.outputs, atol=1e-5)
    # Into another folder, with other requirements.
    fit(tmp_path / "other", *callbacks("drop<=60 %"), epochs=3, ckpt_path=saved / "epoch=1.ckpt")
    found = facts(tmp_path / "other")
    assert (found["stated"], found["reading"]) == ("afterwards", 3)
    assert any(
        one.startswith("Other requirements were stated before. Stated before the fir") for one in found["limits"]
    )


def test_a_run_that_did_not_end_says_so(tmp_path):
    class Killed(Module):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                raise KeyboardInterrupt

    report = ModelReport({"accuracy": "drop<=5 %"}, **QUICK)
    with pytest.raises(SystemExit):
        fit(tmp_path, report, module=Killed())
    for ask in (check_folder, rebuild):
        with pytest.raises(ValueError, match=r"did not end, so there is no report: .* accuracy drop<=0\.05\."):
            ask(tmp_path)
    # Another try may require the same; what differs would be stated after somebody saw how it went.
    with pytest.raises(ValueError, match=r"another run's stated\.json"):
        fit(tmp_path, ModelReport({"accuracy": "drop<=9 %"}, **QUICK), epochs=1)


def test_a_report_that_fails_is_a_warning(tmp_path, monkeypatch):
    report = ModelReport({"flips": "<=5 %"}, **QUICK)

    def broken(*args, **options):
        raise RuntimeError("no room")

    monkeypatch.setattr("lit_xai.report.callback.compare_networks", broken)
    with pytest.warns(UserWarning, match="there is no report, but the run's checkpoints are complete: RuntimeError"):
        fit(tmp_path, report, epochs=1)
    with pytest.raises(ValueError, match="ended without a report: RuntimeError: no room"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"require": {"acuracy": ">=0.9"}}, "Did you mean 'accuracy'?"),
        ({"require": {"accuracy": "better"}}, "expected a requirement"),
        ({"require": {"latency": "ratio<=1"}, "rounds": 0}, "rounds expected 1 or more where a latency is required"),
        ({"require": {"retention": ">=0.4"}, "explainers": []}, "explainers expected one or more"),
        ({"require": {"retention": ">=0.4"}, "n": 20}, "n expected 30 or more"),
        ({"reference": "previous"}, "reference expected 'dense', a checkpoint's path or a module"),
        ({"split": "train"}, "split expected 'test' or 'val'"),
        ({"explainers": ["Occlussion"]}, "Occlussion"),
        ({"n": 1}, "n expected an integer of at least 2"),
        ({"dirpath": ""}, "dirpath expected a folder's path or None"),
    ],
)
def test_wrong_arguments_are_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        ModelReport(**options)


def test_what_cannot_be_measured_is_refused_before_the_first_step(tmp_path):
    class Unlabelled(Data):
        def train_dataloader(self):
            return DataLoader(data(40).tensors[0], 20)

        val_dataloader = test_dataloader = train_dataloader

    class Blind(Prices):
        def training_step(self, batch, batch_idx):
            return self(batch).square().mean()

    report = ModelReport({"accuracy": "drop<=5 %"}, **QUICK)
    with pytest.raises(ValueError, match="require is about labels, but none were found"):
        fit(tmp_path, report, module=Blind(), datamodule=Unlabelled())
    (tmp_path / "report.html").write_text("of another run")
    with pytest.raises(ValueError, match="dirpath expected a folder without an earlier report"):
        fit(tmp_path, ModelReport(**QUICK))
    with pytest.raises(ValueError, match="reference expected a checkpoint or a module"):
        fit(tmp_path / "new", ModelReport(reference="none.ckpt", **QUICK))
    assert not list(tmp_path.rglob("stated.json"))


@SLOW
def test_killed_and_resumed(tmp_path):
    """With kill -9 in the middle: what was stated stays, and the report is that of the run that was not killed."""
    script = Path(__file__).with_name("report_run.py")
    run_script(script, tmp_path / "whole", "", processes=1)
    run_script(script, tmp_path / "killed", "kill", processes=1)
    with pytest.raises(ValueError, match="did not end, so there is no report"):
        check_folder(tmp_path / "killed")
    first = read_statement(tmp_path / "killed")
    run_script(script, tmp_path / "killed", "resume", processes=1)
    assert read_statement(tmp_path / "killed").sha256 == first.sha256
    whole, killed = (Record.load(tmp_path / name) for name in ("whole", "killed"))
    for one, other in zip(whole.networks, killed.networks, strict=True):
        np.testing.assert_allclose(one.outputs, other.outputs, atol=1e-5)
    assert [one.name for one in killed.networks] == ["dense", "pruned + quantized", "int8 file"]
    found = facts(tmp_path / "killed")
    assert (found["stated"], found["reading"]) == ("before", 1)
    assert check_folder(tmp_path / "killed", verify_all=True)[1] in (0, 10, 11)


@SLOW
def test_two_processes(tmp_path):
    run_script(Path(__file__).with_name("report_run.py"), tmp_path, "")
    assert Record.load(tmp_path).n == 120
    assert facts(tmp_path)["environment"]["devices"].startswith("2 of ")
