"""A prepared network against quantization by hand, and that nothing else of the network changes."""

import copy
import pickle
import warnings

import captum_methods
import pytest
import torch
import torch.nn.modules.module
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import plain_cnn
from quantized_networks import NETWORKS, Residual, make, quantized
from refusals import refused
from torch import nn
from torch.nn import functional as F
from witness import digest, leaks, module_state, rng_state

from lit_xai.attribution.attribution import attribute
from lit_xai.network.calling import call_network
from lit_xai.quantization.fake_quantizers import (
    FakeQuantizers,
    find_fake_quantizers,
    fold_paired_,
    insert_fake_quantizers_,
    remove_fake_quantizers_,
)
from lit_xai.quantization.folding import fold_batch_norms_, folded_copy
from lit_xai.quantization.quantization import plan_quantization, prepare_, quantize


class ByHand:
    """Quantize by the formulas in float64: ranges are those of the second pass's float values."""

    def __init__(self, bits=7, low=0, high=255):
        self.bits, self.low, self.high = bits, low, high
        self.ranges = {}

    def of(self, tensor, name):
        if name not in self.ranges:
            self.ranges[name] = (min(tensor.min().item(), 0.0), max(tensor.max().item(), 0.0))
            return tensor
        least, most = self.ranges[name]
        scale = (most - least) / (self.high - self.low)
        zero = round(self.low - least / scale)
        return ((tensor / scale).round() + zero).clamp(self.low, self.high).sub(zero) * scale

    def weight(self, tensor, seen):
        if not seen:
            return tensor
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        flat = tensor.flatten(1)
        scale = torch.maximum(flat.amin(1) / low, flat.amax(1) / high).clamp(min=1.2e-7)
        scale = scale.view(-1, *(1,) * (tensor.dim() - 1))
        return (tensor / scale).round().clamp(low, high) * scale

    def residual(self, net, x, seen):
        """The forward of quantized_networks.Residual, folded."""

        def conv(x, layer):
            return F.conv2d(x, self.weight(layer.weight, seen), layer.bias, layer.stride, layer.padding)

        x = self.of(x, "x")
        x = F.max_pool2d(self.of(conv(x, net.stem).relu(), "stem"), 2)
        y = conv(self.of(conv(x, net.conv1).relu(), "conv1"), net.conv2)
        y = (self.of(y, "left") + self.of(conv(x, net.short), "right")).relu()
        y = self.of(self.of(y, "sum").mean((2, 3)), "mean")
        return F.linear(y, self.weight(net.head.weight, seen), net.head.bias)


class TestNumbers:
    @pytest.mark.parametrize("bits", [2, 5, 7])
    def test_are_those_of_quantization_by_hand(self, bits):
        network, x = make("residual")
        found = quantize(network, [x], bits=bits, progress=False)
        folded, hand = folded_copy(network, x).double(), ByHand(bits)
        assert isinstance(folded, Residual)
        with torch.no_grad():
            hand.residual(folded, x.double(), False)
            expected = hand.residual(folded, x.double(), True)
            difference = (found(x).double() - expected).abs() / expected.abs().max()
        # Where a value lies between two steps it may fall to the other one, and moves one sample a little.
        assert (difference < 1e-4).double().mean() > 0.9
        assert difference.max() < 1e-2

    def test_weights_keep_0_at_0_also_where_a_channel_has_one_sign(self):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4))
        with torch.no_grad():
            network[0].weight.copy_(torch.tensor([[0.2, 0.3, 0.4], [-0.4, -0.2, -0.1], [0.0, 0.0, 0.0], [1, -1, 0.5]]))
        fake_quantizers = prepare_(network, plan_quantization(network, torch.randn(4, 3)))
        network(torch.randn(4, 3))
        fake_quantizers.enable_fake_quant_(True)
        fake_quant = fake_quantizers.fake_quants["0/linear/weight"]
        assert fake_quant.zero_point.tolist() == [0] * 4
        out = fake_quantizers.fake_quantize("0/linear/weight", network[0].weight, "0")
        expected = ByHand(7).weight(network[0].weight.detach(), True)
        torch.testing.assert_close(out, expected)

    @pytest.mark.parametrize("name", ["residual", "attention", "in place", "dense", "weight norm", "recurrent"])
    def test_gradients_are_finite_for_every_parameter(self, name):
        network, x = quantized(name)
        network.train()
        call_network(network, x, **NETWORKS[name].options).square().sum().backward()
        for parameter in network.parameters():
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()

    def test_nothing_is_quantized_before_it_is_enabled(self):
        network, x = make("residual")
        with torch.no_grad():
            expected = network(x)
            prepare_(network, plan_quantization(network, x))
            torch.testing.assert_close(network(x), expected)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_precisions(self, dtype):
        network, x = quantized()
        expected = network(x).detach()
        scales = digest([r.scale for r in find_fake_quantizers(network).fake_quants.values()])
        network.to(dtype)
        assert digest([r.scale for r in find_fake_quantizers(network).fake_quants.values()]) == scales
        found = network.train()(x.to(dtype))
        assert found.dtype == dtype
        found.sum().backward()
        tolerance = 0.05 if dtype == torch.bfloat16 else 0.02
        assert (found - expected).abs().max() < tolerance * expected.abs().max()

    def test_autocast(self):
        network, x = quantized()
        expected = network(x).detach()
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x)
        assert found.dtype == torch.bfloat16
        assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
        found.float().sum().backward()
        assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in network.parameters())

    def test_memory_formats(self):
        network, x = quantized()
        with torch.no_grad():
            expected = network(x)
            found = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected)


