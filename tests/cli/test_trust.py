"""Nothing in a checkpoint is imported or executed, whichever way it is read, unless the user says so."""

import os
import sys

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_xai import FollowRecipe, ModelExport, StructuredPruning, load_from_checkpoint
from lit_xai.callbacks import AttributionMonitor, KnowledgeDistillation, QuantizationAwareTraining
from lit_xai.data import Digits
from lit_xai.models import MLP, Classifier

MODEL = ("--model=Classifier", "--model.network=MLP", "--model.network.in_features=64", "--model.num_classes=10")
DATA = ("--data=Digits", "--data.train_size=0.1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")
FIT = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

MARKING = """
import pathlib, torch
pathlib.Path("mark").touch()
class Net(torch.nn.Sequential):
    def __init__(self, *args, **kwargs):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("mark",)


@pytest.fixture
def marking(folder):
    """A folder in which a module leaves a mark when it is imported; fails if anything has left one."""
    (folder / "marking.py").write_text(MARKING)
    sys.path.insert(0, str(folder))
    yield folder
    assert not (folder / "mark").exists()
    assert "marking" not in sys.modules


@pytest.fixture
def checkpoint(marking, lit_xai):
    """A checkpoint of the command line, with its whole configuration."""
    assert lit_xai("fit", *MODEL, *DATA, *FIT, "--trainer.logger=false") == 0
    (file,) = marking.rglob("*.ckpt")
    return torch.load(file, weights_only=True)


def changed(checkpoint, **arguments):
    return {**checkpoint, "hyper_parameters": {**checkpoint["hyper_parameters"], **arguments}}


NAMED = {"class_path": "marking.Net"}
HOSTILE = {
    "object": lambda checkpoint: {**checkpoint, "extra": RunsCode()},
    "class": lambda checkpoint: changed(checkpoint, _class_path="marking.Net"),
    "instantiator": lambda checkpoint: changed(checkpoint, _instantiator="marking.Net"),
    "argument": lambda checkpoint: changed(checkpoint, network=NAMED),
    "string": lambda checkpoint: changed(checkpoint, network="marking.Net"),
    "inside": lambda checkpoint: changed(
        checkpoint, network={"class_path": "torch.nn.Sequential", "dict_kwargs": {"args": [NAMED]}}
    ),
    "function": lambda checkpoint: changed(checkpoint, batch_to_inputs="marking.Net"),
    "optimizer": lambda checkpoint: changed(checkpoint, optimizer={"class_path": "marking.Net"}),
    "old key": lambda checkpoint: {**checkpoint, "hparams": {"extra": NAMED}},
}


def test_the_command_line_takes_no_class_from_a_file(checkpoint, lit_xai, capsys, marking):
    ways = {
        "fit": ("fit", *FIT, "--trainer.max_epochs=2", "--ckpt_path=x.ckpt"),
        "init_from": ("fit", *FIT, "--init_from=x.ckpt"),
        "validate": ("validate", "--ckpt_path=x.ckpt"),
        "test": ("test", "--ckpt_path=x.ckpt"),
        "predict": ("predict", "--ckpt_path=x.ckpt"),
        "export": ("export", "--ckpt_path=x.ckpt", "--program=false"),
    }
    for kind, damage in HOSTILE.items():
        if kind in ("instantiator", "old key"):  # which the command line does not read
            continue
        torch.save(damage(checkpoint), "x.ckpt")
        for way, (command, *options) in ways.items():
            if way == "init_from" and kind != "object":  # it reads the weights alone
                continue
            capsys.readouterr()
            assert lit_xai(command, *MODEL, *DATA, *options) == 2, (kind, way)
            (sentence,) = capsys.readouterr().err.strip().splitlines()
            assert sentence.startswith("lit-xai: error: 'x.ckpt' ")
            assert not (marking / "mark").exists(), (kind, way)


def test_what_the_config_names_and_plain_values_are_taken_from_the_file(checkpoint, lit_xai):
    wide = Classifier(MLP(64, (48,)), num_classes=10)
    network = checkpoint["hyper_parameters"]["network"]
    larger = {**network, "init_args": {**network["init_args"], "hidden": [48]}}
    torch.save(changed({**checkpoint, "state_dict": wide.state_dict()}, network=larger), "x.ckpt")
    assert lit_xai("test", *MODEL, *DATA, "--ckpt_path=x.ckpt") == 0


def test_python_loads_no_class_that_a_file_names(checkpoint, marking):
    for damage in HOSTILE.values():
        torch.save(damage(checkpoint), "x.ckpt")
        with pytest.raises(ValueError, match=r"^'x.ckpt' .*weights_only=False\.$"):
            load_from_checkpoint(Classifier, "x.ckpt")


def test_a_file_of_the_command_line_loads_with_the_networks_of_the_library(checkpoint):
    torch.save(checkpoint, "x.ckpt")
    assert isinstance(load_from_checkpoint(Classifier, "x.ckpt").network, MLP)


def test_trust_is_said_by_the_user(checkpoint, folder):
    (folder / "trusted.py").write_text(MARKING.replace('"mark"', '"imported"').replace("64, 10", "64, 2"))
    torch.save(changed(checkpoint, network={"class_path": "trusted.Net"}), "x.ckpt")
    with pytest.raises(ValueError, match=r"give the argument, as in load_from_checkpoint\(Classifier, path, network="):
        load_from_checkpoint(Classifier, "x.ckpt")
    assert isinstance(load_from_checkpoint(Classifier, "x.ckpt", network=MLP(64)).network, MLP)
    assert not (folder / "imported").exists()
    with pytest.raises(ValueError, match="The checkpoint does not fit Classifier"):
        load_from_checkpoint(Classifier, "x.ckpt", weights_only=False)
    assert (folder / "imported").exists()


def test_a_teacher_brings_no_class_of_its_own(checkpoint, marking):
    for damage in HOSTILE.values():
        torch.save(damage(checkpoint), "x.ckpt")
        trainer = Trainer(**QUIET, callbacks=[KnowledgeDistillation("x.ckpt")], max_steps=1, enable_checkpointing=False)
        student = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), num_classes=10)
        with pytest.raises(Exception, match=r"'x\.ckpt'"):
            trainer.fit(student, Digits(train_size=0.1))


CALLBACKS = {
    "FollowRecipe": FollowRecipe,
    "StructuredPruning": lambda: StructuredPruning(0.5, start_epoch=1, report_latency=False),
    "QuantizationAwareTraining": lambda: QuantizationAwareTraining(start_epoch=1),
    "ModelExport": lambda: ModelExport("export", program=False),
    "KnowledgeDistillation": lambda: KnowledgeDistillation("ema"),
    "AttributionMonitor": lambda: AttributionMonitor("Saliency", probe=1),
}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_executes_nothing_of_the_file(checkpoint, marking):
    module = Classifier(MLP(64), num_classes=10)
    for make in CALLBACKS.values():
        for damage in HOSTILE.values():
            torch.save(damage(checkpoint), "x.ckpt")
            trainer = Trainer(**QUIET, max_epochs=1, callbacks=[make()], enable_checkpointing=False)
            if damage is HOSTILE["object"]:
                with pytest.raises(ValueError, match=r"'x.ckpt' holds an object .* add weights_only=False to the call"):
                    trainer.validate(module, Digits(train_size=0.1), ckpt_path="x.ckpt", verbose=False)
            else:
                trainer.validate(module, Digits(train_size=0.1), ckpt_path="x.ckpt", verbose=False)
            assert "load_checkpoint" not in vars(trainer.strategy)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:Checkpoint directory")
def test_the_best_file_of_a_resumed_run_is_believed_no_more_than_the_resumed_one(marking):
    """The file that is resumed names another, which the export reads at the end."""

    def fit(epochs, **options):
        saver = ModelCheckpoint(marking, filename="m", monitor="val/loss")
        export = ModelExport("export", program=False, overwrite=True)
        limits = {"limit_train_batches": 1, "limit_val_batches": 1}
        trainer = Trainer(**QUIET, **limits, max_epochs=epochs, callbacks=[saver, export])
        trainer.fit(Classifier(MLP(64), num_classes=10), Digits(train_size=0.1), **options)
        return export.report

    fit(1)
    checkpoint = torch.load("m.ckpt", weights_only=True)
    torch.save({**checkpoint, "extra": RunsCode()}, "best.ckpt")
    (state,) = (state for key, state in checkpoint["callbacks"].items() if key.startswith("ModelCheckpoint"))
    best, low = str(marking / "best.ckpt"), torch.tensor(-1e9)
    state |= {"best_model_path": best, "best_model_score": low, "best_k_models": {best: low}, "kth_value": low}
    state["kth_best_model_path"] = best
    torch.save(checkpoint, "last.ckpt")
    with pytest.warns(UserWarning, match=r"taking the last weights .* set ModelExport\(weights_only=False\)"):
        report = fit(2, ckpt_path="last.ckpt")
    assert "the last weights" in str(report)
