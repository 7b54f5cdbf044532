"""Exports of real runs: which weights are in the files, and that the run itself knows nothing of it."""

import copy
import io
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_xai
from lit_xai import QuantizationAwareTraining, StructuredPruning, load_from_checkpoint
from lit_xai.export.exporter import Exporter
from lit_xai.export.weights import final_weights, live_weights
from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.quantization import quantize

# A torch.export program takes seconds; one test looks at it.
ModelExport = partial(lit_xai.ModelExport, program=False)
DENSE, FLOAT, PTQ = "dense (ONNX Runtime)", "fp32 (ONNX Runtime)", "post-training quantized (torch)"
FAKE, INT8 = "fake-quantized (torch)", "int8 (ONNX Runtime)"


def data(n=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 8, 8, generator=generator)
    return TensorDataset(x, (x.mean((1, 2, 3)) > 0).long())


def loader(n=48, seed=0):
    return DataLoader(data(n, seed), batch_size=16)


class Module(LightningModule):
    """Somebody's module; its best epoch is the first, whatever it learns."""

    def __init__(self, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(64 * width, 2)

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/score", 0.0 - self.current_epoch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def best(folder):
    return ModelCheckpoint(folder / "ckpt", "{epoch}", monitor="val/score", mode="max", save_last=True)


def fit(folder, *callbacks, module=None, ckpt_path=None, loaders=None, **options):
    seed_everything(1, verbose=False)
    module = Module() if module is None else module
    options = {"max_epochs": 2, "logger": False, "enable_progress_bar": False, **options}
    trainer = Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        **options,
    )
    loaders = {"train_dataloaders": loader(), "val_dataloaders": loader(40, 1)} if loaders is None else loaders
    trainer.fit(module, ckpt_path=ckpt_path, **loaders)
    return module, trainer


def run(file, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: np.asarray(x)})[0])


@torch.no_grad()
def outputs(module, x):
    return module.eval()(x)


X = data(40, 1).tensors[0]


def rows(callback):
    return [row.name for row in callback.report.rows]


def test_runtimes_are_compared_with_the_best_weights(tmp_path):
    export = ModelExport(int8=True, runtimes=["openvino"], batch_sizes=[2], program=False)
    fit(tmp_path, export, best(tmp_path))
    assert {row.runtime for row in export.report.runtimes} == {"ONNX Runtime", "OpenVINO"}
    assert {size for row in export.report.runtimes for size in row.latency} == {2}
    assert export.report.advice in (tmp_path / "export" / "report.md").read_text()


def test_runtimes_are_checked_when_it_is_made():
    with pytest.raises(ValueError, match=r"runtimes\[0\] expected one of .* Did you mean 'openvino'?"):
        ModelExport(runtimes=["open-vino"])
    with pytest.raises(ValueError, match=r"batch_sizes\[0\] expected a positive integer, but got 0"):
        ModelExport(batch_sizes=[0])


# --- which weights ------------------------------------------------------------------------------------------------


def test_the_best_checkpoint_is_exported_and_named_and_the_live_module_is_left_alone(tmp_path):
    export = ModelExport()
    module, _ = fit(tmp_path, export, best(tmp_path), max_epochs=3)
    path = tmp_path / "ckpt" / "epoch=0.ckpt"
    found = run(tmp_path / "export" / "model.onnx", X)
    torch.testing.assert_close(found, outputs(load_from_checkpoint(Module, path), X), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, outputs(module, X), atol=1e-2)  # the live one went on for two epochs
    assert f"epoch 0, val/score 0, {path}" in export.report.source
    assert "compared on the validation data" in export.report.source
    assert export.report.samples == 40


@pytest.mark.parametrize("saving", [[], [ModelCheckpoint]])
def test_without_a_monitor_the_last_weights_are_exported(saving, tmp_path):
    export = ModelExport()
    module, _ = fit(tmp_path, export, *(one(tmp_path / "ckpt") for one in saving))
    torch.testing.assert_close(run(tmp_path / "export" / "model.onnx", X), outputs(module, X), rtol=1e-4, atol=1e-5)
    assert export.report.source.startswith("epoch 1, the last weights")


