"""Counts against closed forms and an independent counter, and that counting changes nothing."""

import pytest
import torch
import torch_pruning
from networks import STATES
from torch import nn
from torch.nn import functional as F
from witness import digest, module_state, rng_state

from lit_xai.models import MLP, ResNet, VisionTransformer
from lit_xai.network.profiling import (
    batch_size,
    count_macs,
    count_parameters,
    count_samples,
    size_on_disk,
    with_batch_size,
)


class Calls(nn.Module):
    """Any function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def attention(x):
    return F.scaled_dot_product_attention(x, x, x)


IMAGE = torch.zeros(3, 8, 5, 5)
SEQUENCE = torch.zeros(3, 5, 8)
CASES = {
    "convolution": (nn.Conv2d(8, 6, 3, padding=1), IMAGE, 25 * 9 * 8 * 6),
    "stride": (nn.Conv2d(8, 6, 3, stride=2), IMAGE, 4 * 9 * 8 * 6),
    "grouped": (nn.Conv2d(8, 6, 3, padding=1, groups=2), IMAGE, 25 * 9 * 8 * 6 // 2),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), IMAGE, 25 * 9 * 8),
    "transposed": (nn.ConvTranspose2d(8, 6, 3, stride=2), IMAGE, 25 * 9 * 8 * 6),
    "one dimension": (nn.Conv1d(5, 4, 3), SEQUENCE, 6 * 3 * 5 * 4),
    "linear": (nn.Linear(8, 4), SEQUENCE, 5 * 8 * 4),
    "no bias": (nn.Linear(8, 4, bias=False), SEQUENCE, 5 * 8 * 4),
    "matmul": (Calls(lambda x: x @ x.transpose(1, 2)), SEQUENCE, 5 * 5 * 8),
    "einsum": (Calls(lambda x: torch.einsum("bij,bkj->bik", x, x)), SEQUENCE, 5 * 5 * 8),
    "vector": (Calls(lambda x: x @ torch.ones(8)), torch.zeros(3, 8), 8),
    "addmv": (Calls(lambda x: torch.addmv(torch.ones(len(x)), x, torch.ones(8))), torch.zeros(3, 8), 8),
    "attention": (Calls(attention), torch.zeros(3, 2, 5, 4), 2 * 2 * 5 * 5 * 4),
    "multi-head": (
        Calls(nn.MultiheadAttention(8, 2, batch_first=True)),
        (SEQUENCE, SEQUENCE, SEQUENCE),
        4 * 5 * 8 * 8 + 2 * 5 * 5 * 8,
    ),
    "transformer": (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        SEQUENCE,
        4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16,
    ),
    "rnn": (nn.RNN(8, 7, batch_first=True), SEQUENCE, 5 * 7 * (8 + 7)),
    "gru": (nn.GRU(8, 7, batch_first=True), SEQUENCE, 5 * 3 * 7 * (8 + 7)),
    "lstm": (nn.LSTM(8, 7, batch_first=True), SEQUENCE, 5 * 4 * 7 * (8 + 7)),
    "deep lstm": (
        nn.LSTM(8, 7, 2, batch_first=True, bidirectional=True, bias=False),
        SEQUENCE,
        2 * 5 * 4 * 7 * (8 + 7) + 2 * 5 * 4 * 7 * (14 + 7),
    ),
    "projected lstm": (nn.LSTM(8, 7, proj_size=3, batch_first=True), SEQUENCE, 5 * (4 * 7 * (8 + 3) + 7 * 3)),
    "elementwise": (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)), IMAGE, 0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [1, 3])
def test_macs_in_closed_form(name, rows):
    network, inputs, expected = CASES[name]
    assert count_macs(network, with_batch_size(inputs, rows)) == expected


NETWORKS = {
    "mlp": lambda: MLP(64, (24, 16), 10),
    "resnet": lambda: ResNet(20, width=16, in_channels=1),
    "vit": lambda: VisionTransformer(8, 2, 1, 10, dim=16, depth=2, heads=2),
}


def elementwise(network, x):
    """The operations that Torch-Pruning counts in addition: biases, normalization, activations and pooling."""
    more = 0

    def add(module, given, out):
        nonlocal more
        kinds = {nn.BatchNorm2d: 2 * given[0].numel(), nn.ReLU: out.numel(), nn.AdaptiveAvgPool2d: given[0].numel()}
        more += next((n for kind, n in kinds.items() if isinstance(module, kind)), 0)
        more += out.numel() if getattr(module, "bias", None) is not None and hasattr(module, "in_features") else 0

    hooks = [m.register_forward_hook(add) for m in network.modules()]
    network(x)
    for hook in hooks:
        hook.remove()
    return more


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_macs_and_parameters_agree_with_torch_pruning(name):
    network, x = NETWORKS[name]().eval(), torch.zeros(1, 1, 8, 8)
    macs, parameters = torch_pruning.utils.count_ops_and_params(network, x)
    assert count_macs(network, x) == macs - elementwise(network, x)
    assert count_parameters(network) == parameters


def test_macs_of_a_vision_transformer_in_closed_form():
    tokens, dim, hidden = 16, 16, 64
    block = 4 * tokens * dim * dim + 2 * tokens * tokens * dim + 2 * tokens * dim * hidden
    expected = tokens * (2 * 2) * dim + 2 * block + dim * 10
    assert count_macs(NETWORKS["vit"](), torch.zeros(2, 1, 8, 8)) == expected


@pytest.mark.parametrize("state", STATES)
def test_the_network_is_left_as_it_is(state):
    network, x = STATES[state](), torch.randn(3, 2, 6, 6)
    before = digest([module_state(network), rng_state()])
    fast = torch.backends.mha.get_fastpath_enabled()
    assert count_macs(network, x) > 0
    assert size_on_disk(network) > 0
    assert digest([module_state(network), rng_state()]) == before
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_nothing_is_left_behind_when_the_network_raises():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4)).train()
    with pytest.raises(ValueError, match="mat1 and mat2 shapes cannot be multiplied"):
        count_macs(network, torch.zeros(1, 4))
    assert network.training
    assert torch.backends.mha.get_fastpath_enabled()
    assert not network[0]._forward_hooks


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu")])
def test_macs_in_other_modes(context):
    network = NETWORKS["vit"]()
    expected = count_macs(network, torch.zeros(2, 1, 8, 8))
    with context():
        assert count_macs(network, torch.zeros(2, 1, 8, 8)) == expected


def test_other_calls_and_outputs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

        def predict(self, image, scale):
            return {"scores": self.head(self.layer(image) * scale), "more": 1}

    inputs = {"image": torch.zeros(5, 4), "scale": torch.ones(1)}
    assert count_macs(Model(), inputs, call="predict", output="scores") == 4 * 8 + 8 * 2


def test_shared_parameters_count_once():
    layer = nn.Linear(4, 4)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 20
    assert count_parameters(nn.ReLU()) == 0


def test_size_on_disk_is_that_of_the_file(tmp_path):
    network = NETWORKS["resnet"]()
    torch.save(network.state_dict(), tmp_path / "archive")
    assert abs(size_on_disk(network) - (tmp_path / "archive").stat().st_size) < 100
    assert size_on_disk(network) > 4 * count_parameters(network)


def test_batch_sizes():
    inputs = (torch.arange(2), {"x": torch.tensor([[1], [2]]), "scale": torch.ones(())}, "text")
    found = with_batch_size(inputs, 3)
    assert batch_size(found) == 3
    assert found[1]["x"].flatten().tolist() == [1, 2, 1]
    assert found[1]["scale"].shape == ()
    assert found[2] == "text"
    assert batch_size({"flag": True}) == 1


def test_a_loss_is_of_no_number_of_samples():
    network = Calls(lambda batch: batch["x"].mean())
    assert count_samples(network, ({"x": torch.zeros(4, 2)},)) is None
