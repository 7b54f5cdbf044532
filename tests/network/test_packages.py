"""Without the packages of the extra ``export``: what needs them is refused in one sentence, all else works."""

import sys

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from lit_xai import (
    AttributionMonitor,
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    StructuredPruning,
)
from lit_xai.cli import main
from lit_xai.data import Digits
from lit_xai.export import check_onnx, inspect_onnx, read_metadata
from lit_xai.models import MLP, Classifier
from lit_xai.runtime.latency import network_latency
from lit_xai.runtime.onnx import export_onnx

INSTALL = r': pip install "lit-xai\[export\]"\.$'
QUIET = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")


@pytest.fixture(autouse=True)
def without_extra(monkeypatch):
    """Python finds a module that is None here no more than one that is not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime", "torchao"):
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)


def fit(folder, *callbacks):
    trainer = Trainer(
        **QUIET,
        max_epochs=2,
        limit_train_batches=2,
        limit_val_batches=1,
        default_root_dir=folder,
        logger=False,
        callbacks=list(callbacks),
    )
    trainer.fit(Classifier(MLP(64, [32]), num_classes=10), Digits(batch_size=16))
    return trainer


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (
            lambda path: export_onnx(nn.Linear(2, 2), torch.zeros(1, 2), path),
            "An export to ONNX needs onnx and onnxscript",
        ),
        (
            lambda path: network_latency(nn.Linear(2, 2), torch.zeros(1, 2)),
            "A latency needs onnx, onnxscript and onnxrun",
        ),
        (check_onnx, "Reading an ONNX file needs onnx"),
        (inspect_onnx, "Reading an ONNX file needs onnx"),
        (read_metadata, "Reading an ONNX file needs onnx"),
    ],
)
def test_a_function_that_needs_it_says_what_to_install(use, words, tmp_path):
    (tmp_path / "network.onnx").touch()
    with pytest.raises(ModuleNotFoundError, match=words + ".*" + INSTALL):
        use(tmp_path / "network.onnx")


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (lambda folder: ModelExport(folder / "export"), "ModelExport needs onnx, onnxscript and onnxruntime"),
        (lambda folder: QuantizationAwareTraining(), "Quantization-aware training needs torchao"),
        (lambda folder: StructuredPruning(target_latency=0.5), "A latency needs onnx, onnxscript and onnxruntime"),
    ],
)
def test_a_callback_that_needs_it_refuses_before_the_first_step(callback, words, tmp_path):
    class Witness(Callback):
        def on_train_batch_start(self, *_):
            raise AssertionError("a step was taken")

    with pytest.raises(ModuleNotFoundError, match=words + INSTALL):
        fit(tmp_path, callback(tmp_path), Witness())


@pytest.mark.filterwarnings("ignore:KnowledgeDistillation. the student is ahead")
def test_all_else_works(tmp_path):
    with pytest.warns(UserWarning, match=r"no latency: A latency needs .* pip install"):
        trainer = fit(
            tmp_path,
            StructuredPruning(pruning_ratio=0.5, start_epoch=1, end_epoch=1),
            KnowledgeDistillation("dense"),
            AttributionMonitor(probe=2),
        )
    assert trainer.global_step == 4
    assert list(tmp_path.rglob("figure.png"))


def test_the_command_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # Lightning's own calls use names that jsonargparse calls deprecated.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    assert main(["fit", "--config=base", "--config=digits", "--config=export", "--trainer.fast_dev_run=1"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("lit-xai: error: ModelExport needs onnx, onnxscript")
