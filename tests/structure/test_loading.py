"""A module is loaded in the structure in which it was saved, or the file is refused."""

import io
import itertools
import linecache
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter

import pytest
import torch
from damage import damaged_bytes, damaged_values, damaged_zips
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_xai import FollowRecipe, QuantizationAwareTraining, StructuredPruning, load_from_checkpoint
from lit_xai.cli.checkpoints import load_weights
from lit_xai.data import Digits
from lit_xai.distillation.teacher_source import read_teacher
from lit_xai.structure.attachment import attach, detach


def test_another_process_needs_the_class_alone(tmp_path):
    module_code = """
import torch, torch.nn.functional as F
from torch import nn
from lightning.pytorch import LightningModule
class Mine(LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 3)
    def forward(self, x):
        return self.b(F.relu(self.a(x)))
"""
    (tmp_path / "mine.py").write_text(module_code)
    save = """
import torch, mine
from lightning.pytorch import Trainer
from lit_xai.pruning.pruning import prune_step
from lit_xai.recipe import attach, take_step_
module = mine.Mine(width=12)
attach(module, "test")
take_step_(module, prune_step(module, torch.zeros(1, 4)))
trainer = Trainer(logger=False, accelerator="cpu")
trainer.strategy.connect(module)
trainer.save_checkpoint("mine.ckpt")
torch.save(module(torch.ones(2, 4)), "expected.pt")
"""
    load = """
import torch, mine, lit_xai
module = lit_xai.load_from_checkpoint(mine.Mine, "mine.ckpt")
assert module.a.out_features == 6
assert torch.equal(module(torch.ones(2, 4)), torch.load("expected.pt"))
"""
    for code in (save, load):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]


# --- damaged files ------------------------------------------------------------------------------------------------

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
QUIET |= {"enable_checkpointing": False}


class Net(LightningModule):
    def __init__(self, width: int = 8, names: tuple[str, ...] = ("a", "b")):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            *(nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)),
        )

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Checkpoints of real runs, by the structure of the network in them."""
    folder, pruning = (
        tmp_path_factory.mktemp("originals"),
        {"start_epoch": 0, "end_epoch": 0, "round_to": 1, "report_latency": False},
    )
    callbacks = {
        "plain": [],
        "pruned": [StructuredPruning(0.5, **pruning)],
        "quantized": [StructuredPruning(0.5, **pruning), QuantizationAwareTraining(start_epoch=1)],
    }
    for name, some in callbacks.items():
        seed_everything(0, verbose=False)
        trainer = Trainer(
            **QUIET,
            max_epochs=2,
            default_root_dir=folder,
            limit_train_batches=3,
            limit_val_batches=0,
            callbacks=some,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(Net(), Digits(batch_size=32))
        trainer.save_checkpoint(folder / f"{name}.ckpt")
    return {name: folder / f"{name}.ckpt" for name in callbacks}


def saved(values):
    file = io.BytesIO()
    torch.save(values, file)
    return file.getvalue()


def damaged_files(original, seed):
    """Yield files damaged in their bytes, in their zip entries, and in their values, by turns."""
    raw, values = original.read_bytes(), torch.load(original, weights_only=True)
    streams = [damaged_bytes(raw, seed), damaged_zips(raw, seed), damaged_values(values, seed)]
    streams += [damaged_values(values, seed, (key,)) for key in ("state_dict", "hyper_parameters") if key in values]
    for stream in itertools.cycle(streams):
        # Recipes have a suite of their own.
        label, damaged = next(one for one in stream if not one[0].startswith("lit_xai_recipe"))
        yield label, damaged if isinstance(damaged, bytes) else saved(damaged)


def by_class(path):
    return load_from_checkpoint(Net, path)


def by_trainer(path):
    module = Net()
    Trainer(**QUIET, callbacks=[FollowRecipe()], limit_test_batches=1).test(
        module, Digits(batch_size=2, train_size=0.01), ckpt_path=path, verbose=False
    )
    return module


def as_start(path):
    module = Net()
    holder = object()
    attach(module, holder)
    try:
        load_weights(module, str(path))
    finally:
        detach(module, holder)
    return module


def as_teacher(path):
    return read_teacher(path, None, Net())


LOADERS = {"class": by_class, "trainer": by_trainer, "start": as_start, "teacher": as_teacher}


def answer(module, x):
    """Return the outputs, empty where the weights of a file, such as an infinite scale, give none."""
    try:
        return module(x).nan_to_num()
    except RuntimeError:
        return torch.empty(0)


def outcome(load, path, original):
    """Return ``"refused"``, ``"same"`` or what is wrong, for one damaged file."""
    before = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = load(path).eval()
    except (ValueError, OSError, MisconfigurationException) as error:
        # Said on purpose, and not by an accident in our own code.
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        source = linecache.getline(frame.f_code.co_filename, line).strip()
        is_ours = "lit_xai" in frame.f_code.co_filename and source.startswith("raise ")
        result = "refused" if is_ours and "\n" not in str(error) else f"an accident: {error!r}"
    except Exception as error:
        result = f"a foreign error: {error!r}"
    else:
        x = torch.linspace(0, 1, 128).view(2, 1, 8, 8)
        # With the weights of the file, whose bytes may have been edited on purpose, in the structure of the original.
        expected = load_from_checkpoint(Net, original).eval()
        expected.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        is_same = torch.equal(answer(module, x), answer(expected, x))
        result = "same" if is_same else "another network"
    return result if time.monotonic() - before < 10 else f"too slow: {result}"


def check_damaged(originals, seed, most, tmp_path, monkeypatch):
    executed = []
    monkeypatch.setattr(os, "system", executed.append)
    counts, wrong = Counter(), []
    streams = {name: damaged_files(original, seed) for name, original in originals.items()}
    turns = itertools.cycle([(name, loader) for loader in LOADERS for name in originals])
    for number, (name, loader) in zip(range(most), turns, strict=False):
        label, damaged = next(streams[name])
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(damaged)
        result = outcome(LOADERS[loader], path, originals[name])
        counts[result if result in ("refused", "same") else "wrong"] += 1
        if result not in ("refused", "same"):
            wrong.append(f"{name}, {loader}, {label}: {result[:200]}")
        path.unlink()
    assert not wrong, "\n".join([f"{counts}", *wrong])
    assert not executed
    assert counts["refused"] > most / 4
    assert counts["same"] > most / 20
    return counts


def test_damaged_files_are_refused_or_load_the_same_network(originals, tmp_path, monkeypatch):
    check_damaged(originals, 0, 30, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_many_damaged_files_are_refused_or_load_the_same_network(originals, seed, tmp_path, monkeypatch):
    print(check_damaged(originals, seed, 250, tmp_path, monkeypatch))  # noqa: T201 - the counts, with -s