class TestKeepsTheNetwork:
    @pytest.mark.parametrize("name", ["residual", "attention", "weight norm", "parent"])
    def test_names_classes_and_hooks(self, name):
        network, x = make(name)
        calls = []
        network.register_forward_hook(lambda *_: calls.append("after"))
        network.register_forward_pre_hook(lambda *_: calls.append("before"))
        before, classes = digest(module_state(network)), [type(m) for m in network.modules()]
        names = [n for n, _ in network.named_parameters()]
        prepare_(network, plan_quantization(network, x))
        assert [n for n, _ in network.named_parameters()] == names
        found = find_fake_quantizers(network)
        assert [type(m) for n, m in network.named_modules() if not n.startswith("fake_quantizers")] == classes
        assert list(found.parameters()) == []
        network(x)
        assert calls[-2:] == ["before", "after"]
        remove_fake_quantizers_(network)
        assert digest(module_state(network)) == before
        assert find_fake_quantizers(network) is None

    def test_of_a_part_are_taken_away_too(self):
        part, _ = quantized()
        whole = nn.Sequential(part)
        remove_fake_quantizers_(whole)
        assert find_fake_quantizers(whole) is None
        assert not part._forward_hooks
        remove_fake_quantizers_(whole)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
    def test_copies_quantize_independently(self, clone):
        network, x = quantized()
        expected = network(x)
        copied = clone(network)
        torch.testing.assert_close(copied(x), expected, rtol=0, atol=0)
        copied.train()(x * 10)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=0)
        remove_fake_quantizers_(copied)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=0)

    def test_states_load_strictly(self):
        network, x = quantized()
        fresh = folded_copy(make("residual")[0], x)
        plan = plan_quantization(fresh, x)
        prepare_(fresh, plan)
        fresh.load_state_dict(network.state_dict())
        assert torch.equal(fresh.eval()(x), network(x))

    def test_eval_moves_no_buffer_and_training_ranges_alone(self):
        network, x = quantized("preactivation")
        before = digest(module_state(network))
        network(x * 100)
        assert digest(module_state(network)) == before
        network.train()
        find_fake_quantizers(network).enable_observer_(False)
        ranges = digest(find_fake_quantizers(network).ranges())
        network(x * 100)
        assert digest(find_fake_quantizers(network).ranges()) == ranges
        find_fake_quantizers(network).enable_observer_(True)
        network(x * 100)
        assert digest(find_fake_quantizers(network).ranges()) != ranges

    @pytest.mark.parametrize("name", captum_methods.METHODS)
    def test_explaining_moves_nothing(self, name):
        torch.manual_seed(0)
        x, target = torch.randn(2, 2, 6, 6), torch.tensor([0, 2])
        network = quantize(plain_cnn(), [torch.randn(16, 2, 6, 6)], progress=False).train()
        before = digest([module_state(network), rng_state(), leaks()])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = attribute(network, x, target=target, **captum_methods.options(name))
        assert digest([module_state(network), rng_state(), leaks()]) == before
        parts = torch.utils._pytree.tree_leaves(found)
        assert parts
        assert all(torch.isfinite(part).all() for part in parts)

    def test_an_attribution_is_of_the_quantized_network(self):
        torch.manual_seed(0)
        network = quantize(plain_cnn(), [torch.randn(16, 2, 6, 6)], bits=3, progress=False)
        x = torch.randn(2, 2, 6, 6, requires_grad=True)
        (expected,) = torch.autograd.grad(network(x)[:, 1].sum(), x)
        found = attribute(network, x.detach(), method="Saliency", target=1, attribute_args={"abs": False})
        torch.testing.assert_close(found, expected)

    def test_already_there(self):
        network, _ = quantized()
        with refused("network expected a module without fake-quantizers, but Residual has some already"):
            insert_fake_quantizers_(network, [])
        network = nn.Sequential()
        network.fake_quantizers = nn.Identity()
        with refused("has a submodule called 'fake_quantizers'"):
            insert_fake_quantizers_(network, [])


