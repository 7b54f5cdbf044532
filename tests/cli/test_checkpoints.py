import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_xai.cli.checkpoints import InitFrom, epochs_trained, load_weights, read_checkpoint

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class LogsLoss(BoringModel):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self(batch).sum())


def trainer(folder, **options):
    return Trainer(**QUIET, default_root_dir=folder, **{"limit_train_batches": 4, "limit_val_batches": 2, **options})


# The resumed run saves nothing: what it was given is compared, not continued.
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(
    ("saving", "options"),
    [
        ({"monitor": "val/loss"}, {}),
        ({}, {}),
        ({"save_on_train_epoch_end": True}, {}),
        ({"every_n_train_steps": 2}, {}),
        ({"monitor": "val/loss"}, {"val_check_interval": 0.5}),
        ({}, {"limit_val_batches": 0}),
        ({"every_n_train_steps": 3}, {"accumulate_grad_batches": 2}),
    ],
)
def test_epochs_trained_agrees_with_what_a_resume_still_trains(saving, options, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}-{step}", save_top_k=-1, **saving)
    trainer(tmp_path, max_epochs=2, callbacks=[saver], **options).fit(LogsLoss())
    files = sorted(tmp_path.glob("*.ckpt"))
    assert files
    for file in files:
        resumed = trainer(tmp_path, max_epochs=2, enable_checkpointing=False, **options)
        steps_before = torch.load(file)["global_step"]
        resumed.fit(LogsLoss(), ckpt_path=file)
        assert (resumed.global_step == steps_before) == (epochs_trained(read_checkpoint(str(file))) >= 2), file.name


def test_a_checkpoint_without_loops_has_trained_no_epoch():
    assert epochs_trained({"state_dict": {}}) == 0


class Net(BoringModel):
    def __init__(self, width=2, names=("layer",)):
        super().__init__()
        del self.layer
        for name in names:
            setattr(self, name, torch.nn.Linear(32, width))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Net(width=3), r"'layer\.weight' has shape \(2, 32\) in the file, but \(3, 32\) in the model"),
        (Net(names=["layer", "head"]), r"'head\.weight' is missing in the file"),
        (Net(names=["layers"]), r"'layers\.weight' is missing in the file\. Did you mean 'layer\.weight'"),
        (Net(names=[]), r"'layer\.weight' of the file is not in the model"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_the_first_that_does_not(model, words, tmp_path):
    torch.save({"state_dict": Net().state_dict()}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=f"'.*x.ckpt': The checkpoint does not fit Net: {words}") as error:
        load_weights(model, str(tmp_path / "x.ckpt"))
    assert "\n" not in str(error.value)


class BuildsLate(BoringModel):
    def __init__(self, where):
        super().__init__()
        del self.layer
        self.where = where
        self.seen = None

    def setup(self, stage):
        if self.where == "setup" and not hasattr(self, "layer"):
            self.layer = torch.nn.Linear(32, 2)

    def configure_model(self):
        if self.where == "configure_model" and not hasattr(self, "layer"):
            self.layer = torch.nn.Linear(32, 2)

    def on_load_checkpoint(self, checkpoint):
        self.hook_saw = list(checkpoint["state_dict"])

    def configure_optimizers(self):
        self.seen = self.layer.weight.detach().clone()
        return super().configure_optimizers()


@pytest.mark.parametrize("where", ["setup", "configure_model"])
def test_weights_are_there_when_optimizers_are_built_and_the_module_is_left_as_it_was(where, tmp_path):
    saved = BoringModel()
    torch.save({"state_dict": saved.state_dict()}, tmp_path / "x.ckpt")
    model = BuildsLate(where)
    fitting = trainer(
        tmp_path, max_epochs=1, callbacks=[InitFrom(str(tmp_path / "x.ckpt"))], enable_checkpointing=False
    )
    fitting.fit(model)
    torch.testing.assert_close(model.seen, saved.layer.weight.detach(), rtol=0, atol=0)
    assert model.hook_saw == ["layer.weight", "layer.bias"]
    assert "configure_model" not in vars(model)
    trained = model.layer.weight.detach().clone()
    assert not torch.equal(trained, model.seen)
    fitting.validate(model, verbose=False)  # and the weights are not loaded a second time
    torch.testing.assert_close(model.layer.weight.detach(), trained, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_pruned_checkpoint_loads_without_the_callback(tmp_path, monkeypatch):
    """A pruned model is tested without repeating how it was pruned."""
    from lit_xai.callbacks import StructuredPruning
    from lit_xai.data import Digits
    from lit_xai.models import Classifier, ResNet
    from lit_xai.trainer.structural_callback import FollowRecipe

    monkeypatch.chdir(tmp_path)
    quiet = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    pruning = StructuredPruning(0.5, report_latency=False)
    trainer = Trainer(max_epochs=1, callbacks=[pruning], enable_checkpointing=False, **quiet)
    model = Classifier(ResNet(8, in_channels=1), num_classes=10)
    trainer.fit(model, datamodule=Digits(train_size=0.1, batch_size=32))
    trainer.save_checkpoint(tmp_path / "pruned.ckpt")
    fresh = Classifier(ResNet(8, in_channels=1), num_classes=10)
    tester = Trainer(callbacks=[FollowRecipe()], **quiet)
    tester.test(fresh, datamodule=Digits(), ckpt_path=tmp_path / "pruned.ckpt", verbose=False)
    assert fresh.network.conv1.out_channels == model.network.conv1.out_channels == 8
    assert "on_load_checkpoint" not in vars(fresh)
