"""An ONNX file opened in ONNX Runtime on the CPU, and its inputs as arrays."""

import functools
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lit_xai.network.calling import Inputs
from lit_xai.network.describing import describe
from lit_xai.network.packages import require
from lit_xai.runtime.errors import one_line
from lit_xai.runtime.flat import named_tensors

DTYPES = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}
"""Floating types of arrays by the names that ONNX Runtime has for them."""


TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""The environment variable that ONNX Runtime reads when it is imported, and never again."""


@functools.cache
def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry switched off; no other file of this package imports it.

    From release 1.32 on it contacts a host of its makers once a session has been open for some seconds, unless the
    environment variable :data:`TELEMETRY` is set before it is imported; ``disable_telemetry_events()`` comes too late.
    A value that the user has set stays.

    Raises:
        ModuleNotFoundError: it is not installed.

    Warns:
        UserWarning: others imported it before, without that variable; once per process.

    Example:
        >>> import_onnxruntime().__name__
        'onnxruntime'
    """
    require("ONNX Runtime's session", "onnxruntime")
    if TELEMETRY not in os.environ:
        if "onnxruntime" in sys.modules:
            warnings.warn(
                "onnxruntime was imported before lit_xai could switch off its telemetry, so it may contact a host of"
                f" its makers: set {TELEMETRY}=1 before Python starts.",
                stacklevel=2,
            )
        os.environ[TELEMETRY] = "1"
    import onnxruntime

    return onnxruntime


def open_session(
    path: str | os.PathLike[str], threads: int | None = None, optimized_path: str | os.PathLike[str] | None = None
) -> Any:
    """Return an ``onnxruntime.InferenceSession`` of an ONNX file on the CPU.

    Args:
        path: of the ONNX file.
        threads: how many the runtime may use; default as it decides.
        optimized_path: where the runtime writes the graph that it executes, with what it fused and exchanged.

    Raises:
        ValueError: the file is no ONNX file.

    Example:
        >>> open_session("nothing.onnx")
        Traceback (most recent call last):
        ...
        ValueError: path expected an ONNX file, but got nothing.onnx: ...
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # ONNX Runtime prints each error that it also raises, and warns that an optimized graph is for this CPU alone.
    options.log_severity_level = 4
    if threads is not None:
        # Operators run one after the other, so only the threads inside each of them count.
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        raise ValueError(f"path expected an ONNX file, but got {Path(path)}: {one_line(error)}.") from None


def session_feed(session: Any, inputs: Inputs) -> dict[str, Any]:
    """Return a network's inputs as the arrays that a session takes, in the floating types of the file.

    They are matched by name, or by position where the file has other names.

    Args:
        session: from :func:`open_session`.
        inputs: what the network is called with.

    Raises:
        ValueError: the file takes another number of inputs.
    """
    arrays = {name: tensor.numpy() for name, tensor in named_tensors(inputs).items()}
    expected = session.get_inputs()
    if not all(entry.name in arrays for entry in expected):
        if len(expected) != len(arrays):
            names = [entry.name for entry in expected]
            raise ValueError(f"inputs expected what the ONNX file takes, {names}, but got {describe(inputs)}.")
        arrays = {entry.name: array for entry, array in zip(expected, arrays.values(), strict=True)}
    dtypes = {entry.name: DTYPES.get(entry.type, arrays[entry.name].dtype) for entry in expected}
    return {name: arrays[name].astype(dtype) for name, dtype in dtypes.items()}
