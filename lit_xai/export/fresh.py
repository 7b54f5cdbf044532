"""The time to load a file and the memory to run it, each in a process of its own."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_xai.runtime.loaded import Arrays

# What the exported script does, so that nothing but the runtime and NumPy is in the process. The peak is Linux's own
# count for this process; resource's would begin with that of the process which started it.
_PROGRAM = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import numpy, infer
def kilobytes(name):
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name + ":")), None)
model, runtime, precision, threads = sys.argv[2:6]
{"onnxruntime": infer.import_onnxruntime, "openvino": infer.import_openvino}[runtime]()
one, many = (dict(numpy.load(path)) for path in sys.argv[6:8])
before, start = kilobytes("VmRSS"), time.perf_counter()
session = infer.load(model, runtime, precision, int(threads))
session.run(None, one)
seconds = time.perf_counter() - start
session.run(None, many)
peak = kilobytes("VmHWM")
print(json.dumps([seconds, None if before is None or peak is None else max(0, peak - before)]))
"""


@dataclass(frozen=True)
class Start:
    """What a file needs in a new process.

    Args:
        load_ms: from the file to the first result for one sample, after the runtime was imported.
        peak_mb: the memory on top of that of Python, NumPy and the runtime; ``None`` where the system does not tell.
    """

    load_ms: float
    peak_mb: float | None


def measure_start(
    folder: Path, model: str, runtime: str, precision: str, one: Arrays, many: Arrays, threads: int = 1
) -> Start | None:
    """Run a file of an export with the export's own script in a new process; ``None`` where that is impossible.

    Args:
        folder: of the export, with ``infer.py``.
        model: the file's name.
        runtime: its name.
        precision: of floats.
        one: one sample, as the file takes it.
        many: the largest batch to run.
        threads: the number of threads for the runtime.
    """
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as inputs:
        paths = [Path(inputs) / "one.npz", Path(inputs) / "many.npz"]
        for path, arrays in zip(paths, (one, many), strict=True):
            np.savez(path, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes the names for its own options
        command = [sys.executable, "-c", _PROGRAM, str(folder), model, runtime, precision, str(threads)]
        done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=600)
    if done.returncode:
        return None
    seconds, kilobytes = json.loads(done.stdout.splitlines()[-1])
    return Start(1e3 * seconds, None if kilobytes is None else kilobytes / 1e3)
