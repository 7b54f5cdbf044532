"""The int8 file of a network whose predictions hang on how its activations are rounded."""

import onnx
import pytest
import torch
from onnx import numpy_helper
from refusals import refused
from torch import nn

from lit_xai.export import export_model, files
from lit_xai.quantization.quantization import quantize

pytestmark = pytest.mark.slow


class Deep(nn.Module):
    """Untrained, and predicts a class for each pixel: a value rounded to the other side changes what is behind it."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(24))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(24))

    def forward(self, x):
        x = self.stem(x).relu()
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x)).relu()
        return self.head(x)


@pytest.fixture(scope="module")
def deep():
    torch.manual_seed(0)
    network, images = Deep(), torch.rand(16, 3, 12, 12)
    for _ in range(30):  # statistics
        network(images)
    with torch.no_grad():
        network.head.bias -= network.eval()(images).mean((0, 2, 3))  # no class wins everywhere
    return network, quantize(network, [images], progress=False), [(images, torch.randint(4, (16, 12, 12)))]


def export(deep, folder):
    network, quantized, loader = deep
    options = {"program": False, "progress": False, "batch_sizes": (1,)}
    return export_model(network, loader, folder, quantized=quantized, **options)


def test_two_roundings_of_one_network(deep, tmp_path):
    report = export(deep, tmp_path / "a")
    agreed = next(row.torch_agreement for row in report.rows if row.name.startswith("int8"))
    assert agreed < 0.99
    assert any("Quantization itself changes as much" in warning for warning in report.warnings)


def test_a_fault_in_one_layer_is_found(deep, tmp_path, monkeypatch):
    """The scale of one layer's weights is off by a tenth."""
    write = files.export_onnx

    def faulty(network, inputs, path, **options):
        written = write(network, inputs, path, **options)
        model = onnx.load(path)
        arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        integers = {name for name, array in arrays.items() if array.dtype.kind == "i" and array.ndim == 4}
        nodes = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in integers]
        for one in model.graph.initializer:
            if nodes and one.name == nodes[12].input[1]:
                one.CopyFrom(numpy_helper.from_array(arrays[one.name] * one_tenth_more(arrays[one.name]), one.name))
        onnx.save(model, path)
        return written

    monkeypatch.setattr(files, "export_onnx", faulty)
    with refused("model.int8.onnx expected what the quantized network computes"):
        export(deep, tmp_path / "a")


def one_tenth_more(array):
    return array.dtype.type(1.1)
