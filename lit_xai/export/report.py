"""The report of an export: a table of variants, and the operators that run in integers."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_xai.export.comparison import RuntimeRow, advise, runtime_table
from lit_xai.export.layer_blame import LayerBlame
from lit_xai.export.versions import fingerprints
from lit_xai.quantization.quantization import IN_FLOAT
from lit_xai.render.summary import markdown_table, write_number
from lit_xai.runtime.inspection import Operator
from lit_xai.runtime.latency import Latency


@dataclass(frozen=True)
class Row:
    """One variant of the network.

    Args:
        name: such as ``"int8 (ONNX Runtime)"``.
        metric: its value over the loader.
        agreement: the share of predictions equal to those of the fp32 file.
        difference: of a file, the largest difference from torch's outputs, relative to the largest output.
        torch_agreement: of a file, the share of predictions equal to torch's.
        bytes: the size of its file.
        latency: by batch size.
        epoch: the last epoch that its weights were trained in, from 0; -1 for those from before the first.
        macs: multiply-accumulates for one sample.
    """

    name: str
    metric: float | None = None
    agreement: float | None = None
    difference: float | None = None
    torch_agreement: float | None = None
    bytes: int | None = None
    latency: dict[int, Latency] = field(default_factory=dict)
    epoch: int | None = None
    macs: int | None = None


@dataclass(frozen=True)
class ExportReport:
    """The files that :func:`~lit_xai.export.export_model` wrote and its measurements; ``str`` gives them as text.

    Args:
        folder: the folder of the files.
        files: their paths.
        rows: one per variant.
        warnings: one sentence each.
        integer_operators: the operators of the int8 file that ONNX Runtime executes in integers.
        float_operators: those that it executes in float.
        metric: the metric's name.
        samples: the number of samples it was measured on.
        source: where the weights come from.
        quantization: from :func:`~lit_xai.quantization.quantization.describe_quantization`.
        versions: of the packages that wrote and ran the files.
        notes: sentences on what the table leaves out.
        runtimes: the files in several runtimes, where more than one was asked for.
        integers: how many operators run in integers in runtimes other than ONNX Runtime, in words by their names.
        blame: the layers that cost most in integers, where there is an int8 file.
    """

    folder: Path
    files: tuple[Path, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()
    integer_operators: tuple[Operator, ...] = ()
    float_operators: tuple[Operator, ...] = ()
    metric: str = "accuracy"
    samples: int = 0
    source: str = ""
    quantization: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    runtimes: tuple[RuntimeRow, ...] = ()
    integers: dict[str, str] = field(default_factory=dict)
    blame: LayerBlame | None = None

    def __str__(self) -> str:
        parts = [f"Warning: {warning}" for warning in self.warnings]
        parts += [report_table(self.rows, self.metric), *self._sentences()]
        if self.runtimes:
            parts += [runtime_table(self.runtimes, self.metric), self.advice]
        return "\n\n".join(parts)

    @property
    def advice(self) -> str:
        """Which file to run in which runtime, in a sentence; empty where one runtime alone was measured."""
        return advise(self.runtimes, self.runtimes[0].threads) if self.runtimes else ""

    def _sentences(self) -> list[str]:
        sentences = [*gains(self.rows), *self.notes]
        sentences += [f"Weights: {self.source}."] if self.source else []
        sentences += [f"Measured on {self.samples} samples{self._machine()}."]
        if self.quantization:
            sentences += [
                f"Quantized: weights {self.quantization['weights']}; activations {self.quantization['activations']}."
            ]
            counted = count_integers(self.integer_operators, self.float_operators)
            sentences += [
                "Weights are stored as integers, and the file rounds no activation: how to multiply with them is the"
                " runtime's choice."
                if self.quantization["activations"] == IN_FLOAT
                else f"In integers in ONNX Runtime: {counted}."
            ]
        sentences += [f"In integers in {runtime}: {counted}." for runtime, counted in self.integers.items()]
        floats = [str(operator) for operator in self.float_operators]
        sentences += [f"In float: {', '.join(floats)}."] if floats else []
        return sentences + ([str(self.blame)] if self.blame is not None else [])

    def _machine(self) -> str:
        # All were measured on one machine in one session, so any of them will do.
        latency = next((one for row in self.rows for one in row.latency.values()), None)
        if latency is None:
            return ""
        threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
        spread = ", median ± half the interquartile range" if latency.spread else ""
        return f"; latency in {latency.runtime}, {threads}, {latency.cpu}{spread}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, which JSON can hold."""
        operators = {"integer": self.integer_operators, "float": self.float_operators}
        return {
            "source": self.source,
            "metric": self.metric,
            "samples": self.samples,
            "rows": [_row_to_dict(row) for row in self.rows],
            "warnings": [*self.warnings],
            "notes": [*self.notes],
            "runtimes": [row.to_dict() for row in self.runtimes],
            "advice": self.advice,
            "operators": {name: [vars(operator) for operator in group] for name, group in operators.items()},
            "quantization": self.quantization,
            "versions": self.versions,
            "layers": None if self.blame is None else self.blame.to_dict(),
        }


