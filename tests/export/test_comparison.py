"""Files in several runtimes: each agrees with its network, and the sentence names what the table shows."""

import json
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from lit_xai.export import comparison, deployments, export_model, variants
from lit_xai.export.comparison import RuntimeRow, advise, all_threads, runtime_table
from lit_xai.export.fresh import measure_start
from lit_xai.export.model import renamed_batches
from lit_xai.runtime.latency import Latency
from lit_xai.runtime.openvino import precisions
from lit_xai.runtime.runtimes import RUNTIMES, Runtime, find_runtime

OPTIONS = {"progress": False, "program": False, "batch_sizes": (1, 4)}
KINDS = [("model.onnx", precision) for precision in precisions()] + [("model.int8.onnx", "f32")]


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    options = {**OPTIONS, "runtimes": ["onnxruntime", "openvino"], "quantized": trained.quantized}
    return export_model(trained.network, trained.loader, folder / "export", **options)


def test_every_file_in_every_runtime_on_one_thread_and_on_all(report):
    threads = list(dict.fromkeys((1, all_threads())))
    expected = {("model.onnx", "ONNX Runtime", "f32"), ("model.int8.onnx", "ONNX Runtime", "f32")}
    expected |= {(file, "OpenVINO", precision) for file, precision in KINDS}
    assert {(row.file, row.runtime, row.precision) for row in report.runtimes} == expected
    assert len(report.runtimes) == len(expected) * len(threads)
    for row in report.runtimes:
        assert {size: one.threads for size, one in row.latency.items()} == {1: row.threads, 4: row.threads}
        assert all(one.milliseconds > 0 and one.p95 > 0 for one in row.latency.values())
        assert row.runtime in row.latency[1].runtime
        assert row.opset == report.versions["opset"]
        assert row.runtime != "OpenVINO" or row.latency[1].runtime.endswith(row.precision)


def test_agreement_and_metric_against_torch(report, trained):
    with torch.no_grad():
        predicted = trained.quantized(trained.images).argmax(1), trained.network(trained.images).argmax(1)
    for row in report.runtimes:
        assert row.agreement > 0.98
        truth = predicted[row.file == "model.onnx"]
        assert row.metric == pytest.approx((truth == trained.labels).float().mean().item(), abs=0.02)


def test_load_time_and_memory_are_of_a_new_process(report):
    once = [row for row in report.runtimes if row.threads == 1]
    assert all(0 < row.load_ms < 60_000 for row in once)
    assert all(row.peak_mb is None or 0 < row.peak_mb < 2_000 for row in once)  # None: not on Linux


def test_the_main_table_has_the_same_latencies(report):
    """One measurement each, or the two tables would contradict one another."""
    rows = {row.name: row.latency for row in report.rows if row.latency}
    for row in report.runtimes:
        name = f"{'int8' if 'int8' in row.file else 'fp32'} ({row.runtime})"
        if row.threads == 1 and name in rows:
            assert rows[name] == row.latency


def test_the_report_says_all_of_it(report):
    text = (report.folder / "report.md").read_text()
    assert runtime_table(report.runtimes, "accuracy") in text
    assert report.advice in text
    assert re.search(r"In integers in OpenVINO: 9 of 9 convolutions", text)
    data = json.loads((report.folder / "report.json").read_text())
    assert len(data["runtimes"]) == len(report.runtimes)
    assert data["runtimes"][0]["latency"]["1"]["p95"] > 0
    assert data["advice"] == report.advice


def test_one_runtime_is_compared_with_nothing(exported):
    assert exported.report.runtimes == ()
    assert exported.report.advice == ""


def test_what_is_not_installed_is_one_line(trained, tmp_path, monkeypatch):
    missing = Runtime("no_such_runtime", "No Runtime", "none", (".onnx",), "nowhere")
    monkeypatch.setitem(RUNTIMES, "no_such_runtime", missing)
    report = export_model(trained.network, trained.loader, tmp_path, runtimes=["no_such_runtime"], **OPTIONS)
    assert report.runtimes == ()
    assert report.notes[-1] == ('No Runtime is not installed, so it is not compared: pip install "lit-xai[none]".')


def test_a_runtime_that_computes_something_else_is_refused(trained, tmp_path, monkeypatch):
    class Wrong(variants.FilePredictor):
        def __init__(self, path, threads=1, runtime="onnxruntime", precision="f32"):
            super().__init__(path, threads, runtime, precision)
            self.is_wrong = runtime == "openvino" and precision == "f32" and "int8" in path.name

        def __call__(self, inputs):
            return super().__call__(inputs).roll(1, 1) if self.is_wrong else super().__call__(inputs)

    monkeypatch.setattr(variants, "FilePredictor", Wrong)
    options = {**OPTIONS, "runtimes": ["openvino"], "quantized": trained.quantized}
    with refused("model.int8.onnx in OpenVINO expected what the quantized network computes", "99% equal"):
        export_model(trained.network, trained.loader, tmp_path / "a", **options)
    assert not any(tmp_path.iterdir())


