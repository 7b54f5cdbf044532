import subprocess
import sys

import pytest

PROJECT = """
import sys
import {package} as pl
from {package}.cli import LightningCLI
from {package}.demos.boring_classes import BoringModel, BoringDataModule

class Model(BoringModel):
    pass

options = ["fit", "--trainer.callbacks+=lit_xai.callbacks.AttributionMonitor", "--trainer.callbacks.target=1"]
options += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
options += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
cli = LightningCLI(Model, BoringDataModule, args=options)
monitors = [callback for callback in cli.trainer.callbacks if type(callback).__name__ == "AttributionMonitor"]
assert len(monitors) == 1 and isinstance(monitors[0], pl.Callback), monitors
"""


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_projects_own_command_line_takes_our_callbacks(package, tmp_path):
    (tmp_path / "project.py").write_text(PROJECT.format(package=package))
    done = subprocess.run([sys.executable, "project.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.rglob("attribution/**/figure.png"))) == 1