class Before(Callback):
    """Keeps what the module was at the start of an epoch; comes before the callback that changes it."""

    def __init__(self, epoch):
        self.epoch, self.outputs = epoch, None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.outputs = outputs(pl_module, X)
            pl_module.train()


def in_float(module):
    """The outputs of a quantized module whose fake-quantizers are switched off."""
    copied = copy.deepcopy(module)
    find_fake_quantizers(copied).enable_fake_quant_(False)
    return outputs(copied, X)


def test_after_quantization_aware_training_both_files_hold_the_same_weights(tmp_path):
    export, before = ModelExport(), Before(1)
    module, _ = fit(tmp_path, export, before, QuantizationAwareTraining(1), max_epochs=2)
    torch.testing.assert_close(run(tmp_path / "export" / "model.onnx", X), in_float(module), rtol=1e-4, atol=1e-5)
    assert rows(export) == [FLOAT, PTQ, FAKE, INT8]
    integers, rounded = run(tmp_path / "export" / "model.int8.onnx", X), outputs(module, X)
    assert (integers - rounded).abs().max() < 0.05 * rounded.abs().max()
    assert not torch.allclose(rounded, before.outputs, atol=1e-3)


def test_of_a_pruned_run_the_best_of_the_final_structure_is_exported(tmp_path):
    export = ModelExport()
    pruning = StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    module, _ = fit(tmp_path, export, pruning, best(tmp_path), max_epochs=3)
    path = tmp_path / "ckpt" / "epoch=1.ckpt"  # epoch 0 scored better, but was dense
    loaded = load_from_checkpoint(Module, path)
    assert loaded.body[0].out_channels == module.body[0].out_channels == 4
    torch.testing.assert_close(run(tmp_path / "export" / "model.onnx", X), outputs(loaded, X), rtol=1e-4, atol=1e-5)
    assert export.report.source.startswith("epoch 1, val/score -1")
    assert rows(export) == [DENSE, FLOAT]


def test_a_best_checkpoint_of_another_structure_is_not_taken(tmp_path):
    pruning = StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    saving = best(tmp_path)
    module, trainer = fit(tmp_path, pruning, saving, max_epochs=2)
    # As after a resume from another folder, where Lightning reloads the path alone.
    saving.best_model_path = str(tmp_path / "ckpt" / "epoch=0-dense.ckpt")
    assert Path(saving.best_model_path).is_file()
    found = final_weights(trainer, module)
    assert found.source == "epoch 1, the last weights"
    assert torch.equal(found.pl_module.head.weight, module.head.weight)


def test_pruning_and_quantization_in_one_run(tmp_path):
    export = ModelExport()
    pruning = StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    fit(tmp_path, QuantizationAwareTraining(2), export, pruning, best(tmp_path), max_epochs=4)
    assert rows(export) == [DENSE, FLOAT, PTQ, FAKE, INT8]
    loaded = load_from_checkpoint(Module, tmp_path / "ckpt" / "epoch=2.ckpt")
    torch.testing.assert_close(run(tmp_path / "export" / "model.onnx", X), in_float(loaded), rtol=1e-4, atol=1e-5)
    assert export.report.source.startswith("epoch 2, val/score -2")


def test_without_training_for_it_int8_quantizes_afterwards(tmp_path):
    export = ModelExport(int8=True, calibrate=20)
    module, _ = fit(tmp_path, export)
    assert rows(export) == [FLOAT, PTQ, INT8]
    assert lit_xai.quantization.quantization.is_quantized(module) is False
    expected = outputs(module, X)
    assert (run(tmp_path / "export" / "model.int8.onnx", X) - expected).abs().max() < 0.1 * expected.abs().max()


class Compiled(Module):
    def __init__(self):
        super().__init__()
        self.body = torch.compile(self.body, backend="eager")


def test_a_compiled_part_is_exported_as_it_is_without():
    module = Compiled()
    network = Exporter()._network(live_weights(module))
    assert not [name for name, _ in network.named_modules() if "_orig_mod" in name]
    assert hasattr(module.body, "_orig_mod")
    quantized = quantize(network, [X], progress=False)  # which cannot see into compiled parts
    assert (quantized(X) - network(X)).abs().max() < 0.05 * network(X).abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("build", [Compiled, lambda: torch.compile(Module(), backend="eager")])
