"""The tensors that are quantized, against forwards by hand, also if they are written to."""

import pytest
import torch
from networks import mlp
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from lit_xai.quantization.rounding import Placement, owners_of_weights


def grid(name, tensor, layer):
    """Round to quarters: coarse enough to differ clearly from the tensor itself."""
    return torch.round(tensor * 4) / 4


class Body(nn.Module):
    """Two convolutions that keep a shape, a linear layer, and a forward of the test's choice."""

    def __init__(self, run):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2, self.fc, self.run = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Linear(4, 4), run

    def forward(self, x):
        return self.run(self, x)


X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def placed(network, x=X, round=grid, **options):
    """Return the network's result under a placement, and the sites in order."""
    sites = []

    def note(name, tensor, layer):
        sites.append(name)
        return round(name, tensor, layer)

    placement = Placement(note, owners_of_weights(network), **options)
    with placement, torch.no_grad():
        result = network(x)
    return placement.finish(result), sites


def q(tensor):
    return grid("", tensor, "")


def conv(x, layer):
    return F.conv2d(q(x), q(layer.weight), layer.bias)


def linear(x, layer):
    return F.linear(q(x), q(layer.weight), layer.bias)


class TestPlaces:
    @pytest.mark.parametrize(
        ("run", "by_hand"),
        [
            (lambda s, x: s.conv1(x), lambda s, x: q(conv(x, s.conv1))),
            (lambda s, x: s.fc(x), lambda s, x: linear(x, s.fc)),
            (lambda s, x: s.conv1(x).relu(), lambda s, x: q(conv(x, s.conv1).relu())),
            (lambda s, x: F.relu6(s.conv1(x)) * 2, lambda s, x: q(F.relu6(conv(x, s.conv1))) * 2),
            (lambda s, x: s.conv1(x).sigmoid(), lambda s, x: q(conv(x, s.conv1)).sigmoid()),
            (
                lambda s, x: s.conv2(s.conv1(x).clamp(-1, 1)),
                lambda s, x: q(conv(conv(x, s.conv1).clamp(-1, 1), s.conv2)),
            ),
            (lambda s, x: s.conv1(x) + s.conv2(x), lambda s, x: q(q(conv(x, s.conv1)) + q(conv(x, s.conv2)))),
            (
                lambda s, x: torch.add(input=s.conv1(x), other=s.conv2(x), alpha=2).relu(),
                lambda s, x: q(torch.add(q(conv(x, s.conv1)), q(conv(x, s.conv2)), alpha=2).relu()),
            ),
            (lambda s, x: s.conv1(x) + x, lambda s, x: q(q(conv(x, s.conv1)) + q(x))),  # x is one of integers already
            (lambda s, x: s.conv1(x) + x.exp(), lambda s, x: q(conv(x, s.conv1)) + x.exp()),
            (lambda s, x: s.conv1(x) + 1, lambda s, x: q(conv(x, s.conv1)) + 1),
            (lambda s, x: x + x, lambda s, x: x + x),
            (
                lambda s, x: F.max_pool2d(s.conv1(x).relu(), 2).flatten(1) * 3,
                lambda s, x: F.max_pool2d(q(conv(x, s.conv1).relu()), 2).flatten(1) * 3,
            ),
            (
                lambda s, x: torch.cat([s.conv1(x), s.conv2(x)], 1).exp(),
                lambda s, x: torch.cat([q(conv(x, s.conv1)), q(conv(x, s.conv2))], 1).exp(),
            ),
            (
                lambda s, x: sum(s.conv1(x).chunk(2, 1)),
                lambda s, x: q(sum(q(conv(x, s.conv1)).chunk(2, 1))),
            ),
            (
                lambda s, x: F.conv2d(bias=None, weight=s.conv1.weight, input=x, stride=2),
                lambda s, x: q(F.conv2d(q(x), q(s.conv1.weight), None, 2)),
            ),
            (lambda s, x: F.conv2d(x, s.conv1.weight * 2), lambda s, x: F.conv2d(x, s.conv1.weight * 2)),
            (lambda s, x: s.fc(s.fc(x)), lambda s, x: linear(linear(x, s.fc), s.fc)),
            (lambda s, x: s.conv1(x).to(torch.long).float(), lambda s, x: conv(x, s.conv1).to(torch.long).float()),
        ],
    )
    def test_as_written_by_hand(self, run, by_hand):
        network = Body(run)
        found, _ = placed(network)
        with torch.no_grad():
            expected = by_hand(network, X)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)

    def test_a_tensor_is_quantized_once_however_many_operators_take_it(self):
        _, sites = placed(Body(lambda s, x: s.conv1(x) + s.conv2(x) + s.conv1(x).exp()))
        assert sites.count("conv1/conv2d/input") == 1
        assert not any(name.startswith("conv2") and name.endswith("input") for name in sites)

    def test_names_tell_calls_apart(self):
        _, sites = placed(Body(lambda s, x: s.conv1(s.conv1(x))))
        assert sites == [
            "conv1/conv2d/input",
            "conv1/conv2d/weight",
            "conv1/conv2d-2/input",
            "conv1/conv2d-2/weight",
            "output",
        ]

    def test_several_outputs_have_a_site_each(self):
        _, sites = placed(Body(lambda s, x: {"a": s.conv1(x), "b": [s.conv2(x), x], "c": "text"}))
        assert [name for name in sites if "output" in name] == ["output", "output-2"]

    def test_layers_in_float_take_quantized_outputs_and_no_sum_with_theirs_is_quantized(self):
        network = Body(lambda s, x: s.conv2(s.conv1(x)).exp())
        # Placement hears of modules through `path`; alone it sees parameters' owners.
        found, sites = placed(network, float_layers=["conv2"])
        with torch.no_grad():
            expected = network.conv2(q(conv(X, network.conv1))).exp()
        torch.testing.assert_close(found, expected)
        assert not any("conv2/" in name for name in sites)

    def test_what_stays_in_float_stays_the_same_tensor(self):
        network = mlp()
        found, sites = placed(network, torch.randn(4, 5), round=lambda name, tensor, layer: tensor)
        assert len(sites) == 4
        torch.manual_seed(0)
        assert found.shape == (4, 3)

    def test_integers_pass(self):
        found, _ = placed(Body(lambda s, x: s.conv1(x).relu().argmax(1) + x.argmax(1)))
        assert found.dtype == torch.long


