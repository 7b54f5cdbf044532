"""A quantized forward leaves no hook or mode behind, however it ends."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from quantized_networks import quantized
from torch import nn
from witness import leaks

from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.quantization import plan_quantization, prepare_, quantize


class Breaks(nn.Module):
    """A network of two layers with something between that raises when told to."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.error = nn.Linear(4, 4), nn.Linear(4, 2), None

    def forward(self, x):
        x = self.first(x)
        if self.error is not None:
            raise self.error
        return self.last(x)


class TestLeavesNothingBehind:
    @pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), SystemExit()])
    def test_after_an_exception(self, error):
        x = torch.randn(8, 4)
        network = quantize(Breaks(), [x], progress=False)
        expected = network(x)
        network.error = error
        with pytest.raises(type(error)):
            network(x)
        if isinstance(error, Exception):
            assert leaks() == (0, 0, 0)
        assert torch.equal(torch.nn.functional.linear(x, torch.eye(4)), x)  # no quantization outside the network
        network.error = None
        assert torch.equal(network(x), expected)
        assert leaks() == (0, 0, 0)

    def test_after_a_users_hook_raised(self):
        network, x = quantized()

        def broken(*_):
            raise KeyError("user")

        for register in (
            lambda: network.register_forward_pre_hook(broken, prepend=True),
            lambda: network.register_forward_pre_hook(broken),
            lambda: network.register_forward_hook(broken, prepend=True),
            lambda: network.register_forward_hook(broken),
            lambda: network.conv1.register_forward_pre_hook(broken),
            lambda: network.conv1.register_forward_hook(broken),
        ):
            handle = register()
            with pytest.raises(KeyError):  # and a warning would be an error
                network(x)
            handle.remove()
            assert leaks() == (0, 0, 0)
        network(x)

    def test_twice_in_one_forward_and_inside_itself(self):
        network, x = quantized()
        expected = network(x)
        parent = nn.Sequential(network, nn.Flatten())
        assert torch.equal(parent(x) + parent(x), expected + expected)

        class Recursive(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.layer = nn.Linear(4, 4)

            def forward(self, x, depth=2):
                return self(self.layer(x), depth - 1) if depth else x

        network, x = Recursive(), torch.randn(4, 4)
        prepare_(network, plan_quantization(network, x))
        network(x)
        find_fake_quantizers(network).enable_fake_quant_(True)
        assert len([n for n in find_fake_quantizers(network).sites if n.endswith("weight")]) == 2
        assert not torch.equal(network(x), network.layer(network.layer(x)))
        assert leaks() == (0, 0, 0)

    def test_in_several_threads(self):
        network, x = quantized()
        with torch.no_grad(), ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: network(x), range(30)))
            expected = network(x)
        assert all(torch.equal(each, expected) for each in found)
        assert leaks() == (0, 0, 0)
