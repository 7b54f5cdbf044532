"""Operators are counted in the graph that runs, and called by the modules they come from."""

from collections import Counter

import onnx
import pytest
import torch
from networks import Tokens, cnn, mlp, plain_cnn
from refusals import refused
from torch import nn

from lit_xai.export import inspect_onnx
from lit_xai.models import ResNet, VisionTransformer
from lit_xai.quantization.quantization import quantize
from lit_xai.runtime.onnx import export_onnx


def inspected(network, inputs, tmp_path):
    export_onnx(network, inputs, tmp_path / "network.onnx")
    return inspect_onnx(tmp_path / "network.onnx")


def counted(operators):
    return Counter((one.kind, one.integer) for one in operators)


@pytest.mark.parametrize("width", [6, 8, 16])  # a float convolution of 8 or more channels is fused and renamed
def test_float_layers_by_name(width, tmp_path):
    network = ResNet(8, width=width, in_channels=1)
    found = inspected(network, torch.randn(2, 1, 16, 16), tmp_path)
    layers = {one.layer for one in found if one.kind in ("convolution", "matrix product")}
    assert layers == {name for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert not any(one.integer for one in found)


def test_quantized_layers_by_name(tmp_path):
    torch.manual_seed(0)
    network, x = ResNet(8, width=8, in_channels=1), torch.randn(16, 1, 16, 16)
    found = inspected(quantize(network, [x], progress=False), x, tmp_path)
    assert counted(found) == {
        ("convolution", True): 9,
        ("sum", True): 3,
        ("matrix product", True): 1,
        ("average", True): 1,
    }
    layers = [one.layer for one in found if one.kind in ("convolution", "matrix product")]
    assert sorted(layers) == sorted(n for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    sums = {frozenset(one.layer.split(" + ")) for one in found if one.kind == "sum"}
    assert frozenset({"layer1.0.conv2", "conv1"}) in sums
    assert frozenset({"layer2.0.conv2", "layer2.0.shortcut.0"}) in sums


def test_what_is_ignored_stays_in_float_by_name(tmp_path):
    torch.manual_seed(0)
    network, x = ResNet(8, width=8, in_channels=1), torch.randn(16, 1, 16, 16)
    found = inspected(quantize(network, [x], ignored_layers=["conv1", "layer1", "fc"], progress=False), x, tmp_path)
    floats = {one.layer for one in found if one.kind in ("convolution", "matrix product") and not one.integer}
    assert floats == {"conv1", "layer1.0.conv1", "layer1.0.conv2", "fc"}


def test_attention_multiplies_activations(tmp_path):
    torch.manual_seed(0)
    network, x = VisionTransformer(8, 2, 1, 10, dim=16, depth=2, heads=2), torch.randn(8, 1, 8, 8)
    found = inspected(quantize(network, [x], progress=False), x, tmp_path)
    linear = {name for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    products = [one for one in found if one.kind == "matrix product"]
    assert {one.layer for one in products} == linear
    assert all(one.integer for one in products)
    assert counted(found)["activation product", False] == 4


def test_as_many_products_as_the_file_has(tmp_path):
    """Against the operators in the file itself: fusing takes none of these away."""
    for network, x in (
        (cnn(), torch.randn(2, 2, 6, 6)),
        (plain_cnn(), torch.randn(2, 2, 6, 6)),
        (mlp(), torch.randn(2, 5)),
        (Tokens(), torch.randint(11, (2, 4))),
    ):
        found = inspected(network, x, tmp_path)
        written = Counter(node.op_type for node in onnx.load(tmp_path / "network.onnx").graph.node)
        products = sum(n for (kind, _), n in counted(found).items() if kind in ("convolution", "matrix product"))
        assert products == written["Conv"] + written["Gemm"] + written["MatMul"]


def test_refusals(tmp_path, capfd):
    (tmp_path / "text.onnx").write_text("no network")
    with refused("expected an ONNX file", "text.onnx"):
        inspect_onnx(tmp_path / "text.onnx")
    assert capfd.readouterr() == ("", "")
