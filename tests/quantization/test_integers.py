"""The integers for exporters represent exactly what fake quantization gives."""

import pytest
import torch
from quantized_networks import quantized
from torch import nn

from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.integers import Integers
from lit_xai.quantization.quantization import quantize


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_dequantized_integers_are_the_fake_quantized_tensor(name):
    network, x = quantized(name)
    fake_quantizers, seen = find_fake_quantizers(network), {}
    with fake_quantizers.recording(lambda site, tensor: seen.update({site: tensor.detach()})), torch.no_grad():
        network(x)
    integers = Integers(
        [(site, fake_quantizers.fake_quants[site["name"]]) for site in fake_quantizers.sites.values()], seen
    )
    for site in fake_quantizers.sites.values():
        expected = fake_quantizers.fake_quantize(site["name"], seen[site["name"]], site["layer"])
        torch.testing.assert_close(integers.dequantized(site, seen[site["name"]]), expected)


def test_a_bias_is_quantized_in_steps_of_its_product_of_integers():
    layer, x = nn.Linear(4, 3), torch.rand(8, 4)
    network = quantize(nn.Sequential(layer), [x], progress=False)
    fake_quantizers, weight = find_fake_quantizers(network), network[0].weight
    sites = ("0/linear/input", "0/linear/weight")
    integers = Integers(
        [(fake_quantizers.sites[name], fake_quantizers.fake_quants[name]) for name in sites], {sites[1]: weight}
    )
    found = integers.dequantized_bias(layer.bias, *sites)
    steps = fake_quantizers.fake_quants[sites[0]].scale * fake_quantizers.fake_quants[sites[1]].scale
    torch.testing.assert_close(found / steps, (layer.bias / steps).round())
    assert integers.dequantized_bias(layer.bias, "elsewhere", sites[1]) is layer.bias
