"""The files of an export in several runtimes, side by side, and which file to run where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_xai.export.deployments import Deployment
from lit_xai.export.fresh import measure_start
from lit_xai.export.timing import Candidate
from lit_xai.export.versions import opset_of
from lit_xai.network.calling import Inputs
from lit_xai.network.profiling import with_batch_size
from lit_xai.render.summary import markdown_table
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.latency import Latency
from lit_xai.runtime.loaded import Arrays
from lit_xai.runtime.runtimes import all_threads

AS_FAST = 0.05
"""The largest difference, relative to the fastest, at which another row may count as fast as that."""


@dataclass(frozen=True)
class RuntimeRow:
    """A file in a runtime, on a number of threads.

    Args:
        file: its name.
        runtime: its name in sentences.
        precision: what it computes floats in.
        threads: their number.
        latency: by batch size.
        metric: its value over the loader.
        agreement: the share of predictions equal to those of the network that the file was written from.
        load_ms: from the file to the first result for one sample, in a new process.
        peak_mb: the memory on top of that of the runtime itself, for the largest batch.
        opset: the version of ONNX's operators in the file.
    """

    file: str
    runtime: str
    precision: str
    threads: int
    latency: Mapping[int, Latency] = field(default_factory=dict)
    metric: float | None = None
    agreement: float | None = None
    load_ms: float | None = None
    peak_mb: float | None = None
    opset: int | None = None

    @property
    def name(self) -> str:
        """The file and the runtime in words."""
        return f"{self.file} in {self.runtime}" + (f" in {self.precision}" if self.precision != "f32" else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold."""
        latency = {
            size: {"ms": one.milliseconds, "spread": one.spread, "p95": one.p95, "runtime": one.runtime}
            for size, one in self.latency.items()
        }
        return {**vars(self), "latency": latency}


def candidates_of(folder: Path, deployments: Sequence[Deployment], threads: int) -> dict[str, Candidate]:
    """Return what to measure by name: each deployment on this many threads, and on all of them.

    Args:
        folder: of the files.
        deployments: from :func:`~lit_xai.export.deployments.find_deployments`.
        threads: named by the deployment alone.
    """
    return {
        key_of(one, n, threads): Candidate(folder / one.file, one.runtime.name, one.precision, n)
        for one in deployments
        for n in threads_of(one, threads)
    }


def threads_of(deployment: Deployment, threads: int) -> tuple[int, ...]:
    """Return the numbers of threads that a deployment is measured on: this one and all, or all that it takes."""
    return tuple(dict.fromkeys(deployment.runtime.threads(n) for n in (threads, all_threads())))


def key_of(deployment: Deployment, n: int, threads: int) -> str:
    """Return the name of what is measured on ``n`` threads, where ``threads`` are the usual number."""
    return deployment.name if n == threads else f"{deployment.name}, {n} threads"


def make_runtime_rows(
    folder: Path,
    deployments: Sequence[Deployment],
    latencies: Mapping[str, Mapping[int, Latency]],
    metrics: Mapping[str, float],
    agreements: Mapping[str, float | None],
    inputs: Inputs,
    batch_sizes: Sequence[int] | None,
    threads: int,
) -> tuple[RuntimeRow, ...]:
    """Return the rows of the comparison; starts each file in a new process.

    Args:
        folder: of the files and the script.
        deployments: what is compared.
        latencies: by the names of :func:`candidates_of`.
        metrics: by the deployments' names.
        agreements: likewise.
        inputs: what the files are called with.
        batch_sizes: the sizes that were measured; ``None`` for the inputs as they are.
        threads: the usual number of threads.
    """
    one, many = _samples(inputs, batch_sizes)
    rows = []
    for deployment in deployments:
        start = None
        if deployment.runtime.runs_onnx:  # as the script does
            runtime, precision = deployment.runtime.name, deployment.precision
            start = measure_start(folder, deployment.file, runtime, precision, one, many, threads)
        for n in threads_of(deployment, threads):
            rows.append(
                RuntimeRow(
                    deployment.file,
                    deployment.runtime.label,
                    deployment.precision,
                    n,
                    latencies[key_of(deployment, n, threads)],
                    metrics.get(deployment.name),
                    agreements.get(deployment.name),
                    start.load_ms if start is not None and n == threads else None,
                    start.peak_mb if start is not None and n == threads else None,
                    opset_of(folder / deployment.file) if deployment.runtime.runs_onnx else None,
                )
            )
    return tuple(rows)


def _samples(inputs: Inputs, batch_sizes: Sequence[int] | None) -> tuple[Arrays, Arrays]:
    sizes = (None, None) if batch_sizes is None else (1, max(batch_sizes))
    some = [inputs if size is None else with_batch_size(inputs, size) for size in sizes]
    one, many = ({name: tensor.numpy() for name, tensor in named_tensors(each).items()} for each in some)
    return one, many