def test_the_names_in_checkpoints_stay_those_of_0_1():
    network = nn.Sequential(nn.Linear(3, 4))
    prepare_(network, plan_quantization(network, torch.randn(4, 3)))
    values = ("fake_quant_enabled", "observer_enabled", "scale", "zero_point")
    observed = ("eps", "min_val", "max_val")
    names = [
        f"{prefix}{name}" for prefix, names in (("", values), ("activation_post_process.", observed)) for name in names
    ]
    sites = ("0/linear/input", "0/linear/weight")
    expected = {f"fake_quantizers.rounders.{site}.{name}" for site in sites for name in names}
    assert set(network.state_dict()) == {"0.weight", "0.bias"} | expected


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("round_", "enable_fake_quant_", True),
        ("observe_", "enable_observer_", False),
        ("averaging_", "set_averaging_constant_", 0.5),
    ],
)
def test_methods_keep_their_names_of_0_1_for_a_release(old, new, value, monkeypatch):
    fake_quantizers, calls = FakeQuantizers([]), []
    monkeypatch.setattr(FakeQuantizers, new, lambda self, value: calls.append(value))
    with pytest.warns(FutureWarning, match=f"{old}.. is now {new}"):
        getattr(fake_quantizers, old)(value)
    assert calls == [value]


LAYERS = {
    "linear": (lambda n, groups, bias: nn.Linear(4, n, bias), nn.BatchNorm1d, (16, 4)),
    "conv1d": (lambda n, groups, bias: nn.Conv1d(4, n, 3, groups=groups, bias=bias), nn.BatchNorm1d, (8, 4, 9)),
    "conv2d": (lambda n, groups, bias: nn.Conv2d(4, n, 3, groups=groups, bias=bias), nn.BatchNorm2d, (8, 4, 6, 5)),
    "conv3d": (lambda n, groups, bias: nn.Conv3d(4, n, 2, groups=groups, bias=bias), nn.BatchNorm3d, (4, 4, 3, 4, 3)),
    "synchronized": (lambda n, groups, bias: nn.Conv2d(4, n, 3, bias=bias), nn.SyncBatchNorm, (8, 4, 6, 5)),
}


