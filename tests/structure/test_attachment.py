"""Checkpoints of a real Trainer carry the structure, and nothing stays on the module."""

import copy
import pickle

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import load_from_checkpoint
from lit_xai.models import MLP
from lit_xai.pruning.pruning import prune_step
from lit_xai.structure.attachment import attach, detach, take_step_
from lit_xai.structure.recipe import KEY


def module_class(package):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

        test_step = validation_step

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    return Module


def pruning_callback(package):
    class Prune(package.Callback):
        """The least that a compression callback does: attach, take steps, detach."""

        def setup(self, trainer, pl_module, stage):
            attach(pl_module, self)

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch in (1, 2):
                take_step_(
                    pl_module, prune_step(pl_module, torch.zeros(1, 1, 8, 8), pruning_ratio=0.25), trainer.optimizers
                )

        def teardown(self, trainer, pl_module, stage):
            detach(pl_module, self)

        def on_exception(self, trainer, pl_module, exception):
            detach(pl_module, self)

    return Prune()


def data():
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(32, 1, 8, 8), torch.arange(32) % 10), batch_size=8)


def trainer_of(package, folder, **options):
    checkpoint = package.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_last=True, monitor="val/loss")
    return package.Trainer(
        callbacks=[pruning_callback(package), checkpoint],
        **({"max_epochs": 4, "logger": False, "accelerator": "cpu", "default_root_dir": folder} | options),
        enable_progress_bar=False,
        enable_model_summary=False,
    )


PACKAGES = pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pl"])


@PACKAGES
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_every_checkpoint_of_a_pruned_run_loads_again(package, tmp_path):
    trainer, module = trainer_of(package, tmp_path), module_class(package)()
    trainer.fit(module, data(), data())
    assert module.conv.out_channels == 4  # 8, 6, 4
    assert not set(vars(module)) & {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"}
    expected = {}
    for name, width in {"epoch=0": 8, "epoch=1": 6, "epoch=2": 4, "last": 4}.items():
        path = tmp_path / f"{name}.ckpt"
        assert torch.load(path, weights_only=True)["state_dict"]["conv.weight"].shape[0] == width
        expected[name] = trainer.test(module, data(), ckpt_path=path, verbose=False)[0]["val/loss"]
        assert module.conv.out_channels == width
        loaded = load_from_checkpoint(type(module), path)
        assert loaded.conv.out_channels == width
        fresh = package.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
        assert fresh.test(loaded, data(), verbose=False)[0]["val/loss"] == pytest.approx(expected[name], abs=1e-6)
    for word in ("best", "last"):
        trainer.test(module, data(), ckpt_path=word, verbose=False)
    # Fit again from an earlier, wider one.
    trainer_of(package, tmp_path / "again", max_epochs=2).fit(
        module, data(), data(), ckpt_path=tmp_path / "epoch=0.ckpt"
    )
    assert module.conv.out_channels == 6


def test_recipe_is_in_weights_only_checkpoints(tmp_path):
    trainer, module = trainer_of(lightning.pytorch, tmp_path), module_class(lightning.pytorch)()
    trainer.callbacks[-1].save_weights_only = True
    trainer.fit(module, data(), data())
    assert len(torch.load(tmp_path / "last.ckpt", weights_only=True)[KEY]["steps"]) == 2
    assert load_from_checkpoint(type(module), tmp_path / "last.ckpt").conv.out_channels == 4


def test_nothing_stays_after_an_exception(tmp_path):
    module = module_class(lightning.pytorch)()

    class Stop(lightning.pytorch.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError("stop")

    trainer = trainer_of(lightning.pytorch, tmp_path)
    trainer.callbacks.append(Stop())
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(module, data(), data())
    assert not set(vars(module)) & {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"}


def test_attachment_counts_and_is_absent_from_copies():
    module = module_class(lightning.pytorch)()
    attach(module, "first")
    attach(module, "second")
    assert "on_load_checkpoint" not in vars(copy.deepcopy(module))
    assert "on_load_checkpoint" in vars(module)
    detach(module, "first")
    assert "on_load_checkpoint" in vars(module)
    detach(module, "first")
    assert "on_load_checkpoint" in vars(module)
    detach(module, "second")
    detach(module, "second")
    assert not set(vars(module)) & {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"}


def test_attached_modules_can_be_pickled():
    from lit_xai.models import Classifier

    module = Classifier(MLP(4, (3,), 2), num_classes=2)
    attach(module, "test")
    again = pickle.loads(pickle.dumps(module))
    assert "on_load_checkpoint" not in vars(again)
    detach(module, "test")


def test_somebody_elses_wrapper_comes_back():
    module = module_class(lightning.pytorch)()
    called = []
    module.on_load_checkpoint = theirs = lambda checkpoint: called.append(checkpoint)
    attach(module, "test")
    module.on_load_checkpoint({})
    assert called == [{}]
    detach(module, "test")
    assert module.on_load_checkpoint is theirs
