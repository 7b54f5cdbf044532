"""The file of a cache of a teacher's outputs: read whole and unaltered or refused, and shared by processes."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_xai.network.saving import load_arrays, save_arrays

VERSION = 2
"""Version of the file."""

HASH = 1
"""Version of the hash of samples, part of that of the file: keys of another version do not compare."""

SECONDS = 10
"""How long to wait for another process that writes the file."""

# The types of outputs by name, since NumPy has no bfloat16: it is in the file as float32.
_DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}

_NAMES = ("version", "teacher", "dtype", "keys", "values", "sha256")


def write_outputs(path: Path, teacher: str, keys: Sequence[int], values: Tensor) -> None:
    """Write outputs atomically.

    Args:
        path: of the file.
        teacher: the hash of the teacher.
        keys: of the samples, each once.
        values: one row per key, in a floating type.

    Raises:
        OSError: it cannot be written; an earlier file is left as it was.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "cache.npz"
        >>> write_outputs(path, "a1b2", [7, -3], torch.ones(2, 1))
        >>> read_outputs(path, "a1b2")
        ([7, -3], tensor([[1.],
                [1.]]))
    """
    dtype = str(values.dtype).removeprefix("torch.")
    arrays = {
        "version": torch.tensor(VERSION),
        "teacher": _to_bytes(teacher),
        "dtype": _to_bytes(dtype),
        "keys": torch.tensor(keys, dtype=torch.int64),
        "values": values.float() if values.dtype is torch.bfloat16 else values,
    }
    digest = _digest(teacher, dtype, arrays["keys"].numpy(), arrays["values"].numpy())
    save_arrays(path, {**arrays, "sha256": _to_bytes(digest)}, compress=False)


def read_outputs(path: Path, teacher: str) -> tuple[list[int], Tensor]:
    """Return the keys and the outputs in a file.

    Args:
        path: of the file.
        teacher: the hash of the teacher whose outputs are expected.

    Raises:
        ValueError: it is no such file, is damaged, of another version, or of another teacher; says which.
    """
    try:
        arrays = load_arrays(path, _NAMES)
        version, owner, dtype = arrays["version"].tolist(), _text(arrays["teacher"]), _text(arrays["dtype"])
        keys, values = arrays["keys"], arrays["values"]
        is_whole = _text(arrays["sha256"]) == _digest(owner, dtype, keys, values)
        is_sound = (
            isinstance(version, int) and keys.dtype == np.int64 and keys.ndim == 1 and values.shape[:1] == keys.shape
        )
        if not (is_whole and is_sound and len(np.unique(keys)) == len(keys) and np.isfinite(values).all()):
            raise ValueError
        outputs = torch.from_numpy(values).to(_DTYPES[dtype])
    except (ValueError, TypeError, KeyError):
        raise _refusal(path) from None
    if version != VERSION:
        raise ValueError(
            f"cache={str(path)!r} expected version {VERSION} of the format, but got {version}: delete it, or name"
            " another file."
        )
    if owner != teacher:
        raise ValueError(
            f"cache={str(path)!r} holds outputs of another teacher (hash {owner}, this one is {teacher}): delete it, or"
            " name another file."
        )
    return keys.tolist(), outputs


def _refusal(path: Path) -> ValueError:
    return ValueError(
        f"cache={str(path)!r} cannot be read: it is no file of a teacher's outputs, is damaged, or was written before"
        f" version {VERSION} of the format: delete it, or name another file."
    )


def require_place(path: Path) -> None:
    """Refuse the path of a new file in a folder that cannot be created or written to.

    Raises:
        ValueError: it cannot; says why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"cache={str(path)!r} expected a folder that can be written to, but got {path.parent}: {error.strerror}."
        ) from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, in a hidden file beside it that stays.

    Raises:
        OSError: the lock cannot be made, or another process has held it for :data:`SECONDS`.
    """
    from filelock import FileLock  # a requirement of torch

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=SECONDS):
            yield
    except NotImplementedError:  # a file system without locks
        raise OSError(f"{path.parent} is on a file system without locks") from None


def signature(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _digest(teacher: str, dtype: str, keys: np.ndarray, values: np.ndarray) -> str:
    """Return a hash of all that has to agree: of an altered file too, whose checksums were computed anew."""
    sha = hashlib.sha256(f"{VERSION} {HASH} {teacher} {dtype} {values.dtype} {values.shape}".encode())
    for array in (keys, values):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def _to_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _text(array: np.ndarray) -> str:
    return array.tobytes().decode()
