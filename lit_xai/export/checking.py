"""Checks that a file is a whole ONNX network."""

import os
from pathlib import Path
from typing import Any

from lit_xai.export.metadata import CHECKSUM, model_checksum
from lit_xai.network.packages import require
from lit_xai.runtime.errors import first_line
from lit_xai.runtime.session import open_session


def check_onnx(path: str | os.PathLike[str]) -> None:
    """Refuse a file that is no ONNX network, or was changed since it was written.

    It is read, compared with the checksum in its metadata where there is one, checked against ONNX's
    rules, and loaded in ONNX Runtime.

    Args:
        path: of the file.

    Raises:
        ValueError: one of these checks failed; says which.

    Example:
        >>> check_onnx("nothing.onnx")
        Traceback (most recent call last):
        ...
        ValueError: path expected an ONNX file, but there is no file nothing.onnx.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path expected an ONNX file, but there is no file {path}.")
    model = _read(path)
    # Files that other tools wrote have no checksum, and are accepted without.
    expected = next((entry.value for entry in model.metadata_props if entry.key == CHECKSUM), None)
    if expected is not None and expected != model_checksum(model):
        raise ValueError(
            f"path expected the ONNX file that was written, but {path} does not agree with the checksum in its"
            " metadata: export it again."
        )
    _check_rules(path, model)


def _read(path: Path) -> Any:
    require("Reading an ONNX file", "onnx")
    import onnx

    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own exceptions, or an OSError
        raise ValueError(f"path expected an ONNX file, but {path} cannot be read: {first_line(error)}.") from None
    if not model.graph.node:
        raise ValueError(f"path expected an ONNX file, but {path} ({path.stat().st_size} bytes) holds no operator.")
    return model


def _check_rules(path: Path, model: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ONNX's own, or a UnicodeDecodeError of names in the file
        raise ValueError(f"path expected an ONNX file, but {path} breaks ONNX's rules: {first_line(error)}.") from None
    open_session(path, threads=1)
