"""Tiny files in the published formats, a server on loopback to fetch them from, a model and a Trainer for them."""

import gzip
import struct
import threading
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn


def idx_bytes(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def write_mnist():
    """Writes the four files of MNIST: image i is filled with the byte i, its label is i % 10."""

    def write(folder, train=40, test=10):
        folder.mkdir(parents=True, exist_ok=True)
        for part, count in (("train", train), ("t10k", test)):
            index = np.arange(count)
            images = np.broadcast_to(index[:, None, None], (count, 28, 28))
            (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
            (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(index % 10)))
        return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    return write


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; announces twice the length for a file in `short`, as if the connection broke off."""

    short: set[str] = set()
    requested: list[str] = []

    def do_GET(self):
        self.requested.append(self.path)
        super().do_GET()

    def send_header(self, name, value):
        if name == "Content-Length" and self.path.rpartition("/")[2] in self.short:
            value = str(2 * int(value))
        super().send_header(name, value)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A server on loopback: its `url`, the `folder` it serves, names it cuts `short`, `requested` paths."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("FolderHandler", (Handler,), {"short": set(), "requested": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as httpd:
        httpd.folder, httpd.short, httpd.requested = folder, handler.short, handler.requested
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


class Linear(LightningModule):
    """Logistic regression that keeps the shapes and types of the batches it was given."""

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, 10)
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def _loss(self, batch, stage):
        x, y = batch
        self.seen[stage].append((tuple(x.shape), x.dtype, tuple(y.shape), y.dtype))
        return nn.functional.cross_entropy(self.linear(x.flatten(1)), y)

    def training_step(self, batch, batch_idx):
        return self._loss(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self._loss(batch, "val"))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self._loss(batch, "test")
        self.log("accuracy", (self.linear(x.flatten(1)).argmax(1) == y).float().mean())

    def predict_step(self, batch, batch_idx):
        self._loss(batch, "predict")
        return self.linear(batch[0].flatten(1)).argmax(1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


@pytest.fixture
def make_model():
    return Linear


@pytest.fixture
def make_trainer():
    """A quiet Trainer on the CPU."""

    def make(**kwargs):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        return Trainer(**{"accelerator": "cpu", "max_epochs": 1, "logger": False, **quiet, **kwargs})

    return make