def test_refusals(trained, tmp_path):
    for arguments, *said in (
        (
            {"runtimes": ["openvno"]},
            "runtimes[0] expected one of onnxruntime, openvino, executorch",
            "Did you mean 'openvino'?",
        ),
        ({"runtimes": "openvino"}, "runtimes expected a list of names"),
        ({"batch_sizes": 64}, "batch_sizes expected a list of positive integers, but got 64"),
        ({"batch_sizes": (1, True)}, "batch_sizes[1] expected a positive integer, but got True"),
    ):
        with refused(*said):
            export_model(trained.network, trained.loader, tmp_path / "export", **{**OPTIONS, **arguments})
    assert not any(tmp_path.iterdir())


def test_the_former_name_of_the_batch_sizes():
    with pytest.warns(FutureWarning, match="latency_batches is now batch_sizes"):
        assert renamed_batches((1, 64), (8,)) == (8,)


def test_a_process_that_fails_costs_the_table_two_cells(tmp_path):
    assert measure_start(tmp_path, "model.onnx", "onnxruntime", "f32", {}, {}) is None


def row(file, runtime, threads, precision="f32", **times):
    latency = {
        int(size[1:]): Latency(*given, runtime, "a CPU", threads, int(size[1:])) for size, given in times.items()
    }
    return RuntimeRow(file, runtime, precision, threads, latency)


def test_the_sentence():
    rows = [
        row("model.onnx", "ONNX Runtime", 1, b1=(1.0, 0.0), b64=(80.0, 1.0)),
        row("model.onnx", "ONNX Runtime", 2, b1=(0.8, 0.0), b64=(50.0, 1.0)),
        row("model.onnx", "OpenVINO", 1, "bf16", b1=(0.6, 0.0), b64=(40.0, 1.0)),
        row("model.onnx", "OpenVINO", 2, "bf16", b1=(0.3, 0.0), b64=(5.0, 0.1)),
        row("model.int8.onnx", "OpenVINO", 1, b1=(0.7, 0.0), b64=(20.0, 1.0)),
        row("model.int8.onnx", "OpenVINO", 2, b1=(0.6, 0.0), b64=(10.0, 1.0)),
    ]
    assert advise(rows) == (
        "On 1 thread, model.onnx in OpenVINO in bf16 is the fastest at batch 1, 1.7 times as fast as model.onnx in ONNX"
        " Runtime, and model.int8.onnx in OpenVINO is the fastest at batch 64, 4 times as fast as model.onnx in ONNX"
        " Runtime; on 2 threads, model.onnx in OpenVINO in bf16 is the fastest at batch 1 and batch 64, 2.7 and 10"
        " times as fast as model.onnx in ONNX Runtime."
    )
    assert advise(rows[:1]) == "On 1 thread, model.onnx in ONNX Runtime is the fastest at batch 1 and batch 64."
    assert advise([]) == ""
    # As fast, within the spreads: the first of the table, which changes less.
    tied = [row("model.onnx", "ONNX Runtime", 1, b1=(1.0, 0.2)), row("model.onnx", "OpenVINO", 1, b1=(0.97, 0.1))]
    assert advise(tied).startswith("On 1 thread, model.onnx in ONNX Runtime is the fastest")


@given(st.lists(st.tuples(st.floats(0.01, 1e3), st.floats(0, 1)), min_size=1, max_size=6))
def test_nothing_is_faster_than_what_the_sentence_names(times):
    rows = [row(f"{i}.onnx", "R", 1, b8=(ms, spread * ms)) for i, (ms, spread) in enumerate(times)]
    named = int(re.search(r"(\d+)\.onnx in R is the fastest", advise(rows))[1])
    chosen = rows[named].latency[8]
    best = min((one.latency[8] for one in rows), key=lambda one: one.milliseconds)
    assert chosen.milliseconds <= 1.05 * best.milliseconds
    assert chosen == best or chosen.milliseconds - best.milliseconds <= chosen.spread + best.spread


def test_the_deployments_of_a_folder(tmp_path):
    both = [find_runtime("onnxruntime"), find_runtime("openvino")]
    assert deployments.find_deployments(tmp_path, both) == ()
    (tmp_path / "model.int8.onnx").write_bytes(b"")
    found = [str(one) for one in deployments.find_deployments(tmp_path, both)]
    assert found == ["model.int8.onnx in ONNX Runtime", "model.int8.onnx in OpenVINO"]


def test_a_start_without_memory_is_left_out(monkeypatch, report):
    table = runtime_table([RuntimeRow("a", "R", "f32", 1, {}, load_ms=math.pi)], "accuracy")
    assert "peak" not in table
    assert "| 3 |" in re.sub(" +", " ", table)
    assert comparison.all_threads() >= 1
