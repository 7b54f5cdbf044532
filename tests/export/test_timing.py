"""Files are measured in turn, so that a drift hits all alike."""

import itertools

import pytest
import torch

from lit_xai.export import timing as export_timing
from lit_xai.export.timing import Candidate, alternate_latencies
from lit_xai.runtime import timing
from lit_xai.runtime.latency import Latency, cpu_name
from lit_xai.runtime.loaded import InputSpec


def test_the_order_the_median_and_the_spread(monkeypatch):
    calls, times = [], itertools.count(1)

    class Model:
        label, inputs = "a runtime", {"input": InputSpec((None,))}

        def __init__(self, path, runtime, threads, precision):
            self.name = path, runtime, precision, threads

        def run(self, arrays):
            calls.append((self.name, len(arrays["input"])))
            return (arrays["input"],)

    def time_calls(run, repeats, seconds):
        run()
        return [[float(next(times))]]

    monkeypatch.setattr(export_timing, "load_model", Model)
    monkeypatch.setattr(timing, "time_calls", time_calls)  # the clock, which no test can set
    other = Candidate("i", "openvino", "bf16", 2)
    found = alternate_latencies({"fp32": "f", "int8": other}, torch.zeros(1), (1, 64), 2, rounds=3)
    f, i = ("f", "onnxruntime", "f32", 2), ("i", "openvino", "bf16", 2)
    assert calls == [(name, size) for size in (1, 64) for name in (f, i) * 3]
    assert [found["fp32"][size].milliseconds for size in (1, 64)] == [3, 9]
    assert [found["int8"][size].milliseconds for size in (1, 64)] == [4, 10]
    assert found["fp32"][64] == Latency(9, 1, "a runtime", cpu_name(), 2, 64, pytest.approx(10.8))


def test_of_files(exported):
    files = {"fp32": exported.folder / "model.onnx", "int8": exported.folder / "model.int8.onnx"}
    found = alternate_latencies(files, torch.zeros(1, 1, 8, 8), (1, 8), rounds=1, seconds=0.01)
    assert {name: [*by_size] for name, by_size in found.items()} == {"fp32": [1, 8], "int8": [1, 8]}
    assert all(one.milliseconds > 0 for by_size in found.values() for one in by_size.values())