WRITES = {
    "relu_": lambda s, x: s.conv2(x) + 0 * x.relu_() + s.conv2(x),
    "inplace": lambda s, x: (s.conv2(x) + 0 * F.relu(x, inplace=True)) + s.conv2(x),
    "module": lambda s, x: (s.conv2(x) + 0 * nn.ReLU(inplace=True)(x)) + s.conv2(x),
    "setitem": lambda s, x: (s.conv2(x), x.__setitem__((slice(None), 0), 2.0), s.conv2(x))[2],
    "a view": lambda s, x: (s.conv2(x), x[:, 0].fill_(2.0), s.conv2(x))[2],
    "add_": lambda s, x: (s.conv2(x), x.add_(1), s.conv2(x))[2],
    "add_ of integers": lambda s, x: (s.conv2(x), x.add_(s.conv2(x)), s.conv2(x))[2],
    "mul_": lambda s, x: (x.mul_(x.sigmoid()), s.conv2(x))[1],
    "hardswish": lambda s, x: (F.hardswish(x, inplace=True), s.conv2(x))[1],
    "ignored result": lambda s, x: (F.relu(x, inplace=True), s.conv2(x))[1],
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("first", [lambda s, x: x.clone(), lambda s, x: s.conv1(x), lambda s, x: s.conv1(x).exp()])
@pytest.mark.parametrize("name", WRITES)
def test_in_place_writes_are_seen_by_all_views(name, first, mode):
    """With steps too small to matter, the result is that without quantization."""
    if name == "a view" and mode is torch.inference_mode:
        pytest.skip("tensors made in inference mode do not count what is written to them")
    network = Body(lambda s, x: WRITES[name](s, first(s, x)))
    with mode():
        expected = network(X.clone())
        with Placement(lambda n, tensor, layer: tensor + 1e-9, owners_of_weights(network)) as placement:
            found = network(X.clone())
        found = placement.finish(found)
    torch.testing.assert_close(found, expected)


class TestOwners:
    def test_of_weights_views_and_parametrized_layers(self):
        network = nn.Sequential(nn.Linear(2, 2), weight_norm(nn.Linear(2, 2)), nn.MultiheadAttention(4, 2))
        owner_of = owners_of_weights(network)
        assert owner_of(network[0].weight, "") == "0"
        assert owner_of(network[2].in_proj_weight.chunk(3)[1], "2") == "2"
        assert owner_of(network[2].out_proj.weight, "2") == "2.out_proj"
        assert owner_of(network[1].weight, "1") == "1"
        assert owner_of(network[0].weight.exp(), "0") is None
        assert owner_of(torch.zeros(2, 2), "0") is None


def test_checkpointing_is_refused():
    network = Body(lambda s, x: checkpoint(s.conv1, x, use_reentrant=False))
    with pytest.raises(ValueError, match=r"conv1 expected to run once, but got activation checkpointing"):
        with Placement(grid, owners_of_weights(network)):
            network(X)
    assert torch._C._len_torch_function_stack() == 0


def test_nothing_is_quantized_once_the_forward_is_over():
    network = Body(lambda s, x: s.conv1(x))
    with Placement(grid, owners_of_weights(network)) as placement, torch.no_grad():
        placement.is_over = lambda: True
        found = network(X)
    assert torch.equal(found, network(X).detach())