def runtime_table(rows: Sequence[RuntimeRow], metric: str) -> str:
    """Return one line per file, runtime and number of threads, as a markdown table.

    "load ms" is from the file to the first result for one sample, "peak MB" the memory that this and the largest batch
    take beyond that of the runtime itself, both in a new process; "p95" is the time that 95% of the calls do not
    exceed.

    Example:
        >>> latency = {1: Latency(3.2, 0.1, "OpenVINO 2026.4.1, f32", "CPU", 1, 1, p95=3.6)}
        >>> row = RuntimeRow("model.onnx", "OpenVINO", "f32", 1, latency, 0.91, 1.0, 40, 12)
        >>> print(runtime_table([row], "accuracy"))
        | file       | runtime  | floats | threads | accuracy | with torch | load ms | peak MB | ms, batch 1 | p95 |
        |:-----------|:---------|:-------|--------:|---------:|-----------:|--------:|--------:|------------:|----:|
        | model.onnx | OpenVINO | f32    |       1 |   0.9100 |    100.00% |      40 |      12 |   3.2 ± 0.1 | 3.6 |
    """
    sizes = sorted({size for row in rows for size in row.latency})
    columns: list[tuple[str, list[str]]] = [
        ("file", [row.file for row in rows]),
        ("runtime", [row.runtime for row in rows]),
        ("floats", [row.precision for row in rows]),
        ("threads", [str(row.threads) for row in rows]),
        (metric, [_written(row.metric, ".4f") for row in rows]),
        ("with torch", [_written(row.agreement, ".2%") for row in rows]),
        ("opset", [_written(row.opset, "d") for row in rows]),
        ("load ms", [_written(row.load_ms, ".0f") for row in rows]),
        ("peak MB", [_written(row.peak_mb, ".0f") for row in rows]),
    ]
    for size in sizes:
        latencies = [row.latency.get(size) for row in rows]
        columns.append((f"ms, batch {size}", [_milliseconds(one) for one in latencies]))
        columns.append(("p95", [_written(None if one is None else one.p95, ".3g") for one in latencies]))
    shown = [(name, cells) for name, cells in columns if {*cells} != {"-"}]
    return markdown_table(
        [name for name, _ in shown], [*zip(*(cells for _, cells in shown), strict=True)], left=(0, 1, 2)
    )


def _written(value: float | None, how: str) -> str:
    return "-" if value is None else f"{value:{how}}"


def _milliseconds(latency: Latency | None) -> str:
    return "-" if latency is None else latency.cell()


def advise(rows: Sequence[RuntimeRow], threads: int = 1) -> str:
    """Return which file to run where, in one sentence: the fastest at each batch size, as measured.

    Where the fastest are no further apart than their spreads, nor than 5%, the first of them in the table is named.

    Args:
        rows: of the comparison; the first is what the others are compared with.
        threads: the usual number of threads; others are named where another file is the fastest with them.

    Example:
        >>> def row(file, runtime, ms):
        ...     return RuntimeRow(file, runtime, "f32", 1, {64: Latency(ms, 0.1, runtime, "CPU", 1, 64)})
        >>> advise([row("model.onnx", "ONNX Runtime", 31.0), row("model.int8.onnx", "OpenVINO", 10.0)])
        'On 1 thread, model.int8.onnx in OpenVINO is the fastest at batch 64, 3.1 times as fast as model.onnx in ONNX
        Runtime.'
    """
    if not rows:
        return ""
    parts, usual = [], dict[int, str]()
    for n in dict.fromkeys((threads, *(row.threads for row in rows))):
        group = [row for row in rows if row.threads == n]
        if not group:
            continue
        found = {size: _fastest(group, size) for size in group[0].latency}
        names = {size: row.name for size, row in found.items()}
        if n == threads:
            usual = names
        elif names == usual:
            continue
        parts.append(f"on {n} thread{'s' if n > 1 else ''}, {_said(found, group[0])}")
    sentence = "; ".join(parts)
    return sentence[:1].upper() + sentence[1:] + "."


def _fastest(rows: Sequence[RuntimeRow], size: int) -> RuntimeRow:
    best = min((row.latency[size] for row in rows), key=lambda one: one.milliseconds)

    def is_as_fast(one: Latency) -> bool:
        # On a busy machine spreads are so large that they would hide any difference.
        return one.milliseconds - best.milliseconds <= min(one.spread + best.spread, AS_FAST * best.milliseconds)

    return next(row for row in rows if is_as_fast(row.latency[size]))


def _said(found: Mapping[int, RuntimeRow], first: RuntimeRow) -> str:
    """Return the fastest at each size, those that are the same together."""
    by_name: dict[str, list[int]] = {}
    for size, row in found.items():
        by_name.setdefault(row.name, []).append(size)
    parts = []
    for name, sizes in by_name.items():
        batches = " and ".join(f"batch {size}" for size in sizes)
        gains = [first.latency[size].milliseconds / found[size].latency[size].milliseconds for size in sizes]
        said = f"{name} is the fastest at {batches}"
        if name != first.name:
            times = " and ".join(f"{gain:.2g}" if gain < 100 else f"{gain:.0f}" for gain in gains)
            said += f", {times} times as fast as {first.name}"
        parts.append(said)
    return ", and ".join(parts)
