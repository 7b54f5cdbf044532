"""Layers put back to float: exactly what quantizing with these layers in float gives."""

import pytest
import torch
from quantized_networks import NETWORKS, make, quantized
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.network.calling import call_network
from lit_xai.quantization.partly import PartlyQuantized, noise_alone
from lit_xai.quantization.quantization import describe_quantization, quantize


def logits(network, x, options):
    with torch.no_grad():
        return call_network(network, x, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_bit_for_bit_the_network_that_was_quantized_without_them(name):
    (network, x), options = make(name), NETWORKS[name].options
    whole = quantize(network, [x], progress=False, **options)
    parts = PartlyQuantized(whole, lambda: [x], **options)
    assert torch.equal(logits(parts.without().network, x, options), logits(whole, x, options))
    layers = [layer for layer in parts.without().layers if layer]
    assert len(layers) == len([*dict.fromkeys(layers)])
    sets = [[layer] for layer in layers] + [layers[i : i + 2] for i in range(len(layers) - 1)]
    for some in sets:
        part = parts.without(some)
        if not part.layers:  # of which quantize() says that there is nothing
            continue
        expected = quantize(network, [x], ignored_layers=some, progress=False, **options)
        assert part.network.fake_quantizers.sites == expected.fake_quantizers.sites
        assert torch.equal(logits(part.network, x, options), logits(expected, x, options))
        assert not {*some} & {*part.layers}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_quantized_because_of_one_layer(name):
    whole, x = quantized(name)
    part = PartlyQuantized(whole, lambda: [x], **NETWORKS[name].options).without()
    every = [site for sites in part.sites.values() for site in sites]
    assert sorted(every) == sorted(whole.fake_quantizers.sites)
    described = describe_quantization(whole)
    assert sorted(part.layers) == sorted([*described["integer"], *described["tables"]])


@pytest.mark.parametrize("name", ["residual", "mobile", "attention"])
def test_the_noise_of_a_layer_alone_is_that_of_a_network_with_all_others_in_float(name):
    (network, x), options = make(name), NETWORKS[name].options
    whole = quantize(network, [x], progress=False, **options)
    part = PartlyQuantized(whole, lambda: [x], **options).without()
    before = digest(module_state(part.network)), digest(rng_state())
    noise = noise_alone(part, [x, x], **options)
    assert (digest(module_state(part.network)), digest(rng_state())) == before
    fake_quantizers = whole.fake_quantizers
    fake_quantizers.enable_fake_quant_(False)
    signal = logits(whole, x, options).double()
    for layer, sites in part.sites.items():
        for site, fake_quant in fake_quantizers.fake_quants.items():
            fake_quant.fake_quant_enabled.fill_(int(site in sites))
        wrong = (logits(whole, x, options).double() - signal).square().sum() / signal.square().sum()
        assert noise[layer] == pytest.approx(float(wrong))


def test_what_is_known_is_not_measured_again():
    whole, x = quantized("residual")
    parts = PartlyQuantized(whole, lambda: [x])
    known = {}
    noise = noise_alone(parts.without(), [x], known=known)
    assert len(known) == len(noise) == 5
    again = noise_alone(parts.without(["short"]), [x], known=known)
    assert again.keys() == noise.keys() - {"short"}
    assert len(known) > 5  # layers around it are quantized otherwise now
    assert again["stem"] == noise["stem"]


def test_what_is_not_quantized_is_refused():
    with pytest.raises(ValueError, match=r"expected a network from quantize\(\), but Linear is in float"):
        PartlyQuantized(nn.Linear(2, 2), list)


def test_the_network_is_left_as_it_is():
    whole, x = quantized("mobile")
    before = digest(module_state(whole)), digest(rng_state())
    noise_alone(PartlyQuantized(whole, lambda: [x]).without(["deep"]), [x])
    assert (digest(module_state(whole)), digest(rng_state())) == before
