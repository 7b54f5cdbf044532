"""A resumed run ends with exactly the weights of an uninterrupted one; checkpoints hold only the student."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from taught import Conv, Module, Sized, assert_equal, data, fit, loader, mlp
from torch.utils.data import DataLoader, Subset

from lit_xai import ExplanationMatching, KnowledgeDistillation, StructuredPruning

pruning = partial(StructuredPruning, 0.5, every_n_epochs=1, round_to=1, report_latency=False)
wide = partial(Conv, 16, seed=2)


def path_of(folder):
    module = Module(Conv(seed=5))
    fit(module, folder, max_epochs=1).save_checkpoint(folder / "teacher.ckpt")
    return folder / "teacher.ckpt"


SETTINGS = {
    "path": lambda folder: [KnowledgeDistillation(str(path_of(folder)), alpha=0.5)],
    "adapters": lambda folder: [KnowledgeDistillation(wide(), features=["first", "second"])],
    "schedules": lambda folder: [KnowledgeDistillation(wide(), alpha=[0.9, 0.1], temperature=[1, 2, 8])],
    "explained": lambda folder: [
        KnowledgeDistillation(wide(), explanation=ExplanationMatching("grad_cam", layers=["second"], every_n_steps=3))
    ],
    "ema": lambda folder: [KnowledgeDistillation("ema", ema_decay=0.9)],
    "dense": lambda folder: [KnowledgeDistillation("dense"), pruning(start_epoch=1, end_epoch=2)],
    "dense, later": lambda folder: [pruning(start_epoch=3, end_epoch=3), KnowledgeDistillation("dense")],
    "dense, adapters": lambda folder: [
        pruning(start_epoch=1, end_epoch=2),
        KnowledgeDistillation("dense", features=["second"]),
    ],
    "ema, pruned": lambda folder: [
        pruning(start_epoch=1, end_epoch=2),
        KnowledgeDistillation("ema", features=["first"]),
    ],
    "two": lambda folder: [
        KnowledgeDistillation("ema", features=["first"]),
        KnowledgeDistillation(wide(), alpha=0.3, features=["second"]),
    ],
}


class Save(Callback):
    """Comes last, as ModelCheckpoint does, and has no state."""

    def __init__(self, folder, every_batch=False):
        self.folder, self.every_batch = folder, every_batch

    def on_train_epoch_end(self, trainer, pl_module):
        if not self.every_batch:
            trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.every_batch:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("setting", SETTINGS)
def test_resumed_is_uninterrupted(setting, tmp_path):
    whole = Module(Conv())
    fit(whole, tmp_path, *SETTINGS[setting](tmp_path), Save(tmp_path), max_epochs=4)
    for epoch in (0, 1, 2):
        resumed = Module(Conv(seed=7))
        fit(
            resumed,
            tmp_path,
            *SETTINGS[setting](tmp_path),
            max_epochs=4,
            ckpt_path=tmp_path / f"{epoch}.ckpt",
            seed=5,
        )
        assert_equal(resumed.state_dict(), whole.state_dict())


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("setting", ["adapters", "schedules", "ema", "two"])
def test_resumed_within_an_epoch(setting, tmp_path):
    """Lightning gives the epoch's first batches again: here all are the same."""
    same = DataLoader(Subset(data(), list(range(16)) * 4), batch_size=16)
    whole = Module(Conv())
    fit(whole, tmp_path, *SETTINGS[setting](tmp_path), Save(tmp_path, True), max_epochs=3, train=same)
    for step in (2, 5, 8):
        resumed = Module(Conv(seed=7))
        ckpt_path = tmp_path / f"{step}.ckpt"
        fit(resumed, tmp_path, *SETTINGS[setting](tmp_path), max_epochs=3, train=same, ckpt_path=ckpt_path)
        assert_equal(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("setting", ["path", "adapters", "ema", "dense", "ema, pruned"])
def test_training_continues_from_a_checkpoint_saved_after_fit(setting, tmp_path):
    whole, half, more = Module(Conv()), Module(Conv()), Module(Conv(seed=7))
    fit(whole, tmp_path, *SETTINGS[setting](tmp_path), max_epochs=4)
    trainer = fit(half, tmp_path, *SETTINGS[setting](tmp_path), max_epochs=3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit(more, tmp_path, *SETTINGS[setting](tmp_path), max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert_equal(more.state_dict(), whole.state_dict())


class Stop(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 2:
            raise RuntimeError("stop")


def test_the_trainers_own_fit_twice(tmp_path):
    module, kept = Module(Conv()), KnowledgeDistillation(wide(), features=["first"])
    with pytest.raises(RuntimeError, match="stop"):
        fit(module, tmp_path, kept, Stop(), max_epochs=4)
    fit(module, tmp_path, kept, max_epochs=2)
    again, once = Module(Conv()), Module(Conv())
    fit(again, tmp_path, kept)
    fit(once, tmp_path, KnowledgeDistillation(wide(), features=["first"]))
    assert_equal(again.state_dict(), once.state_dict())


def test_checkpoints_can_be_evaluated(tmp_path):
    module = Module(Conv())
    trainer = fit(module, tmp_path, KnowledgeDistillation(wide(), features=["first"]), KnowledgeDistillation("ema"))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    expected = trainer.validate(module, loader(), verbose=False)
    again = Trainer(
        logger=False, accelerator="cpu", callbacks=[KnowledgeDistillation("ema")], enable_progress_bar=False
    )
    with pytest.warns(UserWarning, match="Be aware"):
        assert again.validate(Module(Conv(seed=7)), loader(), tmp_path / "end.ckpt", verbose=False) == expected
    assert trainer.validate(module, loader(), tmp_path / "end.ckpt", verbose=False) == expected


def test_a_teacher_may_be_moved_but_not_exchanged(tmp_path):
    def run(*callbacks, epochs, ckpt_path=None):
        module = Module(Conv())
        trainer = fit(module, tmp_path, *callbacks, max_epochs=epochs, ckpt_path=ckpt_path)
        return module, trainer

    def kept(teacher):
        return KnowledgeDistillation(teacher, features=["first"])

    path = path_of(tmp_path)
    expected, _ = run(kept(str(path)), epochs=3)
    run(kept(str(path)), epochs=2)[1].save_checkpoint(tmp_path / "half.ckpt")
    path.rename(tmp_path / "moved.ckpt")
    with pytest.warns(UserWarning, match="Be aware that when using `ckpt_path`"):
        module, _ = run(kept(str(tmp_path / "moved.ckpt")), epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert_equal(module.state_dict(), expected.state_dict())
    fit(Module(Conv(seed=9)), tmp_path, max_epochs=1).save_checkpoint(path)
    with pytest.raises(Exception, match=r"had another teacher, .*teacher\.ckpt \([0-9a-f]+\), than .*start a new run"):
        run(kept(str(path)), epochs=3, ckpt_path=tmp_path / "half.ckpt")
    with (
        pytest.warns(UserWarning, match="Be aware"),
        pytest.raises(Exception, match=r"had another teacher, .* than ema"),
    ):
        run(kept("ema"), epochs=3, ckpt_path=tmp_path / "half.ckpt")


# --- what a checkpoint holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["path", "adapters", "ema", "two"])
def test_the_students_part_of_a_checkpoint_is_as_without(setting, tmp_path):
    checkpoints = []
    for i, callbacks in enumerate(([], SETTINGS[setting](tmp_path))):
        trainer = fit(Module(Conv()), tmp_path, *callbacks)
        trainer.save_checkpoint(tmp_path / f"{i}.ckpt")
        checkpoints.append(torch.load(tmp_path / f"{i}.ckpt", weights_only=True))
    plain, distilled = checkpoints
    assert distilled.keys() - plain.keys() == {"lit_xai_losses"}  # of the watch, which Lightning passes over
    assert plain["state_dict"].keys() == distilled["state_dict"].keys()
    assert all(value.shape == distilled["state_dict"][name].shape for name, value in plain["state_dict"].items())
    expected, optimizer = (checkpoint["optimizer_states"][0] for checkpoint in checkpoints)
    assert expected["param_groups"] == optimizer["param_groups"]
    assert expected["state"].keys() == optimizer["state"].keys()
    assert plain.get("hyper_parameters") == distilled.get("hyper_parameters")
    assert len(checkpoints[1]["callbacks"]) == 1 + (setting == "two")


OWN = """
import torch
from lightning.pytorch import LightningModule
from torch import nn

class Own(LightningModule):
    def __init__(self, width: int = 4):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    def forward(self, x):
        return self.network(x)
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
"""
LOAD = """
import sys, torch
from own_student import Own
own = Own.load_from_checkpoint("student.ckpt")
assert own.hparams == {"width": 6}, own.hparams
assert own(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
assert not [name for name in sys.modules if name.startswith("lit_xai")]
"""


def test_plain_lightning_loads_the_student(tmp_path, monkeypatch):
    (tmp_path / "own_student.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from own_student import Own

    trainer = fit(Own(6), tmp_path, KnowledgeDistillation(mlp(24), features=["2"]), KnowledgeDistillation("ema"))
    trainer.save_checkpoint("student.ckpt")
    monkeypatch.delitem(sys.modules, "own_student")
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_student_keeps_its_hyperparameters(tmp_path):
    trainer = fit(Sized(12), tmp_path, KnowledgeDistillation(mlp(24)))
    trainer.save_checkpoint(tmp_path / "student.ckpt")
    loaded = Sized.load_from_checkpoint(tmp_path / "student.ckpt")
    assert_equal(loaded.state_dict(), trainer.lightning_module.state_dict())


# --- killed -----------------------------------------------------------------------------------------------------------


def run(folder, point):
    script = str(Path(__file__).with_name("distilled_run.py"))
    command = [sys.executable, script, str(folder), point]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "end.pt")


@pytest.mark.slow  # integration/test_resume.py kills runs as well
@pytest.mark.parametrize("point", ["1:3", "3:1"])
def test_killed_and_resumed(uninterrupted, point, tmp_path):
    killed = run(tmp_path, point)
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert not (tmp_path / "end.pt").exists()
    resumed = run(tmp_path, "whole")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_equal(torch.load(tmp_path / "end.pt"), uninterrupted)
