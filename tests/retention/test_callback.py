"""The monitor of retention in real runs: right, bit-identical, resumable, on models compressed by anybody."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from callbacks_settings import SETTINGS, fit
from lightning.pytorch import Trainer
from retention_runs import FAST, QUIET, Module, data, run
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_xai
from lit_xai import RetentionMonitor, StructuredPruning
from lit_xai.retention.explainer import Explainer


def read(folder):
    return json.loads((folder / "retention" / "retention.json").read_text())


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    monitor = RetentionMonitor(on_error="raise", **(FAST | {"second_explainer": "Occlusion", "nulls": 6}))
    cut = StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    run(folder, cut, monitor)
    return folder, monitor


def test_a_pruned_run(pruned):
    folder, monitor = pruned
    found = read(folder)
    assert found["reference"] == "dense"
    assert list(found["explainers"]) == ["IntegratedGradients", "Occlusion"]
    integrated = found["explainers"]["IntegratedGradients"]
    assert integrated["n"] == 40
    assert integrated["similarity"] < 0.999
    assert {"8 bits", "3 bits"} <= set(integrated["references"])
    assert integrated["paragraph"].startswith(
        "IntegratedGradients on 40 validation samples resembles the dense model's"
    )
    assert integrated["paragraph"].endswith("This says how much changed, not whether it got worse.")
    assert [one["when"] for one in found["history"]] == ["epoch 1", "epoch 2", "epoch 3"]
    assert found["predictions"]["n"] == 50
    assert monitor.result["IntegratedGradients"].similarity == integrated["similarity"]


def test_before_the_cut_there_is_no_reading(pruned):
    """The reference is the model just before its first cut, at the start of epoch 1."""
    folder, _ = pruned
    assert all(one["when"] != "epoch 0" for one in read(folder)["history"])


def test_the_numbers_are_those_of_the_functions(tmp_path):
    """Against the dense model of a checkpoint, by hand."""
    dense = Module()
    run(tmp_path / "dense", module=dense)
    torch.manual_seed(5)
    monitor = RetentionMonitor(dense, on_error="raise", **(FAST | {"n": 50}))
    _, module = run(tmp_path, monitor, epochs=1)
    x = data(50, 1).tensors[0]
    found = lit_xai.functional.measure_retention(dense.network, module.network, x, nulls=0, ladder=())
    assert monitor.result["IntegratedGradients"].similarity == pytest.approx(found.similarity, abs=1e-6)
    assert monitor.predictions.flips.value == pytest.approx(1 - found.agreement)


def test_the_reference_itself_has_one(tmp_path):
    """A run without a step and without learning."""
    module = Module()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.0)
    monitor = RetentionMonitor(on_error="raise", **FAST)
    run(tmp_path, monitor, module=module, epochs=2)
    assert monitor.result["IntegratedGradients"].similarity == pytest.approx(1, abs=1e-6)
    assert monitor.predictions.flips.value == 0


def test_the_previous_evaluation(tmp_path):
    monitor = RetentionMonitor("previous", on_error="raise", **FAST)
    run(tmp_path, monitor, epochs=4)
    history = read(tmp_path)["history"]
    assert [one["when"] for one in history] == ["epoch 1", "epoch 2", "epoch 3"]
    integrated = read(tmp_path)["explainers"]["IntegratedGradients"]
    assert "the previous evaluation's" in integrated["paragraph"]
    assert integrated["similarity"] == pytest.approx(history[-1]["numbers"]["similarity/IntegratedGradients"])
    with np.load(tmp_path / "retention" / "samples.npz") as arrays:  # of that evaluation, not of the model itself
        assert not np.allclose(arrays["maps IntegratedGradients"], arrays["reference maps IntegratedGradients"])


def test_a_checkpoint_as_the_reference(tmp_path):
    trainer, _ = run(tmp_path / "dense")
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    monitor = RetentionMonitor(str(tmp_path / "dense.ckpt"), on_error="raise", **FAST)
    run(tmp_path, monitor, epochs=2)
    assert 0 < monitor.result["IntegratedGradients"].similarity < 1


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting != "ddp"])
def test_a_run_is_bit_identical(setting, tmp_path):
    monitor = RetentionMonitor(**FAST, on_error="raise")
    assert fit(setting, monitor, tmp_path / "with") == fit(setting, None, tmp_path / "without")
    assert (tmp_path / "with").exists()
    assert monitor.result


def test_a_resumed_run_goes_on(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    def callbacks(folder):
        cut = StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
        saved = ModelCheckpoint(folder / "saved", filename="{epoch}", save_top_k=-1)
        return [cut, RetentionMonitor(on_error="raise", **FAST), saved]

    run(tmp_path / "whole", *callbacks(tmp_path / "whole"), epochs=4)
    run(tmp_path / "first", *callbacks(tmp_path / "first"), epochs=4)
    checkpoint = next(iter(sorted((tmp_path / "first" / "saved").glob("epoch=2*.ckpt"))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The dirpath has changed")
        run(tmp_path / "second", *callbacks(tmp_path / "second"), epochs=4, ckpt_path=checkpoint)
    whole, second = read(tmp_path / "whole"), read(tmp_path / "second")
    assert second["history"] == whole["history"]
    names = ("similarity", "retention", "references", "null")
    for name in names:
        assert second["explainers"]["IntegratedGradients"][name] == whole["explainers"]["IntegratedGradients"][name]


def test_nothing_is_left_on_the_module(tmp_path):
    _, module = run(tmp_path / "with", RetentionMonitor(on_error="raise", **FAST), epochs=1)
    _, plain = run(tmp_path / "without", epochs=1)
    assert set(vars(module)) == set(vars(plain))
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())


def test_the_time_is_kept(tmp_path):
    monitor = RetentionMonitor(on_error="raise", **(FAST | {"time_share": 0.0, "time_budget": 0.0, "nulls": 8}))
    with pytest.warns(UserWarning, match="raise time_budget"), pytest.warns(UserWarning, match="time_share"):
        run(tmp_path, monitor, epochs=4)
    found = read(tmp_path)
    assert [one["when"] for one in found["history"]] == ["epoch 0", "epoch 3"]  # the first, and the last in any case
    assert found["explainers"]["IntegratedGradients"]["null"]["n"] == 5
    assert not any("bits" in name for name in found["explainers"]["IntegratedGradients"]["references"])


def test_a_probe_of_ones_own(tmp_path):
    class Marked(Module):
        def marked(self):
            x, y = data(45, 3).tensors
            return DataLoader(TensorDataset(x + 3, y), 15)

    monitor = RetentionMonitor(probe="marked", on_error="raise", **FAST)
    run(tmp_path, monitor, module=Marked(), epochs=1)
    found = read(tmp_path)
    assert found["samples"] == "probe"
    assert found["predictions"]["n"] == 45


def test_the_first_classes_are_in_proportion(tmp_path):
    monitor = RetentionMonitor(on_error="raise", **(FAST | {"n": 20}))
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[monitor], **QUIET)
    seen = {}
    monitor.on_train_batch_end = lambda *args: seen.update(found=monitor._comparison)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Module(), DataLoader(data(), 16), DataLoader(data(200, 1), 16))
    assert len(seen["found"].pool) == 200
    assert len(seen["found"].sample) == 20


class Other(Module):
    """A dict batch, and two inputs."""

    def forward(self, left, right):
        return self.network(torch.cat([left, right], 1))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch["left"], batch["right"]), batch["garment"])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, n, seed):
        self.x, self.y = data(n, seed).tensors

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"left": self.x[i, :5], "right": self.x[i, 5:], "garment": self.y[i], "site": "ab"[i % 2]}


def test_a_batch_of_ones_own(tmp_path):
    monitor = RetentionMonitor(on_error="raise", groups={"site": "site"}, **FAST)
    run(tmp_path, monitor, module=Other(), train=DataLoader(Pairs(64, 0), 16), val=DataLoader(Pairs(50, 1), 16))
    assert monitor.predictions.accuracy is not None
    assert monitor.result["IntegratedGradients"].n == 40
    assert set(read(tmp_path)["predictions"]["groups"]) == {"site=a", "site=b"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n": 1}, "n expected an integer of at least 2, but got 1"),
        ({"explainer": "IntegratedGradient"}, "Did you mean 'IntegratedGradients'"),
        ({"second_explainer": "IntegratedGradients"}, "second_explainer expected another method"),
        ({"ladder": (1,)}, "ladder expected numbers of bits"),
        ({"time_share": "much"}, "time_share expected a share"),
        ({"reference": 3}, "reference expected 'dense'"),
    ],
)
def test_bad_arguments(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        RetentionMonitor(**options)


def test_bad_input_is_refused_before_the_first_step(tmp_path):
    module = Module()
    stepped = []
    module.on_train_batch_end = lambda *args: stepped.append(1)
    one = DataLoader(data(1, 1), 1)
    with pytest.raises(ValueError, match="two samples or more"):
        run(tmp_path, RetentionMonitor(**FAST), module=module, val=one)
    with pytest.raises(ValueError, match="probe expected a loader, or the name of a method"):
        run(tmp_path, RetentionMonitor(probe="nothing", **FAST), module=module)
    with pytest.raises(ValueError, match="groups"):
        run(tmp_path, RetentionMonitor(groups={"g": "nothing"}, **FAST), module=module)
    matched = lit_xai.KnowledgeDistillation("ema", explanation=lit_xai.ExplanationMatching("input_x_gradient"))
    with pytest.raises(Exception, match="trains on: add a method that nobody trains on"):
        run(tmp_path, matched, RetentionMonitor(**(FAST | {"explainer": "InputXGradient"})), module=module)
    assert not stepped


def test_a_reference_of_other_classes(tmp_path):
    other = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
    with pytest.warns(UserWarning, match="The reference gives .*expected the same outputs"):
        run(tmp_path, RetentionMonitor(other, **FAST), epochs=1)


def test_a_layer_whose_width_is_cut(tmp_path):
    cut = StructuredPruning(0.5, start_epoch=0, end_epoch=0, round_to=1, report_latency=False)
    layer = Explainer("LayerActivation", layer="network.0")
    with pytest.warns(UserWarning, match="explain a layer whose width stays, or the input"):
        run(tmp_path, cut, RetentionMonitor(**(FAST | {"explainer": layer})), epochs=1)


def test_samples_are_written(pruned):
    folder, _ = pruned
    with (folder / "retention" / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert {"index", "similarity IntegratedGradients", "reference", "prediction", "label"} <= set(rows[0])
    with np.load(folder / "retention" / "samples.npz") as arrays:
        similar = arrays["similarity IntegratedGradients"]
        assert (
            arrays["maps IntegratedGradients"].shape == arrays["reference maps IntegratedGradients"].shape == (40, 12)
        )
    mean = read(folder)["explainers"]["IntegratedGradients"]["similarity"]
    assert similar.mean() == pytest.approx(mean)
    assert np.mean([float(row["similarity IntegratedGradients"]) for row in rows]) == pytest.approx(mean)


def fails(*args, **kwargs):
    raise RuntimeError("no luck")


def test_what_cannot_be_measured_ends_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_xai.retention.reference.untrained_copy", fails)
    with pytest.warns(UserWarning, match="is held against nothing. RuntimeError: no luck"):
        run(tmp_path / "a", RetentionMonitor(**FAST), epochs=1)
    found = read(tmp_path / "a")["explainers"]["IntegratedGradients"]
    assert found["null"] is None
    assert found["similarity"] > -1
    with pytest.raises(RuntimeError, match="no luck"):
        run(tmp_path / "b", RetentionMonitor(**FAST, on_error="raise"), epochs=1)


def test_a_reference_that_cannot_be_explained_ends_no_run(tmp_path, monkeypatch):
    cut = StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    monkeypatch.setattr("lit_xai.retention.comparison.Explained.of", fails)
    with pytest.warns(UserWarning, match="the reference cannot be explained. RuntimeError: no luck"):
        trainer, _ = run(tmp_path, cut, RetentionMonitor(**FAST), epochs=2)
    assert trainer.current_epoch == 2
    assert not (tmp_path / "retention" / "retention.json").exists()


class Values(Module):
    """A regression of several values, which are no scores of classes."""

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self(batch[0])[:, : batch[1].shape[1]], batch[1])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


@pytest.mark.parametrize("width", [3, 1])  # values of all outputs, or of the first: a mean beside a variance
def test_values_are_no_classes(width, tmp_path):
    train, val = (
        TensorDataset(data(n, seed).tensors[0], torch.randn(n, width, generator=torch.Generator().manual_seed(seed)))
        for n, seed in ((64, 0), (50, 1))
    )
    torch.manual_seed(1)
    monitor = RetentionMonitor("previous", on_error="raise", **FAST)
    run(tmp_path, monitor, module=Values(), epochs=2, train=DataLoader(train, 16), val=DataLoader(val, 16))
    found = read(tmp_path)
    integrated = found["explainers"]["IntegratedGradients"]
    assert integrated["agreement"] is None
    assert "another sample of the same class" not in integrated["references"]
    assert "the input itself" in integrated["references"]
    assert "Predictions agree" not in integrated["paragraph"]
    assert found["predictions"]["flips"] is None
    assert (found["predictions"]["absolute_error"] is None) == (width == 1)
    with (tmp_path / "retention" / "samples.csv").open() as file:
        assert "prediction" not in next(csv.DictReader(file))


def test_inputs_without_rows_are_refused(tmp_path):
    class Graph(Module):
        def forward(self, x, batch):
            pooled = torch.zeros(int(batch.max()) + 1, 12).index_add(0, batch, x)
            return self.network(pooled)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch["x"], batch["batch"]), batch["y"])

        validation_step = training_step

    def collate(items):
        sizes = torch.arange(len(items)) % 3 + 1
        x = torch.cat([one.expand(int(n), 12) for (one, _), n in zip(items, sizes, strict=True)])
        rows = torch.arange(len(items)).repeat_interleave(sizes)
        return {"x": x, "batch": rows, "y": torch.stack([label for _, label in items])}

    loader = DataLoader(data(), 16, collate_fn=collate)
    with pytest.raises(ValueError, match="RetentionMonitor expected inputs with a row for each sample"):
        run(tmp_path, RetentionMonitor(**FAST), module=Graph(), train=loader, val=loader)


def test_predictions_that_fail_end_no_run(tmp_path, monkeypatch):
    from lit_xai.retention import comparison

    calls = []

    def predict(*args, **kwargs):
        calls.append(1)
        return fails() if len(calls) > 1 else original(*args, **kwargs)  # the reference's come first

    original = comparison.predict
    monkeypatch.setattr(comparison, "predict", predict)
    with pytest.warns(UserWarning, match="an evaluation is left out, and training continues. RuntimeError: no luck"):
        trainer, _ = run(tmp_path, RetentionMonitor(**FAST), epochs=2)
    assert trainer.current_epoch == 2
