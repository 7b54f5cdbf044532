"""Tests of the table of channels and bits."""

import torch
from torch import nn

from lit_xai.functional import FileNetwork, quantize
from lit_xai.report.layers import layers_table
from lit_xai.runtime.onnx import export_onnx


def test_bits_are_those_of_the_plan_and_of_the_file(tmp_path):
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))
    images = torch.rand(8, 1, 8, 8)
    quantized = quantize(dense, [images], bits=4, progress=False)
    export_onnx(quantized, images[:2], tmp_path / "int8.onnx")
    networks = {"dense": dense, "int4": quantized, "file": FileNetwork(tmp_path / "int8.onnx")}
    assert layers_table(networks)["rows"] == [
        ["0", "6, 32 bits", "6, 4 bits", "6, 8 bits"],
        ["3", "3, 32 bits", "3, 4 bits", "3, 8 bits"],
    ]


def test_without_layers_there_is_no_table():
    assert layers_table({"a": nn.Identity(), "b": nn.ReLU()}) is None
