"""One tensor's range and scale, against torchao's own and by hand."""

import pytest
import torch
from quantized_networks import make, quantized
from torch import nn

from lit_xai.quantization.fake_quantizers import FakeQuantizers, find_fake_quantizers
from lit_xai.quantization.observers import AVERAGING
from lit_xai.quantization.quantization import plan_quantization, prepare_, quantize


@pytest.mark.parametrize("observing", [True, False])
def test_training_moves_ranges_and_scales_as_torchao_does(observing):
    from torchao.quantization.pt2e import FusedMovingAvgObsFakeQuantize, MovingAverageMinMaxObserver

    ours = FakeQuantizers([{"name": "x", "layer": "", "low": 0, "high": 255, "channels": 0}]).train()
    theirs = FusedMovingAvgObsFakeQuantize(MovingAverageMinMaxObserver, 0, 255, dtype=torch.quint8)
    generator = torch.Generator().manual_seed(0)
    for batch in range(20):
        tensor = torch.randn(64, 7, generator=generator) * (1 + batch % 3) + (batch > 10)
        inputs, others = tensor.clone().requires_grad_(), tensor.clone().requires_grad_()
        if batch == 5:
            ours.enable_observer_(observing)
            theirs.enable_observer(observing)
        if batch == 15:
            ours.eval()
            theirs.disable_observer()
        out, wanted = ours.fake_quantize("x", inputs, ""), theirs(others)
        out.square().sum().backward()
        wanted.square().sum().backward()

        assert torch.equal(out, wanted)
        assert torch.equal(inputs.grad, others.grad)
        fake_quant, observer = ours.fake_quants["x"], theirs.activation_post_process
        assert torch.equal(fake_quant.scale, theirs.scale)
        assert torch.equal(fake_quant.zero_point, theirs.zero_point)
        assert torch.equal(fake_quant.activation_post_process.min_val, observer.min_val)
        assert torch.equal(fake_quant.activation_post_process.max_val, observer.max_val)


def test_observing_alone_leaves_numbers_as_they_are():
    ours = FakeQuantizers([{"name": "x", "layer": "", "low": 0, "high": 255, "channels": 0}]).train()
    ours.enable_fake_quant_(False)
    tensor = torch.randn(4, 3)

    assert torch.equal(ours.fake_quantize("x", tensor, ""), tensor)
    assert ours.fake_quants["x"].activation_post_process.max_val == tensor.max()
    ours.enable_fake_quant_(True)
    assert len(ours.eval().fake_quantize("x", torch.linspace(-9, 9, 10000), "").unique()) == 256


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1e3])
def test_weights_of_any_magnitude_are_quantized_alike(size):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(16, 8, bias=False)), torch.randn(32, 16)
    expected = quantize(network, [x], progress=False)(x) * size
    with torch.no_grad():
        network[0].weight *= size
    found = quantize(network, [x], progress=False)(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * size)


def test_symmetric_activations_lie_around_0_even_behind_a_rectifier():
    network, x = quantized(activations="symmetric")
    fake_quantizers = find_fake_quantizers(network)
    assert {
        int(r.zero_point) for n, r in fake_quantizers.fake_quants.items() if not fake_quantizers.sites[n]["channels"]
    } == {0}
    plain, _ = make("residual")
    with torch.no_grad():
        assert (network(x) - plain(x)).abs().max() < 0.1 * plain(x).abs().max()
    site = next(n for n, s in fake_quantizers.sites.items() if n == "conv2/conv2d/input")
    out = fake_quantizers.fake_quantize(site, torch.tensor([-1e9, 0.0, 1e9]), "")
    scale = fake_quantizers.fake_quants[site].scale
    torch.testing.assert_close(out, torch.tensor([-128.0, 0.0, 127.0]) * scale)


def test_averages_of_batches():
    network, x = make("mlp")
    fake_quantizers = prepare_(network.train(), plan_quantization(network, x))
    x = [torch.rand(4, 64) * size for size in (1.0, 3.0)]
    fake_quantizers.set_averaging_constant_(1.0)
    network(x[0])
    fake_quantizers.set_averaging_constant_(0.25)
    network(x[1])
    seen = next(r for n, r in fake_quantizers.fake_quants.items() if n.endswith("linear/input")).activation_post_process
    assert seen.max_val.item() == pytest.approx(0.75 * x[0].max().item() + 0.25 * x[1].max().item())
    fake_quantizers.set_averaging_constant_(AVERAGING)


def test_gradients_go_straight_through_inside_the_range_and_nowhere_outside():
    network, _ = quantized()
    fake_quantizers = find_fake_quantizers(network)
    x = torch.tensor([-1e3, 0.0, 0.1, 1e3], requires_grad=True)
    fake_quantizers.fake_quantize("stem/conv2d/input", x, "stem").sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("lost", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("low", [0, -128])
def test_what_overflows_moves_no_range(low, lost):
    fake_quantizers = FakeQuantizers([{"name": "x", "layer": "", "low": low, "high": low + 255, "channels": 0}]).train()
    values = torch.linspace(-1, 1, 9)
    expected = fake_quantizers.fake_quantize("x", values, "")
    before = {name: value.clone() for name, value in fake_quantizers.state_dict().items()}
    fake_quantizers.fake_quantize("x", torch.cat([values * 3, torch.tensor([lost])]), "")
    assert all(torch.equal(value, before[name]) for name, value in fake_quantizers.state_dict().items())
    assert torch.equal(fake_quantizers.fake_quantize("x", values, ""), expected)
    fresh = FakeQuantizers(fake_quantizers.sites.values()).train()
    fresh.fake_quantize("x", torch.tensor([0.0, lost]), "")
    assert not fresh.is_calibrated()
