"""Runtimes by name: each runs the same file, and refuses what it cannot run in one sentence."""

import sys

import numpy as np
import pytest
import torch
from networks import cnn
from torch import nn

from lit_xai.runtime import runtimes
from lit_xai.runtime.loaded import caller_of
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.runtimes import RUNTIMES, check_runtimes, find_runtime, load_model

X = torch.randn(2, 2, 6, 6)
ONNX_RUNTIMES = [name for name, one in RUNTIMES.items() if ".onnx" in one.suffixes]
every = pytest.mark.parametrize("runtime", ONNX_RUNTIMES)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return cnn().eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_onnx(network, X, path)
    return path


@every
def test_each_computes_what_the_network_does(runtime, network, file):
    model = load_model(file, runtime, threads=1)
    assert {name: spec.shape for name, spec in model.inputs.items()} == {"input": (None, 2, 6, 6)}
    for rows in (1, 2, 7):
        x = torch.randn(rows, 2, 6, 6)
        (found,) = model.run({"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(x), rtol=1e-4, atol=1e-5)
    one = find_runtime(runtime)
    assert model.label.removesuffix(", f32") == f"{one.label} {one.version}"


@every
def test_a_result_is_not_overwritten_by_the_next(runtime, file):
    model = load_model(file, runtime)
    (first,) = model.run({"input": X.numpy()})
    kept = first.copy()
    model.run({"input": (X + 1).numpy()})
    assert np.array_equal(first, kept)


@every
def test_several_inputs_of_several_types(runtime, tmp_path):
    class Two(nn.Module):
        def forward(self, tokens, scale):
            return torch.nn.functional.one_hot(tokens, 5).float().sum(1) * scale

    inputs = {"tokens": torch.tensor([[0, 1], [4, 4]]), "scale": torch.tensor([[2.0], [3.0]])}
    export_onnx(Two(), inputs, tmp_path / "two.onnx")
    model = load_model(tmp_path / "two.onnx", runtime)
    assert {name: spec.dtype for name, spec in model.inputs.items() if spec.dtype} | {"tokens": None} == {
        "tokens": None,
        "scale": np.float32,
    }
    (found,) = caller_of(model, "two.onnx", inputs)()
    assert np.array_equal(found, Two()(**inputs).numpy())
    (by_place,) = caller_of(model, "two.onnx", (inputs["tokens"], inputs["scale"]))()
    assert np.array_equal(by_place, found)


@every
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 3, 6, 6), r"a.onnx does not run on inputs of Tensor\[2, 3, 6, 6\] float32: .*[23].*\.$"),
        (torch.zeros(2, 6), r"a.onnx does not run on inputs of Tensor\[2, 6\] float32: .*\.$"),
        ((X, X), r"inputs expected what the file takes, \['input'\], but got .*\.$"),
    ],
)
def test_shapes_that_do_not_fit(runtime, inputs, message, file):
    with pytest.raises(ValueError, match=message) as error:
        caller_of(load_model(file, runtime), "a.onnx", inputs)()
    assert "\n" not in str(error.value)
    assert "src/" not in str(error.value)  # of the runtime's own code


@every
@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "short", "missing"])
def test_a_damaged_file(runtime, damage, file, tmp_path, capfd):
    path, content = tmp_path / "damaged.onnx", file.read_bytes()
    contents = {"empty": b"", "garbage": b"garbage", "half": content[: len(content) // 2], "short": content[:-9]}
    if damage in contents:
        path.write_bytes(contents[damage])
    with pytest.raises(ValueError, match=r"path expected .*, but .*damaged.onnx.*\.$") as error:
        load_model(path, runtime)
    assert "\n" not in str(error.value)
    assert "src/" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # nor is anything printed beside it


def test_a_file_of_another_runtime(file, tmp_path):
    other = tmp_path / "network.xml"
    other.write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"path expected a file that ONNX Runtime runs, .onnx, but got network.xml:"):
        load_model(other)


def test_names(monkeypatch):
    with pytest.raises(ValueError, match=r"runtime expected one of .*, but got 'onnx-runtime'. Did you mean 'onnxrunt"):
        find_runtime("onnx-runtime")
    with pytest.raises(ValueError, match=r"runtimes\[1\] expected one of .* Did you mean 'openvino'"):
        check_runtimes(["onnxruntime", "OpenVino"])
    for wrong in ("openvino", [], ["openvino", "openvino"], 3):
        with pytest.raises(ValueError, match="runtimes expected a list of names"):
            check_runtimes(wrong)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, file):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    monkeypatch.setattr("lit_xai.network.packages.find_spec", lambda name: None)
    assert not find_runtime("openvino").is_installed
    with pytest.raises(ModuleNotFoundError, match=r'in OpenVINO needs openvino: pip install "lit-xai\[openvino\]"'):
        load_model(file, "openvino")


def test_precisions(file):
    assert find_runtime("onnxruntime").precisions() == ("f32",)
    with pytest.raises(ValueError, match="precision expected one of f32, which ONNX Runtime has on this CPU, but got"):
        load_model(file, precision="bf16")
