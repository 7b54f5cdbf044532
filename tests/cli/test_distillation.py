"""A teacher from a config file, on top of any other."""

import re
from pathlib import Path

import pytest
import torch
import yaml

OVERLAY = """
trainer:
  callbacks+:
  - class_path: lit_xai.callbacks.KnowledgeDistillation
    init_args:
      teacher:
        class_path: lit_xai.models.MLP
        init_args: {in_features: 3, hidden: [6], out_features: 2}
      alpha: [0.9, 0.5]
      temperature: 2
      explanation: {method: input_x_gradient, weight: 0.5, every_n_steps: 2}
"""


@pytest.mark.filterwarnings("ignore:KnowledgeDistillation. the student is ahead")
def test_an_overlay_parses_fits_and_is_repeated(folder, fit, caplog):
    (folder / "teacher.yaml").write_text(OVERLAY)
    with caplog.at_level("INFO"):
        assert fit("--config=teacher.yaml", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs") == 0
    (said,) = (message for message in caplog.messages if message.startswith("KnowledgeDistillation, teacher MLP"))
    assert said.endswith("0.5 · (1 - cosine of input_x_gradient) every 2 steps, alpha [0.9, 0.5], temperature 2.0.")
    (config,) = Path("logs").rglob("config.yaml")
    callbacks = yaml.safe_load(config.read_text())["trainer"]["callbacks"]
    (kept,) = (one["init_args"] for one in callbacks if one["class_path"].endswith("KnowledgeDistillation"))
    assert kept["teacher"]["class_path"] == "lit_xai.models.MLP"
    assert kept["explanation"]["every_n_steps"] == 2
    (checkpoint,) = Path("logs").rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert all(name.startswith("layers.") for name in saved["state_dict"])
    assert fit(f"--config={config}", "--trainer.logger.save_dir=again") == 0
    (again,) = Path("again").rglob("*.ckpt")
    assert all(
        torch.equal(value, saved["state_dict"][name])
        for name, value in torch.load(again, weights_only=True)["state_dict"].items()
    )


@pytest.mark.parametrize("teacher", ["ema", "dense", "best.ckpt"])
def test_names_and_paths(teacher, folder, fit):
    assert fit("--trainer.logger=false", "--trainer.default_root_dir=first") == 0
    (checkpoint,) = Path("first").rglob("*.ckpt")
    checkpoint.rename("best.ckpt")
    added = []
    if teacher == "dense":
        options = ["pruning_ratio=0.5", "report_latency=false", "round_to=1"]
        added = ["--trainer.callbacks+=lit_xai.callbacks.StructuredPruning"]
        added += [f"--trainer.callbacks.{option}" for option in options]
    kept = ["--trainer.callbacks+=lit_xai.callbacks.KnowledgeDistillation", f"--trainer.callbacks.teacher={teacher}"]
    assert fit(*added, *kept, "--trainer.logger=false", "--trainer.max_epochs=3") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["teacher=no.ckpt"], r"there is no file 'no.ckpt'"),
        (["teacher=ema", "alpha=3"], r"alpha expected numbers in \[0, 1\], but got 3"),
        (["teacher=ema", "loss=kl"], r"loss expected a function, its import path, or one of kl_divergence"),
        (["teacher=ema", "explanation.method=gradcam"], r"Did you mean 'grad_cam'"),
    ],
)
def test_mistakes_are_one_sentence(options, words, fit, capsys):
    given = [f"--trainer.callbacks.{option}" for option in options]
    assert fit("--trainer.callbacks+=lit_xai.callbacks.KnowledgeDistillation", *given, "--trainer.logger=false")
    said = capsys.readouterr().err
    assert re.search(words, said), said
    assert "Traceback" not in said
