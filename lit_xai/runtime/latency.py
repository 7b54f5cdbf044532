"""The latency of a network in a runtime, or measured by a function of one's own."""

import math
import numbers
import os
import platform
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec, check_call
from lit_xai.network.check import check_integer
from lit_xai.network.import_path import load_object
from lit_xai.network.packages import ONNX, require
from lit_xai.network.profiling import count_samples, with_batch_size
from lit_xai.network.untouched import untouched
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.loaded import caller_of
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.runtimes import find_runtime
from lit_xai.runtime.timing import summarize, time_calls

Measure = Callable[[Path], float]
"""From an ONNX file to milliseconds."""


SECONDS = 0.5
"""The default time for which a file is measured."""


@dataclass(frozen=True)
class Latency:
    """The time of one call, and how it was measured.

    Args:
        milliseconds: the median.
        spread: half the interquartile range of the medians of short blocks of calls; 0 where it is unknown.
        runtime: its name and version, and what its floats are computed in where it has a choice.
        cpu: the processor's name.
        threads: the number of threads.
        batch_size: the number of samples per call.
        p95: the time that 95% of the calls do not exceed; ``None`` where it is unknown.

    Example:
        >>> print(Latency(3.2071, 0.0412, "ONNX Runtime 1.32.0", "AMD EPYC", threads=1, batch_size=64))
        3.21 ms ± 0.041 (ONNX Runtime 1.32.0, 1 thread, batch 64, AMD EPYC)
    """

    milliseconds: float
    spread: float
    runtime: str
    cpu: str
    threads: int
    batch_size: int
    p95: float | None = None

    def cell(self) -> str:
        """Return the median and its spread in milliseconds, for a table.

        Example:
            >>> Latency(0.01142, 0.00007, "ONNX Runtime 1.32.0", "AMD EPYC", threads=1, batch_size=1).cell()
            '0.0114 ± 0.00007'
        """
        # In "g" the spread of a small network would be 7e-05.
        return f"{self.milliseconds:.3g}" + (f" ± {Decimal(f'{self.spread:.1g}'):f}" if self.spread else "")

    def __str__(self) -> str:
        spread = f" ± {self.spread:.2g}" if self.spread else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.milliseconds:.3g} ms{spread} ({self.runtime}, {threads}, batch {self.batch_size}, {self.cpu})"


def network_latency(
    network: nn.Module,
    inputs: Inputs,
    *,
    threads: int = 1,
    batch_size: int = 1,
    measure: Measure | str | None = None,
    call: str = "forward",
    output: OutputSpec = None,
    runtime: str = "onnxruntime",
) -> Latency:
    """Export a network to a temporary ONNX file and measure how long one call takes; the network is left as it is.

    Args:
        network: the module.
        inputs: what it is called with, of any batch size.
        threads: the number of threads for the runtime.
        batch_size: the number of samples in the call, and in the file; inputs that cannot be cut into samples (a batch
            of graphs) are measured as they are.
        measure: a function from the file's path to milliseconds to use instead of a runtime, or its import path.
        call: the network's method that is called.
        output: the logits in its output.
        runtime: ``"onnxruntime"``, ``"openvino"``, which computes floats in float32 here, or ``"executorch"``, which
            decides by itself on how many threads.

    Raises:
        ModuleNotFoundError: onnx, onnxscript or the runtime is not installed.
        ValueError: there is no such runtime, the network cannot be exported, or ``measure`` returns no time.

    Example:
        >>> import torch
        >>> network_latency(nn.Linear(4, 2), torch.zeros(1, 4), measure=lambda path: 3.0).milliseconds
        3.0
    """
    check_integer("threads", threads)
    check_integer("batch_size", batch_size)
    function = load_object(measure, "measure") if isinstance(measure, str) else measure
    if function is not None and not callable(function):
        raise ValueError(f"measure expected a function from an ONNX file's path to milliseconds, but got {measure!r}.")
    chosen = find_runtime(runtime)
    require("A latency", *ONNX, *([chosen.name] if function is None and chosen.extra == "export" else []))
    if function is None:
        chosen.require("A latency")
    rows = count_samples(network, inputs, call, output)
    if rows is None:
        with untouched(network), torch.no_grad():
            n = sum(check_call(network, inputs, call, output).shape[:1])
    else:
        inputs, n = with_batch_size(inputs, batch_size, rows), batch_size
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder:
        is_onnx = function is not None or chosen.runs_onnx
        path = Path(folder) / f"network{'.onnx' if is_onnx else chosen.suffixes[0]}"
        if is_onnx:
            export_onnx(network, inputs, path, call, output, dynamic_batch=False)
        else:
            chosen.write(network, inputs, path, call=call, output=output)
        if function is None:
            return replace(measure_latency(path, inputs, threads, runtime=runtime), batch_size=n)
        name = getattr(function, "__name__", type(function).__name__)
        return Latency(_checked_time(function(path), name), 0.0, name, cpu_name(), threads, n)


