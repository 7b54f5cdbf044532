"""What is no checkpoint, and what does not fit: one sentence, the same in Python and at the command line."""

import pickle

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, __version__
from lightning.pytorch.demos.boring_classes import BoringModel
from refusals import refused
from torch import nn

from lit_xai import load_from_checkpoint
from lit_xai.cli.checkpoints import read_checkpoint as read_at_the_command_line
from lit_xai.pruning.pruning import prune_step
from lit_xai.quantization.folding import find_foldable
from lit_xai.quantization.quantization import plan_quantization
from lit_xai.quantization.steps import fold_step, quantize_step
from lit_xai.structure.attachment import attach, detach, take_step_
from lit_xai.structure.checkpoints import read_checkpoint
from lit_xai.structure.recipe import KEY, recipe_of

READ = pytest.mark.parametrize(
    "read",
    [read_at_the_command_line, lambda path: load_from_checkpoint(BoringModel, path)],
    ids=["command line", "load_from_checkpoint"],
)


class Custom:
    pass


@READ
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged, or no checkpoint"),
        (b"just some text", "damaged, or no checkpoint"),
        (bytes(range(256)) * 9, "damaged, or no checkpoint"),
        ({"weights": torch.zeros(2)}, "it has no 'state_dict'"),
        ([1, 2], "it has no 'state_dict'"),
        ({"state_dict": {}, "extra": Custom()}, r"holds an object of \S+Custom, .* add (--)?weights_only[ =][Ff]alse"),
    ],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_what_is_no_checkpoint_is_refused_by_name(read, content, words, new_format, tmp_path):
    file = tmp_path / "x.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=words) as error:
        read(str(file))
    assert str(error.value).startswith(f"'{file}' ")
    assert "\n" not in str(error.value)


@READ
def test_a_cut_off_file_is_refused(read, tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, tmp_path / "x.ckpt")
    whole = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        read(str(tmp_path / "x.ckpt"))


@READ
def test_what_is_no_file_is_answered_with_the_nearest(read, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(FileNotFoundError, match=r"no file '.*lst\.ckpt'\. Did you mean '.*last\.ckpt'"):
        read(str(tmp_path / "lst.ckpt"))
    with pytest.raises(IsADirectoryError, match=r"is a folder: name a checkpoint in it\. The newest .*last\.ckpt'\."):
        read(str(tmp_path))


def test_weights_alone_are_no_checkpoint_for_a_class(tmp_path):
    torch.save({"state_dict": BoringModel().state_dict()}, tmp_path / "x.ckpt")
    assert read_checkpoint(tmp_path / "x.ckpt")
    with refused("x.ckpt' is no checkpoint of a Lightning Trainer, but weights alone", "load_state_dict"):
        load_from_checkpoint(BoringModel, tmp_path / "x.ckpt")


def test_a_trusted_file_may_hold_objects(tmp_path):
    torch.save({"state_dict": {}, "extra": pickle.PickleError("any object")}, tmp_path / "x.ckpt")
    assert isinstance(read_checkpoint(str(tmp_path / "x.ckpt"), weights_only=False)["extra"], pickle.PickleError)


class Sized(LightningModule):
    def __init__(self, width=8, depth=1):
        super().__init__()
        self.save_hyperparameters()
        hidden = (layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU()))
        self.network = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), *hidden)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.network(x))

    def test_step(self, batch, batch_idx):
        self(batch)

    def test_dataloader(self):
        return [torch.zeros(2, 4)]


class Follow(Callback):
    def setup(self, trainer, pl_module, stage):
        attach(pl_module, self)

    def teardown(self, trainer, pl_module, stage):
        detach(pl_module, self)

    def on_exception(self, trainer, pl_module, exception):
        detach(pl_module, self)


def changed(how):
    torch.manual_seed(0)
    module, x = Sized(), torch.randn(4, 4)
    if how == "pruned":
        take_step_(module, prune_step(module, x, pruning_ratio=0.5, round_to=1))
    elif how == "quantised":
        module.eval()
        take_step_(module, fold_step(module, find_foldable(module, x)))
        take_step_(module, quantize_step(plan_quantization(module, x)))
    return module


def saved(how, path):
    module = changed(how)
    recipe = {KEY: recipe_of(module).to_dict()} if how != "float" else {}
    said = {"hyper_parameters": dict(module.hparams), "pytorch-lightning_version": __version__}
    torch.save({"state_dict": module.state_dict(), **recipe, **said}, path)
    return path


def by_trainer(path, **sizes):
    """The way of ``trainer.test(ckpt_path=...)`` with a callback that follows recipes."""
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    module = Sized(**sizes)
    try:
        Trainer(callbacks=[Follow()], **quiet).test(module, ckpt_path=path, verbose=False)
    finally:
        assert not {"load_state_dict", "on_load_checkpoint", "__reduce_ex__"} & set(vars(module))


LOAD = pytest.mark.parametrize(
    "load", [by_trainer, lambda path, **sizes: load_from_checkpoint(Sized, path, **sizes)], ids=["trainer", "class"]
)


@LOAD
@pytest.mark.parametrize(
    ("how", "sizes", "words"),
    [
        ("quantised", {"width": 6}, "'network.0.weight' has shape (8, 4) in the file, but (6, 4) in the model"),
        ("quantised", {"depth": 2}, "'network.5.weight' is missing in the file"),
        ("quantised", {"depth": 0}, "it has no 'network.3'"),
        ("pruned", {"width": 6}, "'network.0.weight' expected size 8 in dimension 0, but got shape (6, 4)"),
        ("pruned", {"depth": 2}, "'network.5.weight' is missing in the file"),
        ("pruned", {"depth": 0}, "it has no 'network.3.weight'"),
    ],
)
def test_another_size_is_one_sentence_that_says_how_to_build_it(load, how, sizes, words, tmp_path):
    with refused("does not fit Sized: ", words, "Build Sized with the arguments that it was trained with"):
        load(saved(how, tmp_path / "x.ckpt"), **sizes)


def test_what_was_built_otherwise_is_named(tmp_path):
    with refused("trained with: width=8 rather than 6."):
        by_trainer(saved("quantised", tmp_path / "x.ckpt"), width=6)


@LOAD
@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"width": 6}, "'network.0.weight' has shape (8, 4) in the file"),
        ({"depth": 0}, "'network.3.weight' of the file"),
    ],
)
def test_of_what_was_never_changed_it_is_one_sentence_too(load, sizes, words, tmp_path):
    with refused("does not fit Sized: ", words, "Build Sized with the arguments that it was trained with"):
        load(saved("float", tmp_path / "x.ckpt"), **sizes)


@pytest.mark.filterwarnings("ignore:Found keys that are in the model state dict but not in the checkpoint")
def test_weights_that_need_not_be_there(tmp_path):
    path = saved("quantised", tmp_path / "x.ckpt")
    assert load_from_checkpoint(Sized, path, depth=2, strict=False).network[5].in_features == 8
    with refused("'network.0.weight' has shape (8, 4) in the file"):
        load_from_checkpoint(Sized, path, width=6, depth=2, strict=False)


@pytest.mark.parametrize("cls", ["last.ckpt", torch.nn.Linear])
def test_what_is_no_class_of_a_lightning_module_is_refused(cls):
    with pytest.raises(TypeError, match=r"^cls expected a LightningModule's class, as in load_from_checkpoint\(MyM"):
        load_from_checkpoint(cls, BoringModel)
