"""A real TensorBoard server over a real run shows every epoch."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from lit_xai.callbacks import AttributionMonitor
from lit_xai.data import Digits
from lit_xai.models import MLP, Classifier

EPOCHS = 15


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    seed_everything(0, verbose=False)
    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=[AttributionMonitor(), AttributionMonitor("Saliency", every_n_epochs=5)],
        logger=TensorBoardLogger(folder),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    trainer.fit(Classifier(MLP(64, (32,), 10), num_classes=10), datamodule=Digits())
    return folder


@pytest.fixture(scope="module")
def server(log_dir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir), "--samples_per_plugin", "images=500"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}/data/plugin"
    process.terminate()
    process.wait(20)


def ask(server: str, path: str, **query: str) -> bytes:
    with urllib.request.urlopen(f"{server}/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        return answer.read()


def ask_until(server: str, path: str, ready, seconds: int = 60, **query: str):
    """The server reads the folder in the background: ask until it has come to the end."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = json.loads(ask(server, path, **query))
        except (urllib.error.URLError, ConnectionError, json.JSONDecodeError):
            found = None
        if (found and ready(found)) or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def test_every_epoch_is_served(server):
    run = "lightning_logs/version_0"
    tag = "attribution/IntegratedGradients"
    images = ask_until(server, "images/images", lambda found: len(found) == EPOCHS, run=run, tag=tag, sample="0")
    steps = [image["step"] for image in images]
    assert len(steps) == EPOCHS
    assert steps == sorted(set(steps))
    for image in images:
        assert ask(server, f"images/individualImage?{image['query']}").startswith(b"\x89PNG")
    rare = json.loads(ask(server, "images/images", run=run, tag="attribution/Saliency", sample="0"))
    assert [image["step"] for image in rare] == steps[4::5]


def test_scalars_share_the_axis_of_the_figures(server):
    run = "lightning_logs/version_0"
    images = ask_until(
        server,
        "images/images",
        lambda found: len(found) == EPOCHS,
        run=run,
        tag="attribution/IntegratedGradients",
        sample="0",
    )
    steps = [image["step"] for image in images]
    for tag in ("val/loss", "train/loss", "attribution/IntegratedGradients/convergence_delta"):
        scalars = json.loads(ask(server, "scalars/scalars", run=run, tag=tag))
        assert [step for _, step, _ in scalars] == steps, tag
