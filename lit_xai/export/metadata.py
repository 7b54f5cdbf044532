"""An ONNX file's metadata: classes, normalization, recipe, versions, and a checksum of all that is in the file."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_xai.network.packages import require

CHECKSUM = "sha256"
"""The entry that holds :func:`model_checksum`."""


def write_metadata(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Add entries to an ONNX file's metadata, and a checksum of the file; whole or not at all.

    Strings are written as they are, other values as JSON; ``None`` is left out. Entries of other names stay.

    Args:
        path: of the file.
        values: by name.

    Raises:
        ValueError: a value cannot be written as JSON.

    Example:
        >>> import torch
        >>> from lit_xai.runtime.onnx import export_onnx
        >>> path = Path(tempfile.mkdtemp()) / "network.onnx"
        >>> export_onnx(torch.nn.Linear(4, 2), torch.zeros(1, 4), path)
        >>> write_metadata(path, {"classes": ["cat", "dog"]})
        >>> read_metadata(path)["classes"]
        ['cat', 'dog']
    """
    import onnx

    model = onnx.load(path)
    known = {entry.key: entry.value for entry in model.metadata_props}
    known |= {name: _written(name, value) for name, value in values.items() if value is not None}
    known.pop(CHECKSUM, None)
    onnx.helper.set_model_props(model, known)
    onnx.helper.set_model_props(model, {**known, CHECKSUM: model_checksum(model)})
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        # Written next to the file and moved: a crash leaves the old file or the new one, never half of one.
        onnx.save(model, Path(folder) / path.name)
        os.replace(Path(folder) / path.name, path)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return an ONNX file's metadata, with JSON parsed into plain values."""
    require("Reading an ONNX file", "onnx")
    import onnx

    return {entry.key: _read(entry.value) for entry in onnx.load(path).metadata_props}


def model_checksum(model: Any) -> str:
    """Return the SHA-256 of an ``onnx.ModelProto``: its operators, weights and metadata, but for this very entry."""
    others = [entry for entry in model.metadata_props if entry.key != CHECKSUM]
    bare = type(model)()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    bare.metadata_props.extend(others)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def check_plain(name: str, value: Any) -> None:
    """Refuse a value that JSON cannot hold.

    Raises:
        ValueError: names the argument.

    Example:
        >>> check_plain("recipe", {"steps": [1, 2]})
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} expected plain values that JSON can hold, but got others: {error}.") from None


def _written(name: str, value: Any) -> str:
    check_plain(name, value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
