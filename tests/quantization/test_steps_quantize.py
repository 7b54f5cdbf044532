"""Fake-quantizers as a step of a recipe: applied, undone, in order, and refused on another network."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.quantization import is_quantized, plan_quantization
from lit_xai.quantization.steps import quantize_step
from lit_xai.structure.attachment import take_step_
from lit_xai.structure.kinds import apply_step_, undo_step_
from lit_xai.structure.recipe import Recipe


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def step_of(net, module=""):
    return quantize_step(plan_quantization(net, torch.zeros(2, 4)), module)


def hooks(net):
    return [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_always_called)) for m in net.modules()
    ]


def test_in_and_out_again():
    net = network()
    net[0].register_forward_hook(lambda *_: None)
    before, keys = hooks(net), list(net.state_dict())
    step = step_of(net)
    apply_step_(net, step)
    assert is_quantized(net)
    assert [key for key in net.state_dict() if not key.startswith("fake_quantizers.")] == keys
    undo_step_(net, step)
    assert not is_quantized(net)
    assert hooks(net) == before
    assert list(net.state_dict()) == keys


def test_replayed_it_loads_what_was_observed():
    net = nn.ModuleDict({"part": network()})
    step = step_of(net["part"], "part")
    apply_step_(net, step)
    fake_quantizers = find_fake_quantizers(net)
    net["part"].train()(torch.randn(32, 4))
    fake_quantizers.enable_fake_quant_(True)
    fresh = nn.ModuleDict({"part": network()})
    Recipe.from_dict(Recipe([step]).to_dict()).replay_(fresh)
    fresh.load_state_dict(net.state_dict())
    x = torch.randn(5, 4)
    assert torch.equal(fresh["part"].eval()(x), net["part"].eval()(x))
    plain = copy.deepcopy(net["part"])
    undo_step_(nn.ModuleDict({"part": plain}), step)
    assert not torch.equal(plain(x), net["part"](x))


def test_nothing_is_cut_afterwards():
    net = network()
    take_step_(net, step_of(net))
    with pytest.raises(ValueError, match="'prune' step has to come before 'quantize'"):
        take_step_(net, {"kind": "prune", "kept": [], "attributes": []})


@pytest.mark.parametrize("edit", ["module", "layer", "twice"])
def test_what_it_was_not_written_for_is_refused_and_unchanged(edit):
    net = network()
    step = copy.deepcopy(step_of(net))
    if edit == "module":
        step["module"] = "network"
    elif edit == "layer":
        step["plan"]["sites"][0]["layer"] = "layer9"
    else:
        apply_step_(net, step)
    before, keys = hooks(net), list(net.state_dict())
    with pytest.raises(ValueError, match=r"does not fit|some already"):
        apply_step_(net, step)
    assert (hooks(net), list(net.state_dict())) == (before, keys)


def test_out_of_what_has_none_is_refused():
    net = network()
    with pytest.raises(ValueError, match="has no 'fake_quantizers'"):
        undo_step_(net, step_of(net))
