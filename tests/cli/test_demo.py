import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lit_xai
from lit_xai.cli import main


def test_the_demo_trains_on_real_digits_and_prints_where_to_look(tmp_path):
    code = "import sys; sys.argv[0] = 'lit-xai'; from lit_xai.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "demo", "--trainer.max_epochs=3", "--trainer.accelerator=cpu"]
    started = time.monotonic()
    # On one thread: what other processes do must not decide whether this one is in time.
    environment = {**os.environ, "PYTHONPATH": str(Path(lit_xai.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - started < 60
    assert "Epoch 2" in ended.stdout  # the bar
    assert "Warning" not in ended.stderr
    assert "💡" not in ended.stderr
    *_, intro, picture, _, tensorboard = ended.stdout.splitlines()
    assert "red: evidence for the class, blue: against it" in intro
    assert (tmp_path / picture.strip()).read_bytes().startswith(b"\x89PNG")
    assert re.fullmatch(r"logs/version_0/attribution/IntegratedGradients/epoch=2.*\.png", picture.strip())
    assert tensorboard.strip() == "tensorboard --logdir logs --samples_per_plugin images=500"
    assert len(list(tmp_path.glob("logs/version_0/attribution/*/*/*.png"))) == 3


def test_the_demo_ends_in_one_sentence_where_it_cannot_write(folder, capsys):
    (folder / "logs").touch()
    assert main(["demo", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-xai: error: ")]
    assert f"cannot use '{folder}/logs': " in error


@pytest.mark.slow
def test_the_full_demo_holds_the_network_against_one_that_was_trained(folder, capsys):
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    assert main(["demo", "--full", "--trainer.max_epochs=5", "--model.network.width=16", *quiet]) == 0
    assert "lit-xai check logs/version_1" in capsys.readouterr().out
    report = json.loads((folder / "logs/version_1/report.json").read_text())
    reference = report["networks"][0]
    assert reference["name"] == "dense"
    assert reference["metric"]["value"] > 0.8  # of 10 classes, after its own training
