"""Structure recorded, replayed, carried by checkpoints of a real Trainer, and nothing left on the module."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.models import MLP, ResNet, VisionTransformer
from lit_xai.pruning.pruning import prune_step
from lit_xai.structure.attachment import take_step_
from lit_xai.structure.kinds import apply_step_, undo_step_
from lit_xai.structure.recipe import Recipe, recipe_of

NETWORKS = {
    "mlp": (lambda: MLP(64, (24, 16), 10), (1, 8, 8)),
    "resnet": (lambda: ResNet(8, width=8, in_channels=1), (1, 8, 8)),
    "vit": (lambda: VisionTransformer(8, 2, 1, 10, dim=16, depth=2, heads=2), (1, 8, 8)),
}


def made(name, seed=0):
    torch.manual_seed(seed)
    make, shape = NETWORKS[name]
    return make(), torch.randn(4, *shape)


def selected(value, kept):
    for dim, indices in kept:
        value = value.index_select(dim, torch.tensor(indices))
    return value


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
@pytest.mark.parametrize("name", NETWORKS)
def test_kept_channels_and_their_moments_are_the_old_ones(name, optimizer):
    network, x = made(name)
    optimizer = optimizer(network.parameters())
    network(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    network(x).square().sum().backward()  # a cut may fall between two batches whose gradients are added up
    gradients = {n: p.grad.clone() for n, p in network.named_parameters()}
    values = {n: v.clone() for n, v in [*network.named_parameters(), *network.named_buffers()]}
    moments = {n: copy.deepcopy(optimizer.state[p]) for n, p in network.named_parameters()}
    step = prune_step(network, x, pruning_ratio=0.5)
    take_step_(network, step, [optimizer])
    kept = {}
    for tensor, dim, _, indices in step["kept"]:
        kept.setdefault(tensor, []).append((dim, indices))
    assert kept
    for n, value in [*network.named_parameters(), *network.named_buffers()]:
        assert torch.equal(value, selected(values[n], kept.get(n, []))), n
    for n, parameter in network.named_parameters():
        assert torch.equal(parameter.grad, selected(gradients[n], kept.get(n, []))), n
        for key, moment in optimizer.state[parameter].items():
            old = moments[n][key]
            expected = selected(old, kept.get(n, [])) if old.shape == values[n].shape else old
            assert torch.equal(moment, expected), (n, key)
    live = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, live)) == sorted(map(id, network.parameters()))
    network(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", NETWORKS)
def test_any_structure_from_any_other(name):
    network, x = made(name)
    shapes = [{n: p.shape for n, p in network.state_dict().items()}]
    recipes = [Recipe()]
    for ratio in (0.5, 0.5) if name == "vit" else (0.3, 0.4):  # the heads have to divide what is left
        take_step_(network, prune_step(network, x, pruning_ratio=ratio))
        recipes.append(Recipe(recipe_of(network).steps))
        shapes.append({n: p.shape for n, p in network.state_dict().items()})
    now = recipes[-1]
    for place in (0, 2, 1, 2, 0, 1):
        recipes[place].replay_(network, since=now)
        now = recipes[place]
        assert {n: p.shape for n, p in network.state_dict().items()} == shapes[place]
        assert network.eval()(x).shape == (4, 10)


def test_two_branches_meet_at_the_common_step():
    network, x = made("mlp")
    common = prune_step(network, x, pruning_ratio=0.25)
    take_step_(network, common)
    left = prune_step(network, x, pruning_ratio=0.5)
    other = copy.deepcopy(network)
    right = prune_step(other, -x, pruning_ratio=0.3)
    take_step_(network, left)
    Recipe([common, right]).replay_(network, since=recipe_of(network))
    apply_step_(other, right)
    assert [p.shape for p in network.parameters()] == [p.shape for p in other.parameters()]


def test_what_was_kept_survives_going_back():
    network, x = made("resnet")
    before = {n: v.clone() for n, v in network.state_dict().items()}
    step = prune_step(network, x)
    apply_step_(network, step)
    pruned = {n: v.clone() for n, v in network.state_dict().items()}
    undo_step_(network, step)
    for n, value in network.state_dict().items():
        assert value.shape == before[n].shape
        assert torch.all((value == before[n]) | (value == 0))
    apply_step_(network, step)
    assert all(torch.equal(value, pruned[n]) for n, value in network.state_dict().items())


def test_frozen_stays_frozen_and_shared_stays_shared():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
            self.again = self.first

        def forward(self, x):
            return self.last(self.again(x).relu())

    network = Twice()
    network.first.requires_grad_(False)
    apply_step_(network, prune_step(network, torch.zeros(1, 4)))
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
    assert network.again.weight is network.first.weight
    assert network.first.weight.shape == (4, 4)


@pytest.mark.parametrize("edit", ["name", "size", "module"])
def test_a_recipe_of_another_network_is_refused_and_changes_nothing(edit):
    network, x = made("mlp")
    good, bad = prune_step(network, x, pruning_ratio=0.25), copy.deepcopy(prune_step(network, x))
    if edit == "name":
        bad["kept"][0][0] = "layers.9.weight"
    elif edit == "size":
        bad["kept"][-1][2] = 99
    else:
        bad["attributes"][0][0] = "layers.9"
        bad["kept"] = []
    before = {n: v.clone() for n, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="The recipe does not fit MLP"):
        Recipe([good, bad]).replay_(network)
    assert all(before[n].shape == v.shape for n, v in network.state_dict().items())


def test_unknown_versions_and_steps_are_refused_by_name():
    with pytest.raises(ValueError, match="expected version 1, but got 7"):
        Recipe.from_dict({"version": 7, "steps": []})
    with pytest.raises(ValueError, match="but got 'grow'"):
        Recipe.from_dict({"version": 1, "steps": [{"kind": "grow"}]})
