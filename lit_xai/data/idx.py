"""Gzipped IDX files, the format of MNIST and similar datasets."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from lit_xai.data.damage import damaged


def read_idx(path: Path, ndim: int) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes, as described at the end of http://yann.lecun.com/exdb/mnist.

    Args:
        path: the ``.gz`` file.
        ndim: its number of dimensions: 3 for images, 1 for labels.

    Returns:
        A uint8 tensor of the shape named in the file.

    Raises:
        ValueError: the file is damaged, incomplete, or no such IDX file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte.gz")
        ...     _ = path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3])))
        ...     read_idx(path, ndim=1)
        tensor([7, 3], dtype=torch.uint8)
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, str(error)) from None
    header = 4 + 4 * ndim  # two zeros, the type (8: unsigned byte), the number of dimensions, and their sizes
    if data[:4] != bytes([0, 0, 8, ndim]) or len(data) < header:
        raise damaged(
            path, f"expected IDX data of bytes in {ndim} dimensions, but got {data[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(f">{ndim}I", data[4:header])
    if math.prod(shape) != len(data) - header or not math.prod(shape):
        raise damaged(path, f"expected {' x '.join(map(str, shape))} values, but got {len(data) - header}")
    # A bytearray, since tensors share memory and bytes are read-only.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header).view(shape)


def read_idx_pair(directory: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Read images ``(N, 1, H, W)`` and labels ``(N,)`` from a folder in the layout of MNIST."""
    part = "train" if train else "t10k"
    images = read_idx(directory / f"{part}-images-idx3-ubyte.gz", ndim=3)
    return images.unsqueeze(1), read_idx(directory / f"{part}-labels-idx1-ubyte.gz", ndim=1)
