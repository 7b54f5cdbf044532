"""The versions of the packages behind an export, and fingerprints of its files."""

import contextlib
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("lit-xai", "torch", "onnxruntime", "onnx")


def find_versions(path: Path) -> dict[str, Any]:
    """Return the versions of the packages, of Python, and of the operators in an ONNX file.

    Args:
        path: of the file.
    """
    versions: dict[str, Any] = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a checkout
            versions[name.replace("-", "_")] = importlib.metadata.version(name)
    return {**versions, "python": platform.python_version(), "opset": opset_of(path)}


def opset_of(path: Path) -> int:
    """Return the version of ONNX's own operators that a file uses."""
    import onnx

    imports = onnx.load(path).opset_import
    # A file may use operators of other domains, such as com.microsoft, which count their own versions.
    return next(int(entry.version) for entry in imports if entry.domain in ("", "ai.onnx"))


def fingerprints(folder: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of every file in a folder.

    Example:
        >>> import tempfile
        >>> fingerprints(Path(tempfile.mkdtemp()))
        {}
    """
    contents = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
    return {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in contents.items()}
