"""The decision of a pruning step, against Torch-Pruning itself; deciding changes nothing."""

import copy
import re

import pytest
import torch
import torch_pruning
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.models import MLP, ResNet, VisionTransformer
from lit_xai.pruning.pruning import channels, output_layers, prune_step
from lit_xai.structure.kinds import apply_step_


class Grouped(nn.Module):
    """Depthwise and grouped convolutions, a concatenation, and a residual sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.depthwise(x)
        return self.head(self.norm(torch.cat([x, self.grouped(x)], 1)).mean((2, 3)))


NETWORKS = {
    "mlp": lambda: MLP(64, (24, 16), 10),
    "resnet": lambda: ResNet(8, width=8, in_channels=1),
    "vit": lambda: VisionTransformer(8, 2, 1, 10, dim=16, depth=2, heads=2),
    "grouped": Grouped,
}


def made(name):
    torch.manual_seed(0)
    return NETWORKS[name](), torch.randn(2, 1, 8, 8)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_left_as_it_is(name):
    network, x = made(name)
    network.train()
    before = digest([module_state(network), rng_state()])
    prune_step(network, x)
    assert digest([module_state(network), rng_state()]) == before


@pytest.mark.parametrize("ratio", [0.25, 0.5])
@pytest.mark.parametrize("name", ["mlp", "resnet", "grouped"])
def test_same_weights_as_torch_pruning(name, ratio):
    network, x = made(name)
    bare = copy.deepcopy(network).eval()
    last = [module for module in bare.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        bare,
        x,
        torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=ratio,
        ignored_layers=[last],
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    apply_step_(network, prune_step(network, x, pruning_ratio=ratio))
    expected = dict(bare.state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert repr(network) == repr(bare)  # channel counts and groups
    torch.testing.assert_close(network.eval()(x), bare.eval()(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_output_stays_whole(name):
    network, x = made(name)
    apply_step_(network, prune_step(network, x, pruning_ratio=0.5))
    assert network(x).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) < 0.6 * sum(p.numel() for p in made(name)[0].parameters())


def test_nothing_to_remove_is_an_empty_step():
    network, x = made("resnet")
    assert prune_step(network, x, pruning_ratio=0.0) == {"kind": "prune", "kept": [], "attributes": []}


def test_layers_kept_by_name_and_by_class():
    network, x = made("resnet")
    before = channels(network)
    apply_step_(network, prune_step(network, x, ignored_layers=["layer1"]))
    after = channels(network)
    assert {name: after[name] for name in after if name.startswith("layer1")} == {
        name: before[name] for name in before if name.startswith("layer1")
    }
    assert after["layer3.0.conv1"] < before["layer3.0.conv1"]
    network, x = made("mlp")
    assert prune_step(network, x, ignored_layers=[nn.Linear])["kept"] == []


def test_frozen_layers_are_pruned_too():
    network, x = made("mlp")
    network.requires_grad_(False)
    assert prune_step(network, x)["kept"]


def test_output_layers_of_several_heads():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.left, self.right = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            x = self.body(x).relu()
            return self.left(x).softmax(1) + self.right(x)

    network = TwoHeads()
    assert set(output_layers(network, torch.zeros(1, 4))) == {network.left, network.right}


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.from_numpy(self.a(x).detach().numpy()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruning_ratio": 1.0}, "pruning_ratio expected a share from 0 to below 1 to remove, but got 1.0."),
        ({"pruning_ratio": -0.1}, "pruning_ratio expected a share"),
        ({"ignored_layers": ["layer.0"]}, "ignored_layers: 'layer.0' matches no layer of the network. Did you mean"),
    ],
)
def test_bad_input_is_one_sentence(options, message):
    network, x = made("mlp")
    with pytest.raises(ValueError, match=re.escape(message)):
        prune_step(network, x, **options)
