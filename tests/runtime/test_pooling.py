"""Means over all pixels are one operator in the file, which ONNX Runtime computes in integers; no other mean is."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lit_xai.functional import quantize
from lit_xai.runtime.inspection import inspect_onnx
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.session import open_session


class Averaged(nn.Module):
    def __init__(self, average, dims=2):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.conv, self.head, self.average = conv(3, 8, 3), nn.Linear(8, 4), average

    def forward(self, x):
        return self.head(self.average(self.conv(x).relu()).flatten(1)[:, :8])


POOLED = {
    "adaptive": (nn.AdaptiveAvgPool2d(1), 2),
    "mean": (lambda x: x.mean((2, 3)), 2),
    "mean_kept": (lambda x: x.mean((-1, -2), keepdim=True), 2),
    "of_a_series": (lambda x: x.mean(2), 1),
    "of_a_volume": (lambda x: x.mean((2, 3, 4), keepdim=True), 3),
}
OTHERS = {
    "of_rows": (lambda x: x.mean(3), 2),
    "of_channels": (lambda x: x.mean(1), 2),
    "of_all": (lambda x: x.mean((1, 2, 3), keepdim=True).expand(-1, 8, 1, 1), 2),
    "of_tokens": (lambda x: x.flatten(2).transpose(1, 2).mean(1), 2),
}


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def outputs(path, x):
    session = open_session(path, 1)
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


@pytest.mark.parametrize("name", [*POOLED, *OTHERS])
@pytest.mark.parametrize("dynamic", [True, False])
def test_only_means_over_all_pixels_are_pooled_and_the_outputs_stay(tmp_path, name, dynamic):
    average, dims = {**POOLED, **OTHERS}[name]
    network, x = Averaged(average, dims).eval(), torch.rand(5, 3, *[6] * dims)
    if name == "of_rows":
        network.head, network.conv = nn.Linear(8, 4), nn.Conv2d(3, 8, 3)
    export_onnx(network, x, tmp_path / "a.onnx", dynamic_batch=dynamic)
    assert ("GlobalAveragePool" in operators(tmp_path / "a.onnx")) == (name in POOLED)
    onnx.checker.check_model(onnx.load(tmp_path / "a.onnx"), full_check=True)
    np.testing.assert_allclose(outputs(tmp_path / "a.onnx", x), network(x).detach().numpy(), atol=1e-6)


def test_a_mean_that_is_the_whole_output_keeps_its_name(tmp_path):
    network, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(2, 3, 6, 6)
    export_onnx(network, x, tmp_path / "a.onnx")
    (output,) = onnx.load(tmp_path / "a.onnx").graph.output
    assert output.name == "logits"


@pytest.mark.parametrize("name", ["adaptive", "mean", "mean_kept"])
def test_the_average_of_a_quantized_network_is_computed_in_integers(tmp_path, name):
    torch.manual_seed(0)
    network, x = Averaged(POOLED[name][0]).eval(), torch.rand(32, 3, 6, 6)
    quantized = quantize(network, [(x, torch.zeros(32))], batches=1, progress=False)
    export_onnx(quantized, x, tmp_path / "a.onnx")
    assert all(operator.integer for operator in inspect_onnx(tmp_path / "a.onnx"))
    expected = quantized(x).detach().numpy()
    apart = np.abs(outputs(tmp_path / "a.onnx", x) - expected)
    assert apart.max() <= 0.05 * np.abs(expected).max()
