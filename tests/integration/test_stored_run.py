"""A run that 0.1.0 left: its config and checkpoints, with the old module paths in them, go on today.

It was pruned in epoch 1, taught by its dense self, and folded and quantized in epoch 3 (``lit-xai fit``, digits, a
ResNet-8 of width 4). ``end.pt`` holds the weights that 0.1.0 ended with, in one thread.
"""

import shutil
from pathlib import Path

import pytest
import torch

from lit_xai import load_from_checkpoint
from lit_xai.cli import main
from lit_xai.models import Classifier, ResNet
from lit_xai.structure.recipe import dense_copy, recipe_of

STORED = Path(__file__).parents[1] / "stored" / "run_0_1"
MOVED = "ignore:lit_xai.(functional|callbacks).* is now lit_xai:FutureWarning"
RENAMED = "ignore:.*warm_up_batches:FutureWarning"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    shutil.copytree(STORED, tmp_path / "stored")
    monkeypatch.chdir(tmp_path)
    # Lightning's LightningCLI calls jsonargparse by names that its newest releases call deprecated.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


def moments_of(name):
    """Return the moments in a stored checkpoint by name: 0.1.0 left the order in one callback's state."""
    checkpoint = torch.load(STORED / f"{name}.ckpt", weights_only=True)
    ((names,),) = checkpoint["callbacks"]["QuantizationAwareTraining"]["names"]
    state = checkpoint["optimizer_states"][0]["state"]
    return {name: state[place] for place, name in enumerate(names)}


@pytest.mark.filterwarnings(MOVED, RENAMED)
@pytest.mark.filterwarnings(
    "ignore:Checkpoint directory", "ignore:The dirpath has changed", "ignore:.*the student is ahead"
)
@pytest.mark.parametrize("name", ["pruned", "quantized"])
def test_it_is_resumed(name, monkeypatch):
    resumed = {}

    def on_train_start(self):
        state = self.optimizers(use_pl_optimizer=False).state
        for name, parameter in self.named_parameters():
            resumed[name] = {key: value.clone() for key, value in state[parameter].items()}

    monkeypatch.setattr(Classifier, "on_train_start", on_train_start)
    assert main(["fit", "--config", "stored/config.yaml", "--ckpt_path", f"stored/{name}.ckpt"]) == 0
    expected = moments_of(name)
    assert resumed.keys() == expected.keys()
    for parameter, state in expected.items():
        for key, value in state.items():
            assert torch.equal(resumed[parameter][key], value), (parameter, key)
    end = torch.load("run/epoch=5.ckpt", weights_only=True)
    kinds, end = [step["kind"] for step in end["lit_xai_recipe"]["steps"]], end["state_dict"]
    was = torch.load(STORED / "end.pt", weights_only=True)
    if name == "pruned":  # what had not begun to quantize does so with its BatchNorms
        assert kinds == ["prune", "quantize"]
        assert "network.bn1.running_mean" in end
        return
    assert kinds == ["prune", "fold", "quantize"]
    assert end.keys() == was.keys()
    for key, value in was.items():
        # Another CPU adds in another order, and rounding to integers makes more of it.
        torch.testing.assert_close(end[key], value, rtol=0.1, atol=0.1, msg=key)


@pytest.mark.parametrize("name", ["pruned", "quantized"])
def test_its_checkpoints_load(name):
    network = ResNet(depth=8, width=4, in_channels=1, num_classes=10)
    module = load_from_checkpoint(Classifier, STORED / f"{name}.ckpt", network=network, weights_only=False)
    label = {"pruned": "pruned1", "quantized": "quantized"}[name]
    assert recipe_of(module).label == label
    assert module.network.conv1.out_channels == 2
    assert dense_copy(module).network.conv1.out_channels == 4


@pytest.mark.filterwarnings(MOVED, RENAMED)
def test_its_commands_work():
    config = ["--config", "stored/config.yaml"]
    assert main(["validate", *config, "--ckpt_path", "stored/quantized.ckpt"]) == 0
