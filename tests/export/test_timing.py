"""Files are measured in turn, so that a drift hits all alike."""

import itertools

import torch

from lit_xai.export import timing
from lit_xai.export.timing import alternate_latencies
from lit_xai.runtime.latency import Latency


def test_the_order_the_median_and_the_spread(monkeypatch):
    calls, times = [], itertools.count(1)

    def measure(path, inputs, threads, size, seconds):
        calls.append((path, size, threads))
        return Latency(float(next(times)), 0.1, "a runtime", "a CPU", threads, size)

    monkeypatch.setattr(timing, "measure_latency", measure)  # the clock, which no test can set
    found = alternate_latencies({"fp32": "f", "int8": "i"}, torch.zeros(1), (1, 64), 2, rounds=3)
    assert calls == [("f", 1, 2), ("i", 1, 2)] * 3 + [("f", 64, 2), ("i", 64, 2)] * 3
    assert [found["fp32"][size].milliseconds for size in (1, 64)] == [3, 9]
    assert [found["int8"][size].milliseconds for size in (1, 64)] == [4, 10]
    assert found["fp32"][64] == Latency(9, 1, "a runtime", "a CPU", 2, 64)


def test_of_files(exported):
    files = {"fp32": exported.folder / "model.onnx", "int8": exported.folder / "model.int8.onnx"}
    found = alternate_latencies(files, torch.zeros(1, 1, 8, 8), (1, 8), rounds=1, seconds=0.01)
    assert {name: [*by_size] for name, by_size in found.items()} == {"fp32": [1, 8], "int8": [1, 8]}
    assert all(one.milliseconds > 0 for by_size in found.values() for one in by_size.values())
