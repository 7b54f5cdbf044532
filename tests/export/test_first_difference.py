"""A layer that is wrong in a file is named, in float and in integers, in every runtime."""

import copy

import pytest
import torch
from networks import Tokens
from torch import nn

from lit_xai.export.first_difference import describe_difference, first_difference
from lit_xai.export.variants import Variants
from lit_xai.models import ResNet, VisionTransformer
from lit_xai.quantization.quantization import quantize
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.runtimes import load_model

NETWORKS = {
    "residual": (lambda: ResNet(8, width=8, in_channels=1), (8, 1, 12, 12), ("conv1", "layer2.0.conv1", "fc")),
    "transformer": (lambda: VisionTransformer(12, 4, 1, 10, 32, 2, 2), (8, 1, 12, 12), ("blocks.1.fc1", "head")),
}
CASES = [(name, layer) for name, (_, _, layers) in NETWORKS.items() for layer in layers]


def trained(network):
    """Return a network as after training: no two biases of it are equal."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def weight_of(network, layer):
    module = network.get_submodule(layer)
    return module.parametrizations.weight.original if hasattr(module, "parametrizations") else module.weight


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("is_quantized", [False, True])
@pytest.mark.parametrize(("name", "layer"), CASES)
def test_the_wrong_layer_is_named(name, layer, is_quantized, runtime, tmp_path):
    torch.manual_seed(0)
    make, shape, _ = NETWORKS[name]
    network, x = trained(make()), torch.randn(shape)
    written = quantize(network, [x], progress=False) if is_quantized else network
    variants = Variants.of(network, quantized=written) if is_quantized else Variants.of(network)
    reference = variants.quantized if is_quantized else variants.network

    def found(file):
        return first_difference(reference, file, lambda path: load_model(path, runtime, 1), x)

    export_onnx(written, x, tmp_path / "right.onnx")
    assert found(tmp_path / "right.onnx") is None
    wrong = copy.deepcopy(written)
    with torch.no_grad():
        weight_of(wrong, layer).mul_(-1)
    export_onnx(wrong, x, tmp_path / "wrong.onnx")
    difference = found(tmp_path / "wrong.onnx")
    assert difference is not None
    assert difference.layer == layer
    assert difference.mean > 0.02
    assert f"is {layer}: its output does by" in describe_difference(difference)


def test_what_is_between_layers_has_no_name(tmp_path):
    class Between(nn.Module):
        def __init__(self, add):
            super().__init__()
            self.layer, self.add = nn.Linear(6, 3), add

        def forward(self, x):
            return self.layer(x).relu() + self.add

    torch.manual_seed(0)
    right, wrong, x = Between(0.0), Between(1.0), torch.randn(4, 6)
    wrong.load_state_dict(right.state_dict())
    export_onnx(wrong, x, tmp_path / "wrong.onnx")
    found = first_difference(right, tmp_path / "wrong.onnx", lambda path: load_model(path), x)
    assert found is None
    assert "between or behind them differs" in describe_difference(found)


def test_a_layer_that_has_no_output_of_its_own_is_left_out(tmp_path):
    """Attention's projections are parts of a module whose output is another one."""
    torch.manual_seed(0)
    network, x = trained(Tokens()), torch.randint(0, 10, (4, 6))
    export_onnx(network, x, tmp_path / "tokens.onnx")
    assert first_difference(network, tmp_path / "tokens.onnx", lambda path: load_model(path), x) is None
