"""What was found reads as text and as JSON."""

import json

import pytest

from lit_xai.export.report import ExportReport, Row, count_integers, gains, report_table, slower_warnings, write_report
from lit_xai.runtime.inspection import Operator
from lit_xai.runtime.latency import Latency


def latency(ms, spread=0.0, size=64):
    return Latency(ms, spread, "ONNX Runtime 1", "a CPU", 1, size)


def rows(fp32, int8):
    return [Row("fp32", latency={64: fp32}), Row("int8", latency={64: int8})]


@pytest.mark.parametrize(
    ("fp32", "int8", "warned"),
    [
        (latency(2.0), latency(1.0), False),
        (latency(1.0), latency(1.0), False),
        (latency(1.0), latency(2.0), True),
        (latency(1.0, 0.2), latency(1.1, 0.1), False),  # within what the same file scatters
        (latency(1.0, 0.1), latency(1.4, 0.2), True),
        (latency(1.0, 0.2), latency(1.3, 0.2), False),
    ],
)
def test_slower_is_said(fp32, int8, warned):
    found = slower_warnings(rows(fp32, int8), "fp32", "int8")
    assert len(found) == warned
    assert all("SLOWER than fp32 at batch 64" in sentence for sentence in found)


def test_without_int8_or_a_reference_nothing_is_slower():
    assert slower_warnings([Row("int8", latency={1: latency(1.0)})], "fp32", "int8") == []
    assert slower_warnings([Row("fp32", latency={1: latency(1.0)})], "fp32", "int8") == []


def test_missing_values_are_dashes():
    table = report_table([Row("fp32", 0.5, 1.0, 1e-7, 1.0, 300, {1: latency(0.1)}), Row("torch")], "MulticlassF1Score")
    assert table.splitlines()[-1].replace(" ", "") == "|torch|-|-|-|-|-|-|"
    assert "| 1 kB |" in table
    assert len({len(line) for line in table.splitlines()}) == 1


def test_text_and_json(tmp_path):
    operators = Operator("convolution", "QLinearConv", "conv1", True), Operator("sum", "Add", "conv1 + input", False)
    report = ExportReport(
        *(tmp_path, (), tuple(rows(latency(1.0), latency(2.0)))),
        warnings=("int8 is SLOWER.",),
        integer_operators=operators[:1],
        float_operators=operators[1:],
        samples=7,
        source="epoch 3, größer",
        quantization={"weights": "7 bits", "activations": "8 bits"},
    )
    text = str(report)
    for part in ("Warning: int8 is SLOWER.", "7 samples", "größer", "1 of 1 convolutions", "conv1 + input (Add)"):
        assert part in text
    write_report(report, tmp_path, {"more": 1})
    assert text in (tmp_path / "report.md").read_text(encoding="utf-8")
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read["rows"][1]["latency"]["64"]["ms"] == 2.0
    assert read["operators"]["integer"][0]["layer"] == "conv1"
    assert (read["more"], read["source"], read["warnings"]) == (1, "epoch 3, größer", ["int8 is SLOWER."])


def test_nothing_to_count():
    assert count_integers([], []) == "nothing"


def test_epochs_macs_and_spreads_are_shown_where_they_are_known():
    rows = [
        Row("dense", epoch=-1, macs=12_000_000, latency={64: latency(9.0, 0.21)}),
        Row("int8", epoch=16, macs=3_000_000, latency={64: latency(1.25)}),
    ]
    lines = report_table(rows, "acc").splitlines()
    header, _, *cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    dense, int8 = (dict(zip(header, row, strict=True)) for row in cells)
    assert (dense["ms, batch 64"], dense["epoch"], dense["MACs"]) == ("9 ± 0.2", "start", "12 M")
    assert (int8["ms, batch 64"], int8["epoch"], int8["MACs"]) == ("1.25", "16", "3.0 M")


def test_gains_are_those_over_the_dense_network():
    dense, int8 = Row("dense", bytes=900, latency={1: latency(3.0), 64: latency(9.0)}), {64: latency(3.0)}
    assert gains([dense, Row("int8", latency=int8)]) == ["Against dense, int8 is at batch 64 3 times as fast."]
    assert gains([dense, Row("int8", bytes=300, latency=int8)]) == [
        "Against dense, int8 is 3 times as small and at batch 64 3 times as fast."
    ]
    assert gains([Row("fp32", latency={64: latency(9.0)}), Row("int8", latency={64: latency(3.0)})]) == []
    assert gains([Row("dense")]) == gains([Row("dense"), Row("int8")]) == []
