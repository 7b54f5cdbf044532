"""Files as networks: they answer and are explained as what they were written from."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.functional import FileNetwork, attribute, measure_retention, quantize
from lit_xai.runtime.onnx import export_onnx


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3)).eval()
    path = tmp_path_factory.mktemp("file") / "model.onnx"
    export_onnx(network, torch.zeros(1, 1, 12, 12), path)
    return network, path


X = torch.randn(40, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def test_it_answers_as_the_network(pair):
    network, path = pair
    file = FileNetwork(path, threads=1)
    assert torch.allclose(file(X), network(X), atol=1e-5)
    assert torch.equal(copy.deepcopy(file)(X), file(X))
    assert list(file.parameters()) == []
    assert str(path) in repr(file)


@pytest.mark.parametrize("method", ["Occlusion", "FeatureAblation", "KernelShap"])
def test_it_is_explained_as_the_network(pair, method):
    network, path = pair
    options = {"feature_mask": 4}
    if method == "Occlusion":
        options = {"sliding_window_shapes": (1, 4, 4), "strides": (1, 4, 4)}
    maps = [
        attribute(one, X[:4], method=method, target=1, attribute_args=options) for one in (network, FileNetwork(path))
    ]
    assert torch.allclose(*maps, atol=1e-4)


def test_gradients_are_refused(pair):
    with pytest.raises(ValueError, match="FileNetwork's output cannot be differentiated"):
        attribute(FileNetwork(pair[1]), X, target=1)


def test_an_int8_file_is_explained_as_its_fake_quantized_network(pair, tmp_path):
    network, _ = pair
    quantized = quantize(network, [X], progress=False)
    export_onnx(quantized, X[:1], tmp_path / "int8.onnx")
    options = {"explainer": "Occlusion", "nulls": 3, "ladder": ()}
    fake = measure_retention(network, quantized, X, **options)
    file = measure_retention(network, FileNetwork(tmp_path / "int8.onnx"), X, **options)
    assert file.similarity == pytest.approx(fake.similarity, abs=0.005)
    assert 0.9 < file.similarity < 1


def test_other_inputs_are_refused(pair, tmp_path):
    file = FileNetwork(pair[1])
    with pytest.raises(ValueError, match="expected its inputs"):
        file(X, X)
    with pytest.raises(ValueError, match="does not run on inputs of dict"):
        file(torch.zeros(2, 3, 12, 12))
    with pytest.raises(ValueError, match="path expected an ONNX file"):
        FileNetwork(tmp_path / "nothing.onnx")


def test_several_inputs_by_name_and_place(tmp_path):
    class Two(nn.Module):
        def forward(self, left, right):
            return left - right

    export_onnx(Two(), {"left": torch.zeros(1, 3), "right": torch.zeros(1, 3)}, tmp_path / "two.onnx")
    file, left, right = FileNetwork(tmp_path / "two.onnx"), torch.randn(5, 3), torch.randn(5, 3)
    for found in (file(left, right), file(right=right, left=left), file(left, right=right)):
        assert torch.allclose(found, left - right)
