"""OpenVINO: floats in float32 unless asked otherwise, integers for real, imported in one place, and silent."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from networks import Tokens
from silence import PACKAGE, SECONDS, cut_network, environment, imports, looked_up
from torch import nn

from lit_xai.export.inference import write_inference
from lit_xai.models import ResNet
from lit_xai.quantization.quantization import quantize
from lit_xai.runtime import openvino
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.openvino import TELEMETRY, import_openvino, precisions
from lit_xai.runtime.runtimes import find_runtime, load_model

X = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))
OURS = "from lit_xai.runtime.openvino import import_openvino; openvino = import_openvino()"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ResNet(8, width=16, in_channels=1).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(network, X, folder / "float.onnx")
    for cpu in ("any", "vnni"):
        export_onnx(quantize(network, [X], cpu=cpu, progress=False), X, folder / f"{cpu}.onnx")
    return folder


def used(model) -> str:
    """Return what OpenVINO itself says that it computes floats in."""
    return model.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()


def test_floats_are_in_float32_whatever_its_default_is(files, network):
    model = load_model(files / "float.onnx", "openvino")
    assert used(model) == "f32"
    assert model.label.endswith(", f32")
    torch.testing.assert_close(torch.from_numpy(model.run({"input": X.numpy()})[0]), network(X), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif("bf16" not in precisions(), reason="this CPU has no bfloat16")
def test_bfloat16_where_asked_for(files, network):
    model = load_model(files / "float.onnx", "openvino", precision="bf16")
    found, expected = torch.from_numpy(model.run({"input": X.numpy()})[0]), network(X)
    assert (used(model), model.label[-6:]) == ("bf16", ", bf16")
    # 8 bits of mantissa: differences of about a part in 256, which float32 has not.
    apart = float((found - expected).abs().max() / expected.abs().max())
    assert 1e-5 < apart < 0.05


def test_a_precision_that_the_cpu_has_not(files, monkeypatch):
    monkeypatch.setattr(openvino, "precisions", lambda: ("f32",))
    with pytest.raises(ValueError, match="precision expected one of f32, which OpenVINO has on this CPU"):
        load_model(files / "float.onnx", "openvino", precision="bf16")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(files, threads):
    model = load_model(files / "float.onnx", "openvino", threads)
    assert model.compiled.get_property("INFERENCE_NUM_THREADS") == threads


@pytest.mark.parametrize("cpu", ["any", "vnni"])
def test_a_quantized_file_runs_in_integers(files, network, cpu):
    operators = find_runtime("openvino").operators(files / f"{cpu}.onnx")
    layers = {name for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    products = [one for one in operators if one.kind in ("convolution", "matrix product")]  # averages: by the CPU
    assert {one.layer for one in products} == layers
    assert all(one.integer for one in products)
    assert not any(one.integer for one in find_runtime("openvino").operators(files / "float.onnx"))


def test_kinds_of_a_network_with_attention(tmp_path):
    inputs = torch.randint(0, 10, (2, 6))
    torch.manual_seed(0)
    export_onnx(Tokens().eval(), inputs, tmp_path / "tokens.onnx")
    found, theirs = (find_runtime(name).operators(tmp_path / "tokens.onnx") for name in ("openvino", "onnxruntime"))
    products = [Counter(one.layer for one in group if one.kind == "matrix product") for group in (found, theirs)]
    assert products[0] == products[1]


def test_its_own_files(files, tmp_path):
    ov = import_openvino()
    ov.save_model(ov.Core().read_model(str(files / "any.onnx")), str(tmp_path / "model.xml"))
    theirs = load_model(files / "any.onnx", "openvino").run({"input": X.numpy()})[0]
    found = load_model(tmp_path / "model.xml", "openvino").run({"input": X.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(theirs))
    (tmp_path / "model.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"path expected a file that OpenVINO reads, but got .*model.xml: Incorrect"):
        load_model(tmp_path / "model.xml", "openvino")
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(ValueError, match="path expected a file that OpenVINO reads"):
        load_model(tmp_path / "model.xml", "openvino")


def test_one_file_imports_it():
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "benchmarks").glob("*.py")]
    found = [file for file in files if any(name.split(".")[0] == "openvino" for name in imports(file))]
    assert {file.name for file in found} <= {"openvino.py", "infer_template.py"}


def test_its_telemetry_is_not_loaded_and_stays_importable():
    code = f"import sys; {OURS}; assert '{TELEMETRY}' not in sys.modules; import {TELEMETRY}; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_an_earlier_import_is_told_once(monkeypatch):
    import_openvino.cache_clear()
    monkeypatch.setitem(sys.modules, TELEMETRY, os)
    with pytest.warns(UserWarning, match="openvino was imported before lit_xai could keep it from"):
        import_openvino()
    import_openvino()  # a warning is an error here


RUN = """
import sys, time
{imports}
core = openvino.Core()
core.compile_model(sys.argv[1], "CPU")
time.sleep({seconds})
"""


@pytest.fixture(scope="module")
def script(files):
    write_inference(files, {"any.onnx": 0.05}, X)
    return f"sys.path.insert(0, {str(files)!r}); import infer; infer.load(runtime='openvino'); import openvino"


@pytest.mark.slow
@cut_network
@pytest.mark.parametrize(("code", "expected"), [("import openvino", True), (OURS, False), ("infer.py", False)])
def test_it_looks_up_nothing_and_writes_nothing(code, expected, files, script, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    program = RUN.format(imports=script if code == "infer.py" else code, seconds=SECONDS)
    names = looked_up(tmp_path, sys.executable, "-c", program, Path(files / "any.onnx"))
    assert bool(names) is expected, names  # the first shows that the name server sees it
    assert expected or [*home.rglob("*")] == []
