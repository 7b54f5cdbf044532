"""OpenVINO on the CPU. It reads ONNX files, and its own of two parts, ``.xml`` and ``.bin``."""

import contextlib
import functools
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_xai.network.packages import require
from lit_xai.runtime.errors import one_line
from lit_xai.runtime.inspection import Operator
from lit_xai.runtime.loaded import Arrays, InputSpec
from lit_xai.runtime.openvino_graph import inspect_openvino

TELEMETRY = "openvino_telemetry"
"""The package that starts a process and contacts an analytics host when OpenVINO is imported; not needed for it."""


@functools.cache
def import_openvino() -> Any:
    """Import OpenVINO without its telemetry; no other file of this package imports it.

    Raises:
        ModuleNotFoundError: it is not installed.

    Warns:
        UserWarning: others imported it before, with its telemetry; once per process.

    Example:
        >>> import_openvino().__name__
        'openvino'
    """
    require("OpenVINO", "openvino", extra="openvino")
    if TELEMETRY in sys.modules:
        warnings.warn(
            "openvino was imported before lit_xai could keep it from loading its telemetry, so it may contact a host of"
            " its makers: import lit_xai first.",
            stacklevel=2,
        )
    with _without_telemetry():
        import openvino
        import openvino.frontend

    return openvino


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the package while OpenVINO is imported, which then replaces it by functions that do nothing."""
    if TELEMETRY in sys.modules:
        yield
        return
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # documented: None makes an import fail
    try:
        yield
    finally:
        sys.modules.pop(TELEMETRY, None)


@functools.cache
def _core() -> Any:
    return import_openvino().Core()


def precisions() -> tuple[str, ...]:
    """Return the precisions that floats can be computed in: bfloat16 too where the CPU has it.

    OpenVINO then takes that by default, so every model here is loaded with the one that was asked for.
    """
    has_bf16 = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("f32", "bf16") if has_bf16 else ("f32",)


class OpenVinoModel:
    """A file compiled by OpenVINO; see :class:`~lit_xai.runtime.loaded.LoadedModel`."""

    def __init__(self, compiled: Any, precision: str) -> None:
        self.compiled, self._request = compiled, compiled.create_infer_request()
        version = import_openvino().get_version().split("-")[0]
        self.label = f"OpenVINO {version}, {precision}"
        self.inputs = {
            one.any_name: InputSpec(_shape(one.partial_shape), np.dtype(one.element_type.to_dtype()))
            for one in compiled.inputs
        }

    def run(self, arrays: Arrays) -> tuple[NDArray[Any], ...]:
        """Return the outputs."""
        # The request's own memory is overwritten by the next run.
        try:
            results = self._request.infer(arrays, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise ValueError(_reason(error)) from None
        return tuple(results[place] for place in range(len(self.compiled.outputs)))


def load(path: str | os.PathLike[str], threads: int | None = None, precision: str = "f32") -> OpenVinoModel:
    """Compile an ONNX file, or one of OpenVINO's own, for one call at a time.

    Raises:
        ValueError: it is none of these.
    """
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    model = _read(Path(path))
    try:
        return OpenVinoModel(_core().compile_model(model, "CPU", settings), precision)
    except Exception as error:  # a RuntimeError, or one of its own
        raise ValueError(f"path expected a file that OpenVINO runs, but got {path}: {_reason(error)}.") from None


def _read(path: Path) -> Any:
    """Read a file as what its name says that it is: asked for any, OpenVINO prints the errors of every reader."""
    kind = "ir" if path.suffix == ".xml" else "onnx"
    if not path.is_file():
        raise ValueError(f"path expected a file that OpenVINO reads, but there is no file {path}.")
    try:
        reader = import_openvino().frontend.FrontEndManager().load_by_framework(kind)
        model = reader.convert(reader.load(str(path)))
    except Exception as error:
        raise ValueError(f"path expected a file that OpenVINO reads, but got {path}: {_reason(error)}.") from None
    if not model.outputs:
        raise ValueError(f"path expected a file that OpenVINO reads, but got {path}: it holds no operator.")
    return model


def _reason(error: Exception) -> str:
    """Return an error without the places in OpenVINO's own code that it begins with."""
    text = re.sub(r"^.*\.(?:cpp|hpp|h):\d+:", "", str(error), flags=re.DOTALL)
    return one_line(Exception(text)).rstrip("!") or type(error).__name__


def operators(path: str | os.PathLike[str]) -> tuple[Operator, ...]:
    """Return the operators that OpenVINO executes, and whether in integers."""
    return inspect_openvino(load(path).compiled, path)


def _shape(shape: Any) -> tuple[int | None, ...]:
    return tuple(None if one.is_dynamic else one.get_length() for one in shape)
