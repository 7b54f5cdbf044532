"""What is written down for exporters is what rounding gives, in integers."""

import pytest
import torch
from quantized_networks import quantized
from torch import nn

from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.integers import Integers
from lit_xai.quantization.quantization import quantize


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_written_is_what_is_rounded(name):
    network, x = quantized(name)
    rounds, seen = find_fake_quantizers(network), {}
    with rounds.looked_at(lambda site, tensor: seen.update({site: tensor.detach()})), torch.no_grad():
        network(x)
    integers = Integers([(site, rounds.rounders[site["name"]]) for site in rounds.sites.values()], seen)
    for site in rounds.sites.values():
        expected = rounds.rounded(site["name"], seen[site["name"]], site["layer"])
        torch.testing.assert_close(integers.written(site, seen[site["name"]]), expected)


def test_a_bias_is_in_steps_of_its_product_where_that_is_of_integers():
    layer, x = nn.Linear(4, 3), torch.rand(8, 4)
    network = quantize(nn.Sequential(layer), [x], progress=False)
    rounds, weight = find_fake_quantizers(network), network[0].weight
    sites = ("0/linear/input", "0/linear/weight")
    integers = Integers([(rounds.sites[name], rounds.rounders[name]) for name in sites], {sites[1]: weight})
    found = integers.written_bias(layer.bias, *sites)
    steps = rounds.rounders[sites[0]].scale * rounds.rounders[sites[1]].scale
    torch.testing.assert_close(found / steps, (layer.bias / steps).round())
    assert integers.written_bias(layer.bias, "elsewhere", sites[1]) is layer.bias
