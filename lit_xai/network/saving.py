"""Tensors in files that NumPy reads without torch."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def save_arrays(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors into a compressed ``.npz`` file, whole or not at all.

    Args:
        path: of the file; its folder is created.
        tensors: by name; bfloat16, which NumPy does not have, becomes float32.

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
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stubs read the names as `allow_pickle`
            file.close()
            os.chmod(file.name, 0o644)  # temporary files can be read by their owner alone
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def unused(path: Path) -> Path:
    """Return the path itself, or ``name-v1.suffix``, ``name-v2.suffix`` ... if files of that name exist.

    Example:
        >>> unused(Path("no such file.txt")).name
        'no such file.txt'
    """
    free, number = path, 0
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-v{number}")
    return free