class TestBatchNorms:
    """Networks that train with the BatchNorms that are folded afterwards."""

    @staticmethod
    def trained(layer, channels, groups, bias, signs, bits, cpu, seed, affine=True):
        """Return a prepared network in eval mode, after batches in training mode, and inputs for it."""
        generator = torch.manual_seed(seed)
        make_layer, make_norm, shape = LAYERS[layer]
        network = nn.Sequential(make_layer(channels, groups, bias), make_norm(channels, affine=affine), nn.ReLU())
        if affine:
            gammas = torch.rand(channels, generator=generator) * torch.tensor((signs * channels)[:channels])
            network[1].weight.data.copy_(gammas)
            network[1].bias.data.normal_(generator=generator)
        inputs = torch.randn(shape, generator=generator)
        fake_quantizers = prepare_(network.train(), plan_quantization(network, inputs, bits=bits, cpu=cpu))
        for enabled in (False, True):
            network(inputs * 2 + 1)
            fake_quantizers.enable_fake_quant_(enabled)
        network(inputs * 2 + 1)
        return network.eval(), inputs

    @given(
        layer=st.sampled_from(sorted(LAYERS)),
        channels=st.sampled_from([4, 12]),
        groups=st.sampled_from([1, 2, 4]),
        bias=st.booleans(),
        signs=st.lists(st.sampled_from([1.0, -1.0, 0.0]), min_size=1, max_size=4),
        bits=st.sampled_from([8, 4, 2]),
        cpu=st.sampled_from(["any", "vnni"]),
        seed=st.integers(0, 999),
        affine=st.booleans(),
    )
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_the_folded_copy_computes_in_the_integers_that_were_trained(self, bits, cpu, **options):
        network, inputs = self.trained(bits=bits, cpu=cpu, **options)
        in_float = copy.deepcopy(network)
        remove_fake_quantizers_(in_float)
        fold_batch_norms_(in_float, [("0", "1")])
        folded = copy.deepcopy(network)
        fold_paired_(folded)
        assert find_fake_quantizers(folded).norms == {}
        assert type(folded[1]) is nn.Identity
        # The witness: the weight of the network folded in float, quantized by hand.
        wide = min(bits, 7 if cpu == "any" else 8)
        low, high = -(2 ** (wide - 1)), 2 ** (wide - 1) - 1
        weight = in_float[0].weight.detach().double().flatten(1)
        scale = torch.maximum(weight.amin(1) / low, weight.amax(1) / high).clamp(min=1e-18)[:, None]
        (site,) = [name for name, site in find_fake_quantizers(folded).sites.items() if site["channels"]]
        fake_quant = find_fake_quantizers(folded).fake_quants[site]
        found_scale = fake_quant.scale.double()[:, None]
        moving = (weight != 0).any(1)
        torch.testing.assert_close(found_scale[moving], scale[moving], rtol=1e-5, atol=0)
        found, expected = (folded[0].weight.detach().double().flatten(1) / found_scale), weight / scale
        is_tie = ((expected - expected.floor()) - 0.5).abs() < 1e-3
        assert torch.equal(found.round().clamp(low, high)[~is_tie], expected.round().clamp(low, high)[~is_tie])
        # And what was trained is what is computed, but for activations that round a tie to the other side.
        was, now = network(inputs), folded(inputs)
        step = max(
            float(one.scale) for one in find_fake_quantizers(folded).fake_quants.values() if not one.is_per_channel
        )
        differing = (was - now).abs() > 1e-4 * was.abs().max()
        assert differing.float().mean() < 0.02 or is_tie.any()
        assert (was - now).abs().max() <= 1.01 * step or is_tie.any()

    def test_negative_gammas_have_a_grid_of_their_own(self):
        """A test that the property above can fail: without the sign the grid is mirrored."""
        network, _ = self.trained("linear", 12, 1, False, [-1.0], 2, "vnni", 0)
        fake_quantizers = find_fake_quantizers(network)
        weight = fake_quantizers.fake_quantize("0/linear/weight", network[0].weight, "0", network[1])
        integers = (weight / fake_quantizers.fake_quants["0/linear/weight"].scale[:, None]).round()
        assert set(integers.flatten().tolist()) <= {-1, 0, 1, 2}
        assert 2 in integers

    def test_norms_that_follow_no_layer_are_left_in_float(self):
        network, x = make("preactivation")[:2]
        sites = plan_quantization(network.eval(), x)
        assert sites["norms"] == []

    def test_frozen_statistics_hold_in_training_mode_and_only_while_the_network_runs(self):
        network, inputs = self.trained("conv2d", 4, 1, True, [1.0], 8, "any", 0)
        fake_quantizers = find_fake_quantizers(network)
        for frozen in (True, False):
            fake_quantizers.freeze_norms_(frozen)
            before = network[1].running_mean.clone()
            network.train()(inputs)
            assert network[1].training
            assert torch.equal(before, network[1].running_mean) is frozen
            assert (int(network[1].num_batches_tracked) == 3) is frozen

    def test_an_exception_leaves_norms_in_training_mode(self):
        network, inputs = self.trained("conv2d", 4, 1, True, [1.0], 8, "any", 0)
        find_fake_quantizers(network).freeze_norms_(True)
        with pytest.raises(RuntimeError):
            network.train()(inputs[:, :3])
        assert network[1].training
        assert leaks() == (0, 0, 0)
