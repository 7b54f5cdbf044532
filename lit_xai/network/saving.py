"""Tensors in files that NumPy reads without torch."""

import contextlib
import io
import itertools
import math
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 14


def save_arrays(path: Path, tensors: Mapping[str, Tensor], compress: bool = True) -> None:
    """Write tensors into an ``.npz`` file, whole or not at all.

    Args:
        path: of the file; its folder is created.
        tensors: by name; bfloat16, which NumPy does not have, becomes float32.
        compress: ``False`` for files that :func:`load_arrays` is to read.

    Raises:
        OSError: it cannot be written; an earlier file is left as it was.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_arrays(folder / "maps.npz", {"maps": torch.ones(2, dtype=torch.bfloat16)})
        >>> np.load(folder / "maps.npz")["maps"]
        array([1., 1.], dtype=float32)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        arrays[name] = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
    # In the folder of the file: moving is one step only within a file system.
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            write = np.savez_compressed if compress else np.savez
            write(file, **arrays)  # type: ignore[arg-type]  # the stubs read the names as `allow_pickle`
            file.close()
            os.chmod(file.name, 0o644)  # temporary files can be read by their owner alone
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def load_arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read a file that :func:`save_arrays` wrote uncompressed, or refuse it.

    Checksums are compared over every byte, sizes before memory is taken, and nothing is unpickled.

    Args:
        path: of the file.
        names: of all its arrays.

    Raises:
        ValueError: it is no such file, holds other arrays, or is damaged.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "maps.npz"
        >>> save_arrays(path, {"maps": torch.ones(2)}, compress=False)
        >>> load_arrays(path, ["maps"])
        {'maps': array([1., 1.], dtype=float32)}
    """
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in names):
                raise ValueError(f"it holds {archive.namelist()}")
            return {name: _read_array(archive, f"{name}.npy") for name in names}
    except Exception as error:  # damaged bytes end in any error there is
        raise ValueError(f"{path} expected arrays {sorted(names)}, but it cannot be read: {error}.") from None


def _read_array(archive: ZipFile, name: str) -> np.ndarray:
    entry, file = archive.getinfo(name), archive.fp
    # An entry that is not compressed cannot be larger than its file: a larger one is refused before memory is taken.
    if entry.compress_type != ZIP_STORED or file is None or entry.file_size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"{name} is compressed")
    content = bytearray(entry.file_size)
    with archive.open(entry) as source:
        # To the last byte, where the CRC-32 is compared; numpy.load may stop before. In chunks: no second copy.
        for start in range(0, len(content), _CHUNK):
            chunk = source.read(_CHUNK)
            content[start : start + len(chunk)] = chunk
    header = io.BytesIO(content[:_LONGEST_HEADER])
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError(f"{name} is of another version")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(header)
    expected = header.tell() + math.prod(shape) * dtype.itemsize
    if dtype.kind not in "biuf" or not dtype.isnative or in_columns or header.tell() % 64 or expected != len(content):
        raise ValueError(f"{name} holds {len(content)} bytes for {dtype} of {shape}")
    return np.frombuffer(content, dtype, offset=header.tell()).reshape(shape)


def unused(path: Path) -> Path:
    """Return the path itself, or ``name-v1.suffix``, ``name-v2.suffix`` ... if files of that name exist.

    The file is made, empty, so that no other process is given the same name: write over it.

    Raises:
        OSError: no file can be made there.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> [unused(folder / "config.yaml").name for _ in range(3)]
        ['config.yaml', 'config-v1.yaml', 'config-v2.yaml']
    """
    for number in itertools.count():
        free = path.with_stem(f"{path.stem}-v{number}") if number else path
        with contextlib.suppress(FileExistsError):
            free.open("x").close()
            break
    return free
