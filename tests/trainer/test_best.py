"""What compares metrics over epochs begins anew, and every earlier best file is still there to be loaded."""

import copy
import os
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.trainer.access import is_a
from lit_xai.trainer.best import find_best_again, start_over

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]

LOSSES = [1.0, 0.5, 2.0, 1.8, 1.9, 1.7]
"""Logged at the end of each epoch: nothing after the change at epoch 2 is as good as before."""


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request):
    return import_module(request.param)


def module_of(pl):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def training_step(self, batch, batch_idx):
            return self.layer(batch[0]).sum()

        def on_train_epoch_end(self):
            self.log("loss", LOSSES[self.current_epoch])

        def test_step(self, batch, batch_idx):
            pass

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "loss"}}

    return Module()


def changing(pl, at=(2,)):
    class Change(pl.Callback):
        """Remembers what the others know right after the change, and starts over before."""

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch in at:
                number = at.index(trainer.current_epoch)
                start_over(trainer, f"pruned{number}" if number else "dense")
                self.states = [copy.deepcopy(c.state_dict()) for c in trainer.callbacks]
                self.plateau = copy.copy(trainer.lr_scheduler_configs[0].scheduler.state_dict())

    return Change()


def fit(pl, folder, *callbacks, max_epochs=5, ckpt_path=None):
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(is_a(c, "ModelCheckpoint") for c in callbacks),
    )
    trainer.fit(module_of(pl), DataLoader(TensorDataset(torch.ones(2, 2))), ckpt_path=ckpt_path)
    return trainer


def names(folder):
    return sorted(path.name for path in folder.glob("*.ckpt"))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_best_is_per_structure(pl, tmp_path, mode):
    saved = pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", monitor="loss", mode=mode, save_last=True)
    trainer = fit(pl, tmp_path, changing(pl), saved, max_epochs=5)
    before, after = ("1", "3") if mode == "min" else ("0", "2")
    assert names(tmp_path) == sorted([f"epoch={before}-dense.ckpt", f"epoch={after}.ckpt", "last.ckpt"])
    assert saved.best_model_score == LOSSES[int(after)]
    assert Path(saved.best_model_path).name == f"epoch={after}.ckpt"
    trainer.test(ckpt_path="best", verbose=False, dataloaders=DataLoader(TensorDataset(torch.ones(2, 2))))


def test_several_best_and_several_cuts(pl, tmp_path):
    saved = pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", monitor="loss", save_top_k=2)
    fit(pl, tmp_path, changing(pl, (2, 4)), saved, max_epochs=6)
    dense, pruned = ["epoch=0-dense.ckpt", "epoch=1-dense.ckpt"], ["epoch=2-pruned1.ckpt", "epoch=3-pruned1.ckpt"]
    assert names(tmp_path) == [*dense, *pruned, "epoch=4.ckpt", "epoch=5.ckpt"]
    assert sorted(saved.best_k_models.values()) == [LOSSES[5], LOSSES[4]]


@pytest.mark.parametrize("options", [{"save_top_k": -1}, {"save_top_k": -1, "monitor": "loss"}, {}, {"save_top_k": 0}])
def test_nothing_is_renamed_where_nothing_is_lost(pl, tmp_path, options):
    plain = pl.callbacks.ModelCheckpoint(tmp_path / "plain", "{epoch}", save_last=True, **options)
    fit(pl, tmp_path, plain)
    saved = pl.callbacks.ModelCheckpoint(tmp_path / "cut", "{epoch}", save_last=True, **options)
    fit(pl, tmp_path, changing(pl), saved)
    assert names(tmp_path / "cut") == names(tmp_path / "plain") != []
    if "monitor" in options:
        assert Path(plain.best_model_path).name == "epoch=1.ckpt"
        assert Path(saved.best_model_path).name == "epoch=3.ckpt"


def test_a_linked_last_one_does_not_dangle(pl, tmp_path):
    saved = pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", monitor="loss", save_last="link")

    class Look(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                self.target = os.readlink(tmp_path / "last.ckpt")
                assert (tmp_path / "last.ckpt").exists()

    look = Look()
    fit(pl, tmp_path, changing(pl), look, saved)
    assert look.target == "epoch=1-dense.ckpt"
    assert (tmp_path / "last.ckpt").exists()


def test_states_are_those_of_the_beginning(pl, tmp_path):
    stopping = pl.callbacks.EarlyStopping("loss", patience=2)
    saved = pl.callbacks.ModelCheckpoint(tmp_path, monitor="loss")
    fresh = [pl.callbacks.EarlyStopping("loss", patience=2).state_dict(), copy.deepcopy(saved.state_dict())]
    change = changing(pl)
    trainer = fit(pl, tmp_path, change, stopping, saved)
    assert change.states[1] == fresh[0]
    kept = {"dirpath", "last_model_path"}
    assert {k: v for k, v in change.states[2].items() if k not in kept} == {
        k: v for k, v in fresh[1].items() if k not in kept
    }
    # Against 0.5 of before it would have stopped after epoch 3, and the rate would have fallen after epoch 4.
    assert trainer.current_epoch == 5
    assert (change.plateau["best"], change.plateau["num_bad_epochs"]) == (float("inf"), 0)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1


def test_a_resumed_run_finds_what_was_renamed(pl, tmp_path):
    """Killed after the change, resumed from before it: the checkpoint's own state has the old names."""
    every = pl.callbacks.ModelCheckpoint(tmp_path / "every", "{epoch}", save_top_k=-1)
    saved = pl.callbacks.ModelCheckpoint(tmp_path / "best", "{epoch}", monitor="loss")
    fit(pl, tmp_path, changing(pl), saved, every, max_epochs=3)

    class Find(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            find_best_again(trainer, "dense")
            self.found = copy.deepcopy(saved.state_dict())

    find = Find()
    saved = pl.callbacks.ModelCheckpoint(tmp_path / "best", "{epoch}", monitor="loss")
    every = pl.callbacks.ModelCheckpoint(tmp_path / "every", "{epoch}", save_top_k=-1)
    ckpt_path = tmp_path / "every" / "epoch=1.ckpt"
    fit(pl, tmp_path, find, changing(pl), saved, every, ckpt_path=ckpt_path)
    assert Path(find.found["best_model_path"]).name == "epoch=1-dense.ckpt"
    assert [Path(name).name for name in find.found["best_k_models"]] == ["epoch=1-dense.ckpt"]
    assert names(tmp_path / "best")[-1] == "epoch=3.ckpt"
    assert (tmp_path / "best" / "epoch=1-dense.ckpt").exists()


def test_earlier_files_of_the_same_name_are_kept(pl, tmp_path):
    (tmp_path / "epoch=1-dense.ckpt").write_text("of another run")
    fit(pl, tmp_path, changing(pl), pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", monitor="loss"))
    assert (tmp_path / "epoch=1-dense.ckpt").read_text() == "of another run"
    assert "epoch=1-dense-v1.ckpt" in names(tmp_path)