def measure_latency(
    path: str | os.PathLike[str],
    inputs: Inputs,
    threads: int = 1,
    batch_size: int | None = None,
    repeats: int = 10,
    seconds: float | None = None,
    runtime: str = "onnxruntime",
    precision: str = "f32",
) -> Latency:
    """Measure how long one call of a file takes in a runtime on the CPU.

    The result is the median of the medians of ``repeats`` blocks, each of as many calls as fit into its share of the
    time. Where one call takes longer than that, there are fewer blocks, at least three. A disturbance of a few calls
    changes neither the median nor the spread.

    Args:
        path: of the file.
        inputs: what it is called with.
        threads: the number of threads for the runtime.
        batch_size: the number of samples in the call, those given cut or repeated; default as given.
        repeats: the largest number of blocks.
        seconds: about how long to measure, after a fifth of it to warm up; default half a second.
        runtime: ``"onnxruntime"``, ``"openvino"`` or ``"executorch"``.
        precision: of floats: ``"f32"``, or ``"bf16"`` in OpenVINO on a CPU that has it.

    Raises:
        ModuleNotFoundError: the runtime is not installed.
        ValueError: the runtime does not run the file, or the file does not take these inputs.

    Example:
        >>> import torch
        >>> path = Path(tempfile.mkdtemp()) / "network.onnx"
        >>> export_onnx(nn.Linear(4, 2), torch.zeros(1, 4), path)
        >>> latency = measure_latency(path, torch.zeros(1, 4), batch_size=8, seconds=0.01)
        >>> latency.milliseconds > 0, latency.batch_size
        (True, 8)
    """
    check_integer("threads", threads)
    check_integer("repeats", repeats)
    seconds = SECONDS if seconds is None else seconds
    if batch_size is not None:
        inputs = with_batch_size(inputs, check_integer("batch_size", batch_size))
    chosen = find_runtime(runtime)
    model = chosen.load(path, threads, precision)
    timing = summarize(time_calls(caller_of(model, str(path), inputs), repeats, seconds))
    where = model.label, cpu_name(), chosen.threads(threads)
    return Latency(timing.milliseconds, timing.spread, *where, _rows(inputs), timing.p95)


def cpu_name() -> str:
    """Return the name of the processor.

    Example:
        >>> cpu_name() != ""
        True
    """
    try:
        # On Linux, platform.processor() is the architecture or empty.
        described = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        described = None
    return described[1].strip() if described else platform.processor() or platform.machine() or "unknown CPU"


def _rows(inputs: Inputs) -> int:
    return next((len(tensor) for tensor in named_tensors(inputs).values() if tensor.ndim), 1)


def _checked_time(value: Any, name: str) -> float:
    # numbers.Real: measurements are often NumPy scalars.
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"measure={name} expected to return milliseconds, a number above 0, but got {value!r}.")
    return float(value)
