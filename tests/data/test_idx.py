import gzip
import struct

import numpy as np
import pytest
import torch

from lit_xai.data.idx import read_idx, read_idx_pair


def idx_bytes(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


IMAGES = np.random.RandomState(0).randint(0, 256, (5, 4, 3))


def test_reads_what_was_written(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    assert torch.equal(read_idx(path, ndim=3), torch.from_numpy(IMAGES).to(torch.uint8))


def test_a_pair_has_a_channel(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(IMAGES)))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(5))))
    images, targets = read_idx_pair(tmp_path, train=False)
    assert images.shape == (5, 1, 4, 3)
    assert targets.tolist() == [0, 1, 2, 3, 4]


COMPRESSED = gzip.compress(idx_bytes(IMAGES))


@pytest.mark.parametrize(
    "content",
    [
        *(pytest.param(COMPRESSED[:size], id=f"cut at {size}") for size in range(0, len(COMPRESSED), 5)),
        pytest.param(COMPRESSED[:40] + b"\0\0\0\0" + COMPRESSED[44:], id="bytes changed"),
        pytest.param(b"<html>not found</html>", id="not gzipped"),
        pytest.param(gzip.compress(b""), id="empty"),
        pytest.param(gzip.compress(b"\0\0\x08\x03\0\0"), id="header cut"),
        pytest.param(gzip.compress(idx_bytes(IMAGES)[:-1]), id="one byte short"),
        pytest.param(gzip.compress(idx_bytes(IMAGES) + b"\0"), id="one byte long"),
        pytest.param(gzip.compress(idx_bytes(IMAGES[0, 0])), id="labels instead of images"),
        pytest.param(gzip.compress(idx_bytes(IMAGES[:0])), id="no images"),
        pytest.param(gzip.compress(b"\0\0\x0d\x03" + idx_bytes(IMAGES)[4:]), id="floats"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"images\.gz' cannot be read \(.+\): delete it and set `download=True`"
    ) as info:
        read_idx(path, ndim=3)
    assert info.value.__context__ is None or info.value.__suppress_context__  # no second traceback
    assert "\n" not in str(info.value)


def test_says_what_was_expected(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES[0, 0])))
    with pytest.raises(ValueError, match="expected IDX data of bytes in 3 dimensions, but got 00 00 08 01"):
        read_idx(path, ndim=3)
    path.write_bytes(gzip.compress(idx_bytes(IMAGES)[:-2]))
    with pytest.raises(ValueError, match="expected 5 x 4 x 3 values, but got 58"):
        read_idx(path, ndim=3)