def report_table(rows: Sequence[Row], metric: str) -> str:
    """Return one line per variant, as a markdown table that is aligned as plain text too.

    The column "epoch" is the last one that the weights were trained in, "start" for those from before the first, and
    "differs by" is the largest difference of a file's outputs from torch's, relative to the largest output. Epochs and
    MACs are left out where no row has them.

    Example:
        >>> rows = [Row("fp32", 0.91, 1.0, 2e-7, 1.0, 375000), Row("int8", 0.908, 0.9972, 0.012, 0.9998, 106000)]
        >>> print(report_table(rows, "accuracy"))
        |      | accuracy | agrees with fp32 | with torch | differs by |   size |
        |:-----|---------:|-----------------:|-----------:|-----------:|-------:|
        | fp32 |   0.9100 |          100.00% |    100.00% |      2e-07 | 375 kB |
        | int8 |   0.9080 |           99.72% |     99.98% |      0.012 | 106 kB |
    """
    sizes = sorted({size for row in rows for size in row.latency})
    columns = {
        "": [row.name for row in rows],
        "epoch": [_epoch(row.epoch) for row in rows],
        metric: [_written(row.metric, ".4f") for row in rows],
        "agrees with fp32": [_written(row.agreement, ".2%") for row in rows],
        "with torch": [_written(row.torch_agreement, ".2%") for row in rows],
        "differs by": [_written(row.difference, ".2g") for row in rows],
        "MACs": ["-" if row.macs is None else write_number("MACs", row.macs).removesuffix(" MACs") for row in rows],
        "size": ["-" if row.bytes is None else f"{max(1, round(row.bytes / 1000))} kB" for row in rows],
    }
    columns |= {f"ms, batch {size}": [_milliseconds(row.latency.get(size)) for row in rows] for size in sizes}
    shown = {name: cells for name, cells in columns.items() if name not in ("epoch", "MACs") or {*cells} - {"-"}}
    return markdown_table([*shown], [*zip(*shown.values(), strict=True)])


def _written(value: float | None, how: str) -> str:
    return "-" if value is None else f"{value:{how}}"


def _epoch(epoch: int | None) -> str:
    return "start" if epoch == -1 else "-" if epoch is None else str(epoch)


def _milliseconds(latency: Latency | None) -> str:
    return "-" if latency is None else latency.cell()


def gains(rows: Sequence[Row]) -> list[str]:
    """Return in words how much smaller and faster the last row is than the first, if that is the dense network.

    Example:
        >>> slow, fast = (Latency(ms, 0.0, "ONNX Runtime", "CPU", 1, 64) for ms in (9.0, 1.2))
        >>> dense = Row("dense (ONNX Runtime)", bytes=5_000_000, latency={64: slow})
        >>> gains([dense, Row("int8", bytes=400_000, latency={64: fast})])
        ['Against dense (ONNX Runtime), int8 is 12.5 times as small and at batch 64 7.5 times as fast.']
    """
    if len(rows) < 2 or not rows[0].name.startswith("dense"):
        return []
    first, last = rows[0], rows[-1]
    parts = [f"{first.bytes / last.bytes:.3g} times as small"] if first.bytes and last.bytes else []
    parts += [
        f"at batch {size} {one.milliseconds / last.latency[size].milliseconds:.3g} times as fast"
        for size, one in first.latency.items()
        if size in last.latency
    ]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
    return [f"Against {first.name}, {last.name} is {listed}."] if parts else []


