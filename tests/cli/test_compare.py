"""``lit-xai compare``, ``report`` and ``check``: two models, a report, and its verdict as an exit code."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lit_xai.cli import main
from lit_xai.cli.compare import spelled_out
from lit_xai.runtime.onnx import export_onnx

LOGS = ("--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=logs", "--data.n=64")
CONFIG = "--config=logs/lightning_logs/version_0/config.yaml"
QUICK = ("--n=40", "--nulls=3", "--rounds=0", "--explainers=[IntegratedGradients]")


def run(*arguments):
    """Return the exit code."""
    try:
        return main(list(arguments))
    except SystemExit as end:
        return end.code


@pytest.fixture
def checkpoint(fit):
    assert fit(*LOGS) == 0
    (found,) = Path().rglob("*.ckpt")
    return str(found)


def sections(folder):
    """Return the sections that tables and pictures of a report stand in."""
    facts = json.loads(Path(folder, "facts.json").read_text())["facts"]
    return {one["section"] for one in (*facts["tables"], *facts["pictures"])}


def test_a_model_is_compared_with_itself_checked_and_reported_anew(checkpoint, capsys):
    required = ("--require.accuracy", "drop<=90 %", "--require.similarity", ">=0.9", "--require.size", "ratio<=1")
    assert run("compare", checkpoint, checkpoint, CONFIG, *required, *QUICK) == 0
    said = capsys.readouterr().out
    assert "Verdict: passed." in said
    assert "comparison/report.html" in said
    facts = json.loads(Path("comparison/facts.json").read_text())["facts"]
    assert (facts["stated"], facts["requirements"]["size"]) == ("afterwards", "ratio<=1")
    page = Path("comparison/report.html").read_bytes()
    assert run("check", "comparison", "--verify", "--format=json") == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "passed"
    Path("comparison/report.html").write_bytes(page[:-5])
    assert run("check", "comparison", "--verify") == 12
    assert run("report", "comparison") == 0
    assert Path("comparison/report.html").read_bytes() == page
    # Beside a second one, and an earlier comparison is kept.
    hidden = ("--samples=none", "--corruption=false")
    assert run("compare", checkpoint, checkpoint, CONFIG, *QUICK, "--dirpath=again", *hidden) == 0
    shown, hidden = (sections(folder) for folder in ("comparison", "again"))
    assert shown - hidden == {"robustness", "pictures"}
    assert run("report", "comparison", "again") == 0
    assert "On the Pareto front: reference, comparison, again." in capsys.readouterr().out
    assert run("report", "comparison", "again") == 1
    assert "--dirpath expected a folder" in capsys.readouterr().err
    # An earlier one is kept.
    assert run("compare", checkpoint, checkpoint, CONFIG, *QUICK) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_two_files_need_no_model(checkpoint, capsys):
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    export_onnx(network, torch.zeros(2, 3), "a.onnx")
    Path("data.yaml").write_text("data: {class_path: own_module.Data, init_args: {n: 64}}\n")
    required = ("--require.flips", "<=5 %", "--dirpath=files")
    assert run("compare", "a.onnx", "a.onnx", "--config=data.yaml", "--rounds=0", "--adverse_class=1", *required) == 0
    assert "reasons" in sections("files")
    # A checkpoint beside a file, and a verdict that fails.
    assert run("compare", checkpoint, "a.onnx", CONFIG, "--rounds=0", "--require.similarity=>=1", "--dirpath=x") == 10
    assert run("check", "x") == 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("compare", "only.ckpt"), "compare needs two models"),
        (("compare", "a.onnx", "b.onnx", "--require.accuracy", "better"), "require['accuracy'] expected a requirement"),
        (("compare", "none.onnx", "none.onnx"), "there is no file 'none.onnx'"),
        (("compare", "a.onnx", "b.onnx", "--require.acuracy", ">=0.9"), "Did you mean 'accuracy'?"),
        (("check", "nowhere"), "'nowhere' holds no report"),
        (("report", "nowhere"), "nowhere"),
        (("report", "nowhere", "neither"), "'nowhere' holds no report"),
        (("report", "nowhere", "neither", "--sign", "key"), "--sign is for one RUN"),
        (("report", "nowhere", "--dirpath", "x"), "--dirpath and --overwrite are for two RUNs or more"),
        (("check", "nowhere", "--signers", "x"), "'nowhere' holds no report"),
        (("compare", "a.onnx", "b.onnx", "--sign", "no-key"), "--sign expected the file of a key"),
    ],
)
def test_mistakes_are_one_sentence(checkpoint, capsys, arguments, sentence):
    given = [*arguments, CONFIG] if arguments[0] == "compare" else arguments
    capsys.readouterr()
    assert run(*given) in (1, 2)
    said = capsys.readouterr()
    assert sentence in said.err
    assert "Traceback" not in said.err + said.out


DICTS = """
import torch
from own_module import Data, Net


class Wardrobe(Net):
    def __init__(self):
        super().__init__()
        self.eyes, self.layers = self.layers, None
        self.forward = None

    def test_step(self, batch, batch_idx):
        self.log("loss", torch.nn.functional.cross_entropy(self.eyes(batch["pixels"]), batch["garment"]))

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.eyes(batch["pixels"]), batch["garment"])

    validation_step = None


class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.arange(192.0).view(64, 3).sin()

    def __len__(self):
        return 64

    def __getitem__(self, i):
        return {"pixels": self.x[i], "garment": int(self.x[i, 0] > 0), "ward": "ab"[i % 2], "patient": i // 2}


class Wards(Data):
    def test_dataloader(self):
        return torch.utils.data.DataLoader(Rows(), 32)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(Rows(), 32)
"""


def test_inputs_and_labels_are_those_of_the_modules_own_step(fit, capsys, monkeypatch):
    Path("dicts.py").write_text(DICTS)
    monkeypatch.syspath_prepend(Path.cwd())
    dicts = importlib.import_module("dicts")
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.fit(dicts.Wardrobe(), train_dataloaders=dicts.Wards().train_dataloader())
    trainer.save_checkpoint("a.ckpt")
    Path("own.yaml").write_text("model: {class_path: dicts.Wardrobe}\ndata: {class_path: dicts.Wards}\n")
    options = ("--groups=ward", "--clusters=patient", "--require.accuracy", "drop<=20 %", *QUICK)
    assert run("compare", "a.ckpt", "a.ckpt", "--config=own.yaml", *options) == 0
    assert "n = 32 clusters" in capsys.readouterr().out
    assert json.loads(Path("comparison/facts.json").read_text())["group_names"] == ["a", "b"]


def test_models_and_flags_are_spelled_out():
    assert spelled_out(["compare", "a", "b", "--overwrite", "--n", "4"]) == [
        "compare",
        "--reference",
        "a",
        "--candidate",
        "b",
        "--overwrite=true",
        "--n",
        "4",
    ]
