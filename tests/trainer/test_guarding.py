"""A Trainer with a callback of the library refuses a damaged checkpoint, and is left as it was."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_xai import FollowRecipe

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def trainer(**options):
    callbacks = [FollowRecipe(), FollowRecipe()]
    return Trainer(**QUIET, callbacks=callbacks, max_epochs=1, limit_train_batches=1, limit_val_batches=0, **options)


@pytest.fixture
def damaged(tmp_path):
    """A run's checkpoint with one bit of a weight flipped, which torch reads without a word."""
    fitted = trainer(enable_checkpointing=False)
    model = BoringModel()
    fitted.fit(model)
    fitted.save_checkpoint(tmp_path / "x.ckpt")
    raw = bytearray((tmp_path / "x.ckpt").read_bytes())
    raw[raw.index(model.layer.weight.detach().numpy().tobytes()) + 3] ^= 0x42
    (tmp_path / "x.ckpt").write_bytes(raw)
    assert torch.load(tmp_path / "x.ckpt")["state_dict"]
    return tmp_path / "x.ckpt"


@pytest.mark.parametrize("run", ["fit", "validate", "test", "predict"])
def test_flipped_weights_are_refused_before_anything_is_read(run, damaged):
    model, running = BoringModel(), trainer()
    before = model.layer.weight.detach().clone()
    with pytest.raises(ValueError, match=r"x.ckpt' is damaged.*: the checksum of its entry '.*' does not agree"):
        getattr(running, run)(model, ckpt_path=damaged)
    assert torch.equal(model.layer.weight, before)
    assert "load_checkpoint" not in vars(running.strategy)


def test_a_method_that_somebody_else_set_stays(damaged):
    running, called = trainer(), []

    def load(path, **options):
        called.append(path)
        return torch.load(path)

    running.strategy.load_checkpoint = load
    with pytest.raises(ValueError, match="damaged"):
        running.test(BoringModel(), ckpt_path=damaged)
    assert not called
    assert running.strategy.load_checkpoint is load
