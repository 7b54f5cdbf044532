"""A damaged recipe is refused and changes nothing, or leads to the same network; none leads to another one."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from damage import damaged_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reordered import MoveLast
from torch import nn

from lit_xai.models import MLP, Classifier, ResNet, VisionTransformer
from lit_xai.pruning.pruning import prune_step
from lit_xai.quantization.quantization import plan_quantization
from lit_xai.quantization.steps import quantize_step
from lit_xai.structure.attachment import take_step_
from lit_xai.structure.recipe import KEY, Recipe, recipe_of, restore_structure_

STORED = Path(__file__).parents[1] / "stored" / "run_0_1"
X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "pruned": lambda: VisionTransformer(8, 4, 1, 10, dim=8, depth=1, heads=2),
    "quantized": lambda: MLP(64, (8, 6), 10),
    "registered": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    "0.1": lambda: Classifier(ResNet(8, width=4, in_channels=1, num_classes=10), num_classes=10),
}


def fresh(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name]().eval()


@cache
def checkpoint_of(name):
    """Return a checkpoint after each kind of step, and its network's outputs."""
    if name == "0.1":  # pruned, folded, quantized
        stored = torch.load(STORED / "quantized.ckpt", weights_only=True)
        found = {key: stored[key] for key in ("state_dict", KEY)}
    else:
        network = fresh(name)
        if name != "registered":
            take_step_(network, prune_step(network, X, pruning_ratio=0.5, round_to=1))
        else:
            take_step_(network, {"kind": MoveLast.name, "child": "0", "place": 0})
            take_step_(network, {"kind": MoveLast.name, "child": "1", "place": 0})
        if name == "quantized":
            take_step_(network, quantize_step(plan_quantization(network, X)))
            network.train()(X)
        found = {"state_dict": network.state_dict(), KEY: recipe_of(network).to_dict()}
    module = fresh(name)
    restore_structure_(module, found)
    module.load_state_dict(found["state_dict"])
    return found, module.eval()(X).detach()


def everything(module):
    tensors = {name: (id(v), v._version, v.shape) for name, v in module.state_dict(keep_vars=True).items()}
    plain = (bool, int, float, str, tuple)
    return tensors, {
        name: (id(one), {key: value for key, value in vars(one).items() if isinstance(value, plain)})
        for name, one in module.named_modules()
    }


def load_damaged(name, seed, has_checksum):
    checkpoint, expected = checkpoint_of(name)
    label, damaged = next(damaged_values({KEY: checkpoint[KEY]}, seed))
    recipe, module = damaged.get(KEY), fresh(name)
    if not has_checksum and isinstance(recipe, dict):
        recipe.pop("checksum", None)
    before = everything(module)
    refused = ""
    try:
        restore_structure_(module, damaged)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused, label
        assert everything(module) == before, label
        assert recipe_of(module).steps == []
        return
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError:  # in one sentence where a checkpoint is loaded: tests of loading
        return
    if has_checksum:
        assert torch.equal(module.eval()(X), expected), label


CASES = pytest.mark.parametrize("name", NETWORKS)


@CASES
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), has_checksum=st.booleans())
def test_it_is_refused_or_leads_to_the_same_network(name, seed, has_checksum):
    load_damaged(name, seed, has_checksum)


@pytest.mark.slow
@CASES
@pytest.mark.parametrize("has_checksum", [True, False])
def test_it_is_refused_or_leads_to_the_same_network_at_length(name, has_checksum):
    for seed in range(250):
        load_damaged(name, seed, has_checksum)


def test_the_third_of_three_steps_is_refused_and_the_first_two_are_undone():
    """A fold writes new values into the weights, which have to come back too."""
    found, _ = checkpoint_of("0.1")
    damaged = copy.deepcopy(found[KEY])
    damaged["steps"][2]["plan"]["sites"][0]["layer"] = "elsewhere"
    module = fresh("0.1")
    before, values = everything(module)[1], {name: value.clone() for name, value in module.state_dict().items()}
    objects = {name: id(value) for name, value in module.state_dict(keep_vars=True).items()}
    with pytest.raises(ValueError, match="has no 'elsewhere'"):
        restore_structure_(module, {KEY: damaged})
    assert everything(module)[1] == before
    assert {name: id(value) for name, value in module.state_dict(keep_vars=True).items()} == objects
    assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())


def test_an_entry_of_another_value_is_found_by_the_checksum():
    found, _ = checkpoint_of("pruned")
    for edit in (
        lambda saved: saved["steps"][0]["attributes"].pop(),
        lambda saved: saved["steps"][0].update(note="another"),
        lambda saved: saved.update(parameters=[[["a"]]]),
        lambda saved: saved.update(checksum=7),
    ):
        damaged, module = copy.deepcopy(found[KEY]), fresh("pruned")
        edit(damaged)
        before = everything(module)
        with pytest.raises(ValueError, match="expected the checksum"):
            Recipe.from_dict(damaged).replay_(module)
        assert everything(module) == before