def test_a_run_of_a_compiled_network_is_exported(build, tmp_path):
    export = ModelExport(int8=True, calibrate=20)
    module, _ = fit(tmp_path, export, module=build(), max_epochs=1)
    assert rows(export) == [FLOAT, PTQ, INT8]
    found = run(tmp_path / "export" / "model.onnx", X)
    torch.testing.assert_close(found, outputs(module, X), rtol=1e-4, atol=1e-5)
    assert not [one for one in export.report.integer_operators if "_orig_mod" in one.layer]


# --- the run is what it was ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [list, lambda: [QuantizationAwareTraining(1)]])
def test_training_is_bit_for_bit_that_of_a_run_without_it(others, tmp_path):
    found = []
    for name, export in (("with", [ModelExport(int8=True)]), ("without", [])):
        module, _ = fit(tmp_path / name, *export, *others())
        found.append((module.state_dict(), torch.get_rng_state()))
        assert not {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__", "log"} & set(vars(module))
    (one, random), (other, other_random) = found
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert torch.equal(random, other_random)


class Stop(Callback):
    def on_train_batch_end(self, *args):
        raise RuntimeError("stop")


def test_nothing_of_ours_is_left_after_an_exception(tmp_path):
    module = Module()
    with pytest.raises(RuntimeError, match="stop"):
        fit(tmp_path, ModelExport(), QuantizationAwareTraining(0), Stop(), module=module)
    assert not {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"} & set(vars(module))
    # The float weights alone would be half an export, which the next run would have to refuse.
    assert list((tmp_path / "export").iterdir()) == []


def test_the_bar_of_rich_is_off_the_terminal_while_files_are_compared(tmp_path, monkeypatch):
    rich = pytest.importorskip("lightning.pytorch.callbacks.progress.rich_progress")
    # The bar reconfigures the one console of the process, which prints tables of later tests as well.
    monkeypatch.setattr(pytest.importorskip("rich"), "_console", None)
    error, during, training = sys.stderr, [], []

    def watched(logits, labels):
        during.append(sys.stderr is error)
        return 0.0

    class Watches(Callback):
        def on_train_batch_end(self, *args):
            training.append(sys.stderr is error)

    bar = rich.RichProgressBar(console_kwargs={"file": io.StringIO(), "force_terminal": True})
    fit(tmp_path, ModelExport(metric=watched), Watches(), bar, max_epochs=1, enable_progress_bar=True)
    assert set(training) == {False}  # it has taken over what others write
    assert set(during) == {True}


def fails(logits, labels):
    raise ValueError("no such metric.")


def test_an_export_that_fails_in_the_end_is_a_warning_and_the_checkpoints_are_whole(tmp_path):
    export = ModelExport(metric=fails)
    with pytest.warns(UserWarning, match=r"ModelExport: nothing was exported, .* no such metric\. .* `lit-xai export`"):
        _, trainer = fit(tmp_path, export, best(tmp_path))
    assert trainer.state.finished
    assert export.report is None
    assert load_from_checkpoint(Module, tmp_path / "ckpt" / "last.ckpt")
    assert list((tmp_path / "export").iterdir()) == []


def test_a_trial_run_writes_nothing(tmp_path):
    fit(tmp_path, ModelExport(), QuantizationAwareTraining(0), fast_dev_run=2)
    assert not list(tmp_path.rglob("*.onnx"))


# --- resume -------------------------------------------------------------------------------------------------------


def resumable(folder, export):
    every = ModelCheckpoint(folder / "ckpt", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    return [ModelExport(export), QuantizationAwareTraining(1), every]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    export, *others = resumable(folder, folder / "export")
    fit(folder, export, *others, max_epochs=4)
    return folder, export.report


@pytest.mark.parametrize(
    ("epoch", "elsewhere"),
    [(1, False), (2, True), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(0, False), (0, True)])],
)
@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # ModelCheckpoint's
def test_a_resumed_run_exports_what_the_whole_one_does(epoch, elsewhere, whole, tmp_path):
    folder, expected = whole
    files = {name: run(folder / "export" / name, X) for name in ("model.onnx", "model.int8.onnx")}
    # In the same folder the run's own files lie already, and are replaced; another holds nothing yet.
    export, *others = resumable(tmp_path, tmp_path / "other" if elsewhere else folder / "export")
    fit(tmp_path, export, *others, max_epochs=4, ckpt_path=folder / "ckpt" / f"epoch={epoch}.ckpt")
    assert rows(export) == [FLOAT, PTQ, FAKE, INT8]
    assert export.report.source == expected.source
    for one, other in zip(export.report.rows, expected.rows, strict=True):
        assert (one.metric, one.agreement) == (other.metric, other.agreement)
    for name, value in files.items():
        assert torch.equal(run(export.report.folder / name, X), value), name


def test_a_fresh_run_does_not_take_the_folder_of_another_for_its_own(whole, tmp_path):
    with pytest.raises(MisconfigurationException, match=r"holds model\.onnx"):
        fit(tmp_path, ModelExport(whole[0] / "export"))


def test_a_checkpoint_holds_the_float_weights_once_the_module_has_gone_on_with_their_batch_norm(whole):
    first, second = (torch.load(whole[0] / "ckpt" / f"epoch={epoch}.ckpt")["callbacks"] for epoch in (0, 1))
    assert "before" not in first["ModelExport"]
    before = second["ModelExport"]["before"]
    assert before["lit_xai_recipe"]["steps"] == []
    assert before["state_dict"].keys() == Module().state_dict().keys()


# --- data ---------------------------------------------------------------------------------------------------------


class Shifted(Module):
    """Prepares batches on their way to the model, by dicts."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return {"picture": batch[0] * 2 + 1, "label": batch[1]}

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["picture"]), batch["label"])


def accuracy(logits, labels):
    return float((logits.argmax(1) == labels).float().mean())


def test_batches_are_as_the_steps_get_them(tmp_path):
    export = ModelExport(batch_to_inputs="picture", metric=accuracy, int8=True, calibrate=8)
    module, _ = fit(tmp_path, export, module=Shifted())
    x, y = data(40, 1).tensors
    expected = accuracy(outputs(module, 2 * x + 1), y)
    assert export.report.rows[0].metric == pytest.approx(expected)
    assert expected != pytest.approx(accuracy(outputs(module, x), y))


class Data(LightningDataModule):
    class_names = ["dark", "bright"]
    mean = (0.5,)
    std = (2.0,)

    def __init__(self, *names):
        super().__init__()
        self.stages = []
        for name in names:
            setattr(self, f"{name}_dataloader", {"train": loader, "test": lambda: loader(24, 2)}[name])

    def setup(self, stage):
        self.stages.append(stage)


class NoValidation(Module):
    validation_step = LightningModule.validation_step
    test_dataloader = None  # as some modules say that they have none


@pytest.mark.parametrize(("names", "said", "samples"), [(["train", "test"], "test", 24), (["train"], "training", 48)])
def test_without_validation_data_others_are_taken(names, said, samples, tmp_path):
    export = ModelExport()
    fit(tmp_path, export, module=NoValidation(), loaders={"datamodule": Data(*names)})
    assert f"compared on the {said} data" in export.report.source
    assert export.report.samples == samples


def test_what_the_data_module_says_of_itself_is_in_the_files_and_arguments_come_first(tmp_path):
    from lit_xai.export import read_metadata

    fit(tmp_path, ModelExport(), module=NoValidation(), loaders={"datamodule": Data("train")})
    said = read_metadata(tmp_path / "export" / "model.onnx")
    assert (said["classes"], said["mean"], said["std"]) == (["dark", "bright"], [0.5], [2.0])
    own = ModelExport(tmp_path / "own", classes=["a", "b"], mean=[0.0], std=[1.0])
    fit(tmp_path, own, module=NoValidation(), loaders={"datamodule": Data("train")})
    said = read_metadata(tmp_path / "own" / "model.onnx")
    assert (said["classes"], said["mean"], said["std"]) == (["a", "b"], [0.0], [1.0])


def test_a_limit_of_the_trainer_holds(tmp_path):
    export = ModelExport()
    fit(tmp_path, export, limit_val_batches=1)
    assert export.report.samples == 16


# --- what is left behind ------------------------------------------------------------------------------------------


def test_the_folder_the_log_and_tensorboard(tmp_path, caplog):
    logger = TensorBoardLogger(tmp_path, name=None)
    export = lit_xai.ModelExport(int8=True)
    with caplog.at_level("INFO"):
        fit(tmp_path, export, logger=logger, max_epochs=1, log_every_n_steps=1)
    folder = tmp_path / "version_0" / "export"
    names = ["infer.py", "layers.md", "layers.png"]
    names += ["model.int8.onnx", "model.onnx", "model.pt2", "report.json", "report.md"]
    assert [name for name in sorted(file.name for file in folder.iterdir()) if name != "sample.npz"] == names
    assert any(f"ModelExport, in '{folder}'" in text and INT8 in text for text in caplog.messages)
    events = EventAccumulator(str(tmp_path / "version_0")).Reload()
    (text,) = events.Tensors("compression/export/text_summary")
    assert INT8 in text.tensor_proto.string_val[0].decode()
    assert json.loads((folder / "report.json").read_text())["source"] == export.report.source


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"dirpath": ""}, "dirpath expected a folder's path or None, but got ''."),
        ({"dirpath": 3}, "dirpath expected a folder's path or None, but got 3."),
        ({"int8": "yes"}, "int8 expected True or False, but got 'yes'."),
        ({"overwrite": 1}, "overwrite expected True or False, but got 1."),
        ({"program": None}, "program expected True or False, but got None."),
        ({"calibrate": 0}, "calibrate expected a positive integer, but got 0."),
        ({"calibrate": 1.5}, "calibrate expected a positive integer, but got 1.5."),
        ({"calibrate": True}, "calibrate expected a positive integer, but got True."),
        ({"threads": -1}, "threads expected a positive integer, but got -1."),
        ({"cpu": "arm"}, "cpu expected one of any, vnni, arm64, but got 'arm'. Did you mean 'arm64'?"),
        ({"metric": "accuracy"}, "metric expected a torchmetrics.Metric, a function or None, but got 'accuracy'."),
        ({"classes": "ab"}, "classes expected a list of names, but got 'ab'."),
        ({"classes": [1, 2]}, "classes expected a list of names, but got [1, 2]."),
        ({"mean": 0.5}, "mean expected a list of numbers, one per channel, but got 0.5."),
        ({"std": []}, "std expected a list of numbers, one per channel, but got []."),
        ({"std": [0.0]}, "std expected numbers above 0, but got [0.0]."),
        ({"mean": [0.5], "std": [1, 1]}, "mean and std expected as many numbers each, but got 1 and 2."),
    ],
)
def test_wrong_arguments_are_refused_by_the_constructor(arguments, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared in full
        lit_xai.ModelExport(**arguments)
    assert str(caught.value) == sentence


class Counts(Callback):
    steps = 0

    def on_train_batch_start(self, *args):
        self.steps += 1


class Branches(Module):
    def forward(self, x):
        if float(x.sum()) > 0:
            return super().forward(x)
        return super().forward(-x)


def a_file_in_the_way(folder):
    (folder / "export").write_text("")


def a_file_above(folder):
    (folder / "export").write_text("")
    return folder / "export" / "deeper"


def an_earlier_export(folder):
    (folder / "export").mkdir()
    (folder / "export" / "model.onnx").write_text("an earlier one")


@pytest.mark.parametrize(
    ("prepare", "module", "sentence"),
    [
        (a_file_in_the_way, Module, "expected a folder, but got the file"),
        (a_file_above, Module, "expected a folder that can be written to, but got"),
        (an_earlier_export, Module, "holds model.onnx: name another, or give overwrite=True"),
        (lambda folder: None, Branches, "Branches cannot be exported"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(prepare, module, sentence, tmp_path):
    dirpath, counts = prepare(tmp_path), Counts()
    with pytest.raises(MisconfigurationException) as caught:
        fit(tmp_path, ModelExport(dirpath), counts, module=module())
    assert str(caught.value).startswith("ModelExport: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert counts.steps == 0


QAT = QuantizationAwareTraining


@pytest.mark.parametrize(
    ("arguments", "others", "sentence"),
    [
        ({"cpu": "vnni"}, [], "cpu expected int8 as well, since nothing is quantized otherwise, but got 'vnni' alone."),
        ({"cpu": "vnni"}, [QAT], "cpu expected 'any', which the network was trained for, but got 'vnni': leave it out"),
        (
            {"cpu": "arm64", "int8": True},
            [partial(QAT, cpu="vnni")],
            "cpu expected 'vnni', which the network was trained",
        ),
    ],
)
def test_integers_for_another_cpu_than_those_trained_for_are_refused(arguments, others, sentence, tmp_path):
    counts = Counts()
    with pytest.raises(MisconfigurationException) as caught:
        fit(tmp_path, ModelExport(**arguments), counts, *(one(1) for one in others))
    assert str(caught.value).startswith(f"ModelExport: {sentence}")
    assert counts.steps == 0


@pytest.mark.parametrize(
    ("arguments", "others", "said"),
    [
        ({"calibrate": 64}, [], "calibrate changes nothing: without int8 nothing is quantized."),
        ({"int8": True, "calibrate": 64}, [QAT], "int8 changes nothing: the integers, for cpu 'any', are those that"),
        ({"cpu": "any", "calibrate": 512, "int8": False}, [QAT], None),
    ],
)
def test_what_changes_nothing_is_said_if_it_was_asked_for(arguments, others, said, tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, ModelExport(**arguments), *(one(0) for one in others), fast_dev_run=1)
    found = [text for text in caplog.messages if " nothing: " in text]
    assert len(found) == (said is not None)
    assert all(text.startswith(f"ModelExport: {said}") for text in found)


def test_an_earlier_export_is_replaced_only_when_asked(tmp_path):
    an_earlier_export(tmp_path)
    fit(tmp_path, ModelExport(overwrite=True), max_epochs=1)
    assert (tmp_path / "export" / "model.onnx").stat().st_size > 1000


def test_two_of_one_folder_are_refused_and_of_two_folders_are_not(tmp_path):
    with pytest.raises(MisconfigurationException, match="Two ModelExport callbacks would write into one folder"):
        fit(tmp_path, ModelExport(), ModelExport(int8=True))
    fit(tmp_path, ModelExport(tmp_path / "one"), ModelExport(tmp_path / "two", int8=True), max_epochs=1)
    assert (tmp_path / "two" / "model.int8.onnx").exists()
    assert not (tmp_path / "one" / "model.int8.onnx").exists()


# --- the table ----------------------------------------------------------------------------------------------------


def table(callback):
    return {row.name: row for row in callback.report.rows}


def test_the_dense_network_has_a_row_and_each_row_its_epoch(tmp_path):
    export, pruning = ModelExport(), StructuredPruning(pruning_ratio=0.5, start_epoch=1, end_epoch=1, round_to=1)
    dense = Before(1)
    fit(tmp_path, dense, export, pruning, max_epochs=3)
    found = table(export)
    assert [*found] == [DENSE, FLOAT]
    assert (found[DENSE].epoch, found[FLOAT].epoch) == (0, 2)
    labels = data(40, 1).tensors[1]
    assert found[DENSE].metric == pytest.approx(float((dense.outputs.argmax(1) == labels).float().mean()))
    assert found[DENSE].macs > 1.5 * found[FLOAT].macs
    assert found[DENSE].bytes > found[FLOAT].bytes
    assert found[DENSE].latency[64].milliseconds > 0
    assert "of epoch 0, just before the first cut" in str(export.report)
    assert not list((tmp_path / "export").glob("dense*"))


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # ModelCheckpoint's
def test_after_a_resume_the_dense_network_has_no_metric_and_the_report_says_why(tmp_path):
    options = {"pruning_ratio": 0.5, "start_epoch": 1, "end_epoch": 1, "round_to": 1}
    fit(tmp_path, StructuredPruning(**options), best(tmp_path), max_epochs=2)
    export = ModelExport()
    again = tmp_path / "ckpt" / "last.ckpt"
    saving = best(tmp_path / "second")
    fit(tmp_path / "second", export, StructuredPruning(**options), saving, max_epochs=3, ckpt_path=again)
    dense = table(export)[DENSE]
    assert (dense.metric, dense.agreement, dense.epoch) == (None, None, None)
    assert dense.macs > 1.5 * table(export)[FLOAT].macs
    assert dense.latency[1].milliseconds > 0
    assert "its weights from before the first cut are no longer known" in str(export.report)


def test_weights_from_before_the_first_epoch_are_those_the_run_began_with(tmp_path):
    export = ModelExport()
    fit(tmp_path, export, StructuredPruning(pruning_ratio=0.5, start_epoch=0, end_epoch=0, round_to=1), max_epochs=1)
    assert table(export)[DENSE].epoch == -1
    assert "| start |" in " ".join(str(export.report).split())
    assert "that the run began with" in str(export.report)


ByPicture = partial(ModelExport, batch_to_inputs="picture")


def test_inputs_and_labels_under_keys_of_ones_own_are_found(tmp_path):
    export = ModelExport()
    fit(tmp_path, export, module=ByKey(), loaders=by_key(), max_epochs=1)
    assert export.report.rows[0].metric is not None


class ByKey(Module):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["picture"]), batch["is_bright"])


def by_key():
    def collate(rows):
        x, y = map(torch.stack, zip(*rows, strict=True))
        return {"picture": x, "is_bright": y}

    return {
        "train_dataloaders": DataLoader(data(), 16, collate_fn=collate),
        "val_dataloaders": DataLoader(data(40, 1), 16, collate_fn=collate),
    }


def test_labels_under_another_key_are_found_or_named(tmp_path):
    metric = torchmetrics.classification.MulticlassAccuracy(2, average="micro")
    found = {}
    for name, options in {
        "given": {"metric": metric, "batch_to_target": "is_bright"},
        "found": {"metric": metric},
        "accuracy": {"batch_to_target": "is_bright"},
        "unnamed": {},
    }.items():
        export = ByPicture(**options)
        torch.manual_seed(0)  # of the module
        fit(tmp_path / name, export, module=ByKey(), loaders=by_key(), max_epochs=1)
        found[name] = export.report
    assert found["given"].rows[0].metric == pytest.approx(found["accuracy"].rows[0].metric)
    assert found["given"].rows[0].metric == pytest.approx(found["found"].rows[0].metric)
    assert found["given"].rows[0].metric == pytest.approx(found["unnamed"].rows[0].metric)
    with pytest.raises(MisconfigurationException, match="batch_to_target='bright' is not in a batch"):
        fit(tmp_path / "wrong", ByPicture(batch_to_target="bright"), module=ByKey(), loaders=by_key(), max_epochs=1)


class Faces(torch.utils.data.Dataset):
    classes = ("dark", "bright")

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return data(16)[index]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "dark"),
        ((["night", "day"],), "night"),
        ((["too", "many", "names"],), "dark"),
    ],
)
def test_class_names_reach_the_script(names, expected, tmp_path):
    monitors = [lit_xai.AttributionMonitor(class_names=some, probe=2) for some in names]
    faces = {"train_dataloaders": DataLoader(Faces(), 8), "val_dataloaders": DataLoader(Faces(), 8)}
    fit(tmp_path, *monitors, ModelExport(), loaders=faces, max_epochs=1)
    assert f"'classes': ['{expected}'" in (tmp_path / "export" / "infer.py").read_text()


def test_a_line_stands_between_the_last_epoch_and_the_table(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, ModelExport(), max_epochs=1)
    begins, ends = caplog.text.index("ModelExport: writing the files"), caplog.text.index("ModelExport, in")
    assert caplog.text.index("`Trainer.fit` stopped") < begins < ends