def numbers_of(rows: Sequence[Row]) -> dict[str, float]:
    """Return size and latency of the last row, by the names that loggers have for them.

    Latency is that of the smallest batch.

    Example:
        >>> fast = {64: Latency(1.2, 0.0, "ONNX Runtime", "CPU", 1, 64)}
        >>> numbers_of([Row("fp32", bytes=5_000_000), Row("int8", bytes=400_000, latency=fast)])
        {'compression/export_kB': 400.0, 'compression/export_ms': 1.2}
    """
    last = rows[-1]
    size = {} if last.bytes is None else {"compression/export_kB": last.bytes / 1000}
    latency = {"compression/export_ms": last.latency[min(last.latency)].milliseconds} if last.latency else {}
    return {**size, **latency}


def count_integers(integer: Sequence[Operator], floating: Sequence[Operator]) -> str:
    """Return how many operators of each kind run in integers, in words.

    Example:
        >>> conv = Operator("convolution", "QLinearConv", "conv1", True)
        >>> count_integers([conv], [Operator("sum", "Add", "conv1 + input", False)])
        '1 of 1 convolutions, 0 of 1 sums'
    """
    integers, every = (Counter(operator.kind for operator in group) for group in (integer, (*integer, *floating)))
    return ", ".join(f"{integers[kind]} of {n} {kind}s" for kind, n in every.items()) or "nothing"


def write_report(report: ExportReport, folder: Path, extra: dict[str, Any]) -> None:
    """Write ``report.md`` and ``report.json``.

    Args:
        report: the report.
        folder: the folder to write to.
        extra: further entries of the JSON file, whose entry ``files`` has the size and SHA-256 of every other file.
    """
    (folder / "report.md").write_text(f"# Export\n\n{report}\n", encoding="utf-8")
    text = json.dumps(
        {**report.to_dict(), "files": fingerprints(folder), **extra}, indent=2, ensure_ascii=False, allow_nan=False
    )
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")


def _row_to_dict(row: Row) -> dict[str, Any]:
    latency = {
        size: {"ms": _plain(one.milliseconds), "spread": _plain(one.spread)} for size, one in row.latency.items()
    }
    return {**vars(row), "latency": latency}


def _plain(value: float) -> float | None:
    # JSON has no NaN.
    return value if math.isfinite(value) else None


def slower_warnings(rows: Sequence[Row], reference: str, name: str) -> list[str]:
    """Return a sentence for each batch size at which a variant is slower than another.

    Args:
        rows: with latencies.
        reference: name of the row that is expected to be slower.
        name: name of the row that is expected to be faster.

    Example:
        >>> slow, fast = (Latency(ms, 0.0, "ONNX Runtime", "CPU", 1, 64) for ms in (2.0, 1.0))
        >>> slower_warnings([Row("fp32", latency={64: fast}), Row("int8", latency={64: slow})], "fp32", "int8")
        ['int8 is SLOWER than fp32 at batch 64: 2 ms against 1 ms, 2.00 times as long.']
    """
    by_name = {row.name: row.latency for row in rows}
    warnings = []
    for size in sorted({*by_name.get(name, {})} & {*by_name.get(reference, {})}):
        left, right = by_name[name][size], by_name[reference][size]
        # Where the measurements overlap, a difference means nothing.
        if left.milliseconds - right.milliseconds > left.spread + right.spread:
            warnings.append(
                f"{name} is SLOWER than {reference} at batch {size}: {left.milliseconds:.3g} ms against"
                f" {right.milliseconds:.3g} ms, {left.milliseconds / right.milliseconds:.2f} times as long."
            )
    return warnings
