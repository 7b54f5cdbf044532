"""A file of a teacher's outputs is read as it was written, or refused in one sentence."""

import io
import itertools
import struct
import time
import warnings
import zipfile

import numpy as np
import pytest
import torch
from damage import damaged_bytes, damaged_zips
from refusals import refused

from lit_xai.distillation.output_cache import OutputCache, sample_keys


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, VALUES = drawn(4, 2), drawn(4, 3, seed=1)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "cache.npz"
    cache = OutputCache("a1b2", path)
    cache.add(sample_keys(X), VALUES)
    cache.save()
    return path


def test_another_teachers_file_is_refused(saved):
    with refused("cache=", "another teacher", "hash a1b2", "c3d4", "delete it"):
        OutputCache("c3d4", saved)


def test_another_version_is_refused(saved, monkeypatch):
    """The digest is of the version too: a file of another one is written as the next release might."""
    from lit_xai.distillation import output_file

    monkeypatch.setattr(output_file, "VERSION", 99)
    cache = OutputCache("a1b2")
    cache.add(sample_keys(X), VALUES)
    output_file.write_outputs(saved, "a1b2", [*cache._rows], VALUES)
    monkeypatch.undo()
    with refused("cache=", "delete it, or name another file"):
        OutputCache("a1b2", saved)


def test_truncated_files_are_refused(saved):
    whole = saved.read_bytes()
    for n in (*range(0, len(whole), 41), len(whole) - 1):
        saved.write_bytes(whole[:n])
        with refused("cache=", "damaged"):
            OutputCache("a1b2", saved)


def test_altered_files_are_refused_or_harmless(saved):
    whole = bytearray(saved.read_bytes())
    values = OutputCache("a1b2", saved).lookup(sample_keys(drawn(4, 2)))
    for place in range(0, len(whole), 5):
        altered = whole.copy()
        altered[place] ^= 0x55
        saved.write_bytes(altered)
        try:
            found = OutputCache("a1b2", saved)
        except ValueError as error:
            assert str(error).startswith("cache=")  # noqa: PT017  # either is fine
        else:
            assert torch.equal(found.lookup(sample_keys(drawn(4, 2))), values)


def refilled(raw, **changed):
    """The file with other arrays, and right checksums of its entries."""
    file = io.BytesIO()
    with np.load(io.BytesIO(raw)) as arrays:
        np.savez(file, **dict(arrays) | changed)
    return file.getvalue()


def with_header(raw, text):
    """The file whose outputs have another header, of the usual length."""
    file = io.BytesIO()
    with np.load(io.BytesIO(raw)) as arrays, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.save(part, array)
            content = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117) + b"\n" + array.tobytes()
            archive.writestr(f"{name}.npy", content if name == "values" else part.getvalue())
    return file.getvalue()


def compressed(raw):
    file = io.BytesIO()
    with np.load(io.BytesIO(raw)) as arrays:
        np.savez_compressed(file, **arrays)
    return file.getvalue()


def saved_by(write):
    file = io.BytesIO()
    write(file)
    return lambda raw: file.getvalue()


HEADER = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }"
FOREIGN = {
    "text": lambda raw: b"a,b\n1,2\n",
    "array": saved_by(lambda file: np.save(file, np.ones(3))),
    "other arrays": saved_by(lambda file: np.savez(file, maps=np.ones(3))),
    "checkpoint": saved_by(lambda file: torch.save({"a": torch.ones(3)}, file)),
    "compressed": compressed,
    "one more": lambda raw: refilled(raw, more=np.ones(3)),
    "objects": lambda raw: refilled(raw, values=np.array([{}], dtype=object)),
    "fewer keys": lambda raw: refilled(raw, keys=np.arange(3)),
    "a key twice": lambda raw: refilled(raw, keys=np.array([1, 1, 2, 3])),
    "keys in 32 bits": lambda raw: refilled(raw, keys=np.arange(4, dtype=np.int32)),
    "no rows": lambda raw: refilled(raw, values=np.ones(())),
    "fewer classes": lambda raw: refilled(raw, values=VALUES[:, :2].numpy()),
    "not finite": lambda raw: refilled(raw, values=(VALUES * torch.nan).numpy()),
    "other outputs": lambda raw: refilled(raw, values=VALUES.flip(0).numpy()),
    "another teacher's": lambda raw: refilled(raw, teacher=np.frombuffer(b"c3d4", np.uint8)),
    "a version of infinity": lambda raw: refilled(raw, version=np.array(np.inf)),
    "several versions": lambda raw: refilled(raw, version=np.arange(3)),
    "dtype bool": lambda raw: refilled(raw, dtype=np.frombuffer(b"bool", np.uint8)),
    "dtype nn": lambda raw: refilled(raw, dtype=np.frombuffer(b"nn", np.uint8)),
    "dtype in latin-1": lambda raw: refilled(raw, dtype=np.frombuffer(b"\xff\xfe", np.uint8)),
    "beyond memory": lambda raw: with_header(raw, (HEADER % ("<f4", False, "(4, 10000000000000)")).encode()),
    "by columns": lambda raw: with_header(raw, (HEADER % ("<f4", True, "(4, 3)")).encode()),
    "other byte order": lambda raw: with_header(raw, (HEADER % (">f4", False, "(4, 3)")).encode()),
    "negative": lambda raw: with_header(raw, (HEADER % ("<f4", False, "(-4, -3)")).encode()),
    "unclosed bracket": lambda raw: with_header(raw, (HEADER % ("<f4", False, "(4L, 3)")).encode() + b"("),
    "nested": lambda raw: with_header(raw, b"(" * 110),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused(name, saved):
    saved.write_bytes(FOREIGN[name](saved.read_bytes()))
    with refused("cache=", "cannot be read", "delete it, or name another file"):
        OutputCache("a1b2", saved)


def test_a_folder_is_refused(saved):
    with refused("cache=", "name another file"):
        OutputCache("a1b2", saved.parent)


@pytest.mark.parametrize("damaged", [damaged_bytes, damaged_zips])
@pytest.mark.parametrize("cases", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_give_the_same(damaged, cases, saved):
    raw, keys, outcomes, said = saved.read_bytes(), sample_keys(X), {"same": 0, "refused": 0}, set()
    for label, content in itertools.islice(damaged(raw, seed=14), cases):
        saved.write_bytes(content)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                cache = OutputCache("a1b2", saved)
        except ValueError as error:
            outcomes["refused"] += 1
            said.add(str(error))
        else:
            assert torch.equal(cache.lookup(keys), VALUES), label
            outcomes["same"] += 1
        assert time.perf_counter() - start < 5, label
    assert all(sentence.startswith("cache=") and "\n" not in sentence for sentence in said)
    assert outcomes["refused"] > cases / 2
