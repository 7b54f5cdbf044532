"""A fold as a step: forwards, backwards, with optimizers, on what it was not written for."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.quantization.folding import find_foldable
from lit_xai.quantization.steps import fold_step
from lit_xai.structure.kinds import apply_step_, undo_step_
from lit_xai.structure.recipe import Recipe


def network(bias=False, affine=True):
    torch.manual_seed(0)
    found = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=bias),
        nn.BatchNorm2d(4, affine=affine, eps=1e-3, momentum=0.2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 6, bias=bias),
        nn.BatchNorm1d(6, affine=affine),
    )
    with torch.no_grad():
        for _ in range(3):
            found(torch.randn(16, 1, 8, 8) * 3 + 1)
        for norm in (found[1], found[5]):
            if affine:
                norm.weight.uniform_(0.5, 2)
                norm.bias.normal_()
    return found.eval()


def step_of(net, prefix=""):
    return fold_step(net, find_foldable(net, torch.zeros(2, 1, 8, 8)), prefix)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_forwards_and_back(bias, affine):
    net = network(bias, affine)
    x, whole = torch.randn(4, 1, 8, 8), copy.deepcopy(net)
    step = step_of(net)
    apply_step_(net, step)
    torch.testing.assert_close(net(x), whole(x), rtol=1e-4, atol=1e-5)
    assert [type(net[i]) for i in (1, 5)] == [nn.Identity] * 2
    undo_step_(net, step)
    assert net.state_dict().keys() == whole.state_dict().keys()
    net.load_state_dict(whole.state_dict())
    assert torch.equal(net(x), whole(x))
    assert [(m.eps, m.momentum, m.affine) for m in (net[1], net[5])] == [
        (m.eps, m.momentum, m.affine) for m in (whole[1], whole[5])
    ]


@pytest.mark.filterwarnings("ignore:LBFGS keeps its history")
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.LBFGS])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_every_parameter_is_in_one_group_and_training_goes_on(bias, affine, optimizer):
    net = network(bias, affine).train()
    stepper = optimizer(net.parameters(), lr=0.01)

    def closure():
        stepper.zero_grad()
        loss = net(torch.ones(4, 1, 8, 8) * torch.arange(4).view(4, 1, 1, 1)).square().sum()
        loss.backward()
        return loss

    stepper.step(closure)
    before = {id(p): dict(state) for p, state in stepper.state.items()}
    weight, norm = net[0].weight, net[1]
    step = step_of(net)
    apply_step_(net, step, [stepper])
    held = [id(p) for group in stepper.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    assert net[0].weight is weight
    if affine and not bias:
        assert net[0].bias is norm.bias
        if optimizer is torch.optim.Adam:
            assert torch.equal(stepper.state[norm.bias]["exp_avg"], before[id(norm.bias)]["exp_avg"])
    stepper.step(closure)
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_flags_and_hooks_of_parameters_stay():
    net = network(bias=True)
    net[0].weight.requires_grad_(False)
    seen = []
    net[4].weight.register_hook(seen.append)
    apply_step_(net, step_of(net))
    net(torch.randn(4, 1, 8, 8)).sum().backward()
    assert not net[0].weight.requires_grad
    assert net[0].weight.grad is None
    assert len(seen) == 1


@pytest.mark.parametrize("edit", ["layer", "norm", "kind", "channels", "twice"])
def test_what_it_was_not_written_for_is_refused_and_unchanged(edit):
    net = network()
    step = copy.deepcopy(step_of(net))
    if edit == "layer":
        step["pairs"][1][0] = "9"
    elif edit == "norm":
        step["pairs"][1][1] = "9"
    elif edit == "kind":
        net[5] = nn.LayerNorm(6)
    elif edit == "channels":
        net[4] = nn.Linear(144, 7)
    else:
        apply_step_(net, step)
    before, keys = {n: v.clone() for n, v in net.state_dict().items()}, [type(m) for m in net.modules()]
    with pytest.raises(ValueError, match=r"does not fit|expected a convolution"):
        apply_step_(net, step)
    assert [type(m) for m in net.modules()] == keys
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_recipe_goes_anywhere_and_back():
    net = nn.ModuleDict({"network": network()})
    step = step_of(net["network"], "network.")
    recipe = Recipe.from_dict(Recipe([step]).to_dict())
    recipe.replay_(net)
    assert "network.1.weight" not in net.state_dict()
    Recipe().replay_(net, since=recipe)
    assert "network.1.weight" in net.state_dict()
