"""ONNX Runtime on the CPU."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_xai.runtime.inspection import Operator, inspect_onnx
from lit_xai.runtime.loaded import Arrays, InputSpec
from lit_xai.runtime.session import DTYPES, import_onnxruntime, open_session


def precisions() -> tuple[str, ...]:
    """Return the precisions that floats are computed in: that of the file."""
    return ("f32",)


class OnnxModel:
    """An ONNX file in a session of ONNX Runtime; see :class:`~lit_xai.runtime.loaded.LoadedModel`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.label = f"ONNX Runtime {import_onnxruntime().__version__}"
        self.inputs = {one.name: InputSpec(_shape(one.shape), _dtype(one.type)) for one in session.get_inputs()}

    def run(self, arrays: Arrays) -> tuple[NDArray[Any], ...]:
        """Return the outputs."""
        return tuple(self._session.run(None, arrays))


def load(path: str | os.PathLike[str], threads: int | None = None, precision: str = "f32") -> OnnxModel:
    """Load an ONNX file.

    Raises:
        ValueError: it is none.
    """
    return OnnxModel(open_session(path, threads))


def operators(path: str | os.PathLike[str]) -> tuple[Operator, ...]:
    """Return the operators that ONNX Runtime executes, and whether in integers."""
    return inspect_onnx(path)


def _shape(shape: list[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _dtype(name: str) -> np.dtype[Any] | None:
    return np.dtype(DTYPES[name]) if name in DTYPES else None
