"""Latencies are of the right order, repeatable, and say what they were measured with."""

import re
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from networks import cnn
from refusals import refused
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.models import ResNet
from lit_xai.runtime.latency import Latency, cpu_name, measure_latency, network_latency
from lit_xai.runtime.onnx import export_onnx

X = torch.randn(2, 2, 6, 6)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_onnx(ResNet(8, width=16, in_channels=1), torch.zeros(2, 1, 28, 28), path)
    return path


def test_agrees_with_a_stopwatch(resnet):
    x = torch.randn(16, 1, 28, 28)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(resnet, options)
    feed, times = {session.get_inputs()[0].name: x.numpy()}, []
    for _ in range(40):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(1e3 * (time.perf_counter() - start))
    found = measure_latency(resnet, x, seconds=0.2)
    assert 0.5 < found.milliseconds / np.median(times) < 2  # other processes run beside this one
    assert 0 <= found.spread < found.milliseconds
    assert (found.threads, found.batch_size, found.cpu) == (1, 16, cpu_name())
    assert found.runtime == f"ONNX Runtime {onnxruntime.__version__}"


def test_in_openvino(resnet):
    x = torch.randn(2, 1, 28, 28)
    found = measure_latency(resnet, x, threads=1, batch_size=4, seconds=0.1, runtime="openvino")
    assert (found.threads, found.batch_size, found.cpu) == (1, 4, cpu_name())
    assert re.fullmatch(r"OpenVINO [\d.]+, f32", found.runtime)
    assert 0 < found.milliseconds <= found.p95
    of_network = network_latency(cnn(), X, batch_size=3, runtime="openvino")
    assert (of_network.runtime, of_network.batch_size) == (found.runtime, 3)
    with refused("runtime expected one of onnxruntime, openvino, executorch"):
        measure_latency(resnet, x, runtime="tensorrt")
    with refused("runtime expected one of onnxruntime, openvino, executorch"):
        network_latency(cnn(), X, runtime="tensorrt")


def test_more_samples_take_longer(resnet):
    x = torch.randn(2, 1, 28, 28)
    one, many = (measure_latency(resnet, x, batch_size=n, seconds=0.1) for n in (1, 32))
    assert (one.batch_size, many.batch_size) == (1, 32)
    assert many.milliseconds > 4 * one.milliseconds


def test_takes_about_the_time_it_is_given(resnet):
    start = time.perf_counter()
    measure_latency(resnet, torch.randn(1, 1, 28, 28), seconds=0.2)
    assert 0.2 < time.perf_counter() - start < 3  # on a busy machine


def test_slow_networks_are_called_a_few_times(resnet, monkeypatch):
    calls, session_run = [], onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *args: calls.append(1) or session_run(*args))
    measure_latency(resnet, torch.randn(1, 1, 28, 28), batch_size=256, seconds=0.001)
    assert len(calls) == 1 + 3


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_few_repeats(resnet, repeats):
    found = measure_latency(resnet, torch.randn(1, 1, 28, 28), repeats=repeats, seconds=1e-6)
    assert found.milliseconds > 0
    assert found.spread >= 0
    assert repeats > 1 or found.spread == 0


def test_of_a_network_and_nothing_is_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    network = cnn().train()
    before = digest([module_state(network), rng_state()])
    found = network_latency(network, X, batch_size=5)
    assert digest([module_state(network), rng_state()]) == before
    assert not any(tmp_path.iterdir())
    assert found.batch_size == 5
    assert re.fullmatch(r"[\d.]+ ms ± [\de.-]+ \(ONNX Runtime [\d.]+, 1 thread, batch 5, .+\)", str(found)), found


def parameters(path: Path) -> np.float32:
    """A stand-in for a measurement on a device: the file's length."""
    return np.float32(path.stat().st_size)


def test_any_function_measures():
    found = network_latency(cnn(), X, measure=parameters, threads=2, batch_size=8)
    assert found == Latency(found.milliseconds, 0.0, "parameters", cpu_name(), 2, 8)
    assert str(found).endswith(f"(parameters, 2 threads, batch 8, {cpu_name()})")
    assert "±" not in str(found)
    path = network_latency(cnn(), X, measure="os.path.getsize", batch_size=8)
    assert path.milliseconds == found.milliseconds
    assert path.runtime == "getsize"


def test_the_file_has_the_batch_size():
    def rows(path):
        return onnxruntime.InferenceSession(path).get_inputs()[0].shape[0]

    assert network_latency(cnn(), X, measure=rows, batch_size=3).milliseconds == 3


@pytest.mark.parametrize("found", [0, -1.0, float("nan"), float("inf"), "3", None, True])
def test_measurements_that_are_none(found):
    with refused("measure=", "milliseconds", repr(found)):
        network_latency(nn.Linear(2, 2), torch.zeros(1, 2), measure=lambda path: found)


def test_refusals(resnet, tmp_path, capfd):
    x = torch.zeros(1, 1, 28, 28)
    for name in ("threads", "batch_size"):
        for value in (0, -1, 1.5, True):
            with refused(f"{name} expected", repr(value)):
                measure_latency(resnet, x, **{name: value})
            with refused(f"{name} expected", repr(value)):
                network_latency(cnn(), X, **{name: value})
    (tmp_path / "text.onnx").write_text("no network")
    (tmp_path / "empty.onnx").write_text("")
    for name in ("text.onnx", "empty.onnx", "missing.onnx", "."):
        with refused("path expected an ONNX file", name):
            measure_latency(tmp_path / name, x)
    with refused("does not run on inputs of", "Tensor[1, 3, 28, 28]"):
        measure_latency(resnet, torch.zeros(1, 3, 28, 28))
    with refused("inputs expected", "Tensor[1]"):
        measure_latency(resnet, (torch.zeros(1), torch.zeros(1)))
    with refused("measure expected", "'nothing'"):
        network_latency(cnn(), X, measure="nothing")
    with refused("measure expected", "3"):
        network_latency(cnn(), X, measure=3)
    assert capfd.readouterr() == ("", "")
