"""Whatever moved a module's parameters, a resumed run has every optimizer moment at its own parameter."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from reordered import Grouped, decays, moments

from lit_xai import (
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    StructuredPruning,
    load_from_checkpoint,
)
from lit_xai.cli import main
from lit_xai.pruning.pruning import prune_step
from lit_xai.quantization.steps import fold_step
from lit_xai.structure.recipe import KEY, dense_copy, recipe_of
from lit_xai.trainer.structural_callback import FollowRecipe, StructuralCallback

PAIRS = [("first", "first_norm"), ("second", "second_norm"), ("third", "third_norm")]
MOVE = {"kind": "reordered.move_last", "child": "first", "place": 0}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def fold(pl_module):
    return [fold_step(pl_module, PAIRS)]


def cut_and_fold(pl_module):
    step = prune_step(pl_module, torch.zeros(1, 1, 8, 8), pruning_ratio=0.5, ignored_layers=["head"])
    return [step, *fold(pl_module)]


def move(pl_module):
    return [MOVE]


STEPS = {"fold": fold, "cut and fold": cut_and_fold, "registered": move}


class TakeSteps(StructuralCallback):
    """Takes steps at the start of the second epoch."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def change(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.take_step(trainer, pl_module, *self.make(pl_module))


class Saved(Callback):
    """What the optimizers hold when the checkpoint is written."""

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.moments, self.decays = moments(pl_module), decays(pl_module)


def written(folder, groups, *callbacks, epochs=3):
    """Fit, and return the path of the last checkpoint and what the optimizers held then, by name."""
    torch.manual_seed(0)
    saved = Saved()
    checkpoint = ModelCheckpoint(folder, save_last=True)
    trainer = Trainer(callbacks=[*callbacks, checkpoint, saved], max_epochs=epochs, default_root_dir=folder, **QUIET)
    trainer.fit(Grouped(groups))
    return folder / "last.ckpt", saved


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, state in expected.items():
        assert state, name  # every parameter has moments: nothing passes because nothing was there
        assert found[name].keys() == state.keys(), name
        for key, value in state.items():
            assert torch.equal(found[name][key], value), (name, key)


def resumed(path, folder, groups, *callbacks):
    torch.manual_seed(1)
    module = Grouped(groups)
    trainer = Trainer(
        callbacks=list(callbacks), max_epochs=5, default_root_dir=folder, enable_checkpointing=False, **QUIET
    )
    trainer.fit(module, ckpt_path=path, weights_only=True)
    return module


def by_command_line(path, folder, groups, monkeypatch):
    found = []
    monkeypatch.setattr(Grouped, "on_train_start", lambda self: found.append((moments(self), decays(self))))
    options = [f"--trainer.{name}={str(value).lower()}" for name, value in QUIET.items()]
    code = main(
        [
            *("fit", "--model", "reordered.Grouped", "--model.groups", groups, "--ckpt_path", str(path)),
            *("--trainer.max_epochs", "5", "--trainer.default_root_dir", str(folder), *options),
            "--trainer.enable_checkpointing=false",
        ]
    )
    assert code == 0
    return found[0]


@pytest.mark.parametrize("way", ["QuantizationAwareTraining", "FollowRecipe", "command line"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("groups", ["one", "decay", "two"])
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_every_moment_is_at_its_own_parameter(groups, steps, way, tmp_path, monkeypatch):
    path, saved = written(tmp_path, groups, TakeSteps(STEPS[steps]))
    if way == "command line":
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        found, decay = by_command_line(path, tmp_path, groups, monkeypatch)
    else:
        late = QuantizationAwareTraining(start_epoch=4, freeze_epoch=5, calibration_batches=1)
        module = resumed(path, tmp_path, groups, late if way == "QuantizationAwareTraining" else FollowRecipe())
        found, decay = module.resumed_with, saved.decays
    equal(found, saved.moments)
    assert decay == saved.decays


@pytest.mark.parametrize("groups", ["one", "decay", "two"])
@pytest.mark.parametrize(
    "callback",
    [
        lambda folder: FollowRecipe(),
        lambda folder: StructuredPruning(0.5, start_epoch=0, end_epoch=0, report_latency=False),
        lambda folder: ModelExport(folder / "export", program=False),
        lambda folder: KnowledgeDistillation("ema"),
    ],
    ids=["FollowRecipe", "StructuredPruning", "ModelExport", "KnowledgeDistillation"],
)
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.filterwarnings("ignore:ModelExport")
def test_a_quantized_run_is_resumed_by_any_callback(callback, groups, tmp_path):
    """What 0.1 did silently wrong with two groups, and ended in an error of broadcasting with one."""
    quantize = QuantizationAwareTraining(start_epoch=1, freeze_epoch=2, calibration_batches=1)
    path, saved = written(tmp_path, groups, quantize)
    equal(resumed(path, tmp_path, groups, callback(tmp_path)).resumed_with, saved.moments)


def test_a_fresh_optimizer_keeps_its_own_groups(tmp_path):
    """Only a resumed optimizer is arranged: a test with a checkpoint, and a new fit after it, are not."""
    path, _ = written(tmp_path, "decay", TakeSteps(fold))
    module = Grouped("one")
    trainer = Trainer(callbacks=[FollowRecipe()], max_epochs=1, enable_checkpointing=False, **QUIET)
    module.on_load_checkpoint(torch.load(path, weights_only=True))
    trainer.fit(module)
    names = {id(p): n for n, p in module.named_parameters()}
    order = [names[id(p)] for p in trainer.optimizers[0].param_groups[0]["params"]]
    assert order == [name for name, _ in module.named_parameters()]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_optimizers_of_another_make_are_refused_by_torch_as_without_a_step(tmp_path):
    path, _ = written(tmp_path, "decay", TakeSteps(fold))
    with pytest.raises(ValueError, match="different number of parameter groups"):
        resumed(path, tmp_path, "one", FollowRecipe())


def test_checkpoints_of_a_run_that_changed_nothing_are_plain(tmp_path):
    path, _ = written(tmp_path, "one", FollowRecipe())
    checkpoint = torch.load(path, weights_only=True)
    assert KEY not in checkpoint
    assert set(checkpoint["callbacks"]) == {key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint")}


def test_a_registered_kind_is_loaded_and_undone(tmp_path):
    path, _ = written(tmp_path, "one", TakeSteps(move))
    module = load_from_checkpoint(Grouped, path)
    assert list(module._modules)[-1] == "first"
    assert recipe_of(module).label == "moved1"
    assert list(dense_copy(module)._modules) == list(Grouped()._modules)


@pytest.mark.parametrize("best", ["moved1", "dense"])
def test_best_is_named_by_the_kind(best, tmp_path):
    torch.manual_seed(0)

    class Logged(Grouped):
        def training_step(self, batch, batch_idx):
            self.log("loss", loss := super().training_step(batch, batch_idx))
            return loss

    checkpoint = ModelCheckpoint(tmp_path, "{epoch}", monitor="loss", save_on_train_epoch_end=True)
    steps = TakeSteps(move)
    steps.change = lambda trainer, pl_module: (
        steps.take_step(trainer, pl_module, MOVE) if trainer.current_epoch in (1, 2) else None
    )
    Trainer(callbacks=[steps, checkpoint], max_epochs=4, default_root_dir=tmp_path, **QUIET).fit(Logged("one"))
    assert [path.stem for path in tmp_path.glob(f"*-{best}.ckpt")]
