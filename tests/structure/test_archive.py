"""A zip file passes only if it is whole, and then reads the same everywhere."""

import copy
import itertools
import os
import time
import zipfile

import pytest
import torch
from damage import damaged_bytes, damaged_zips, read_entries, write_entries

from lit_xai.structure.archive import check_archive, has_zip_header

CONTENT = {"state_dict": {"a": torch.arange(600.0).view(300, 2), "b": torch.zeros(3)}, "epoch": 3}


@pytest.fixture
def raw(tmp_path):
    torch.save(CONTENT, tmp_path / "good.ckpt")
    return (tmp_path / "good.ckpt").read_bytes()


def test_a_whole_file_passes_compressed_or_not(raw, tmp_path):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        (tmp_path / "x").write_bytes(write_entries(read_entries(raw), compression))
        assert len(check_archive(tmp_path / "x")) == len(read_entries(raw))


def test_every_damaged_byte_of_an_entry_is_found(raw, tmp_path):
    """The witness is torch: what passes here loads there as the same values, or not at all."""
    passed = 0
    for label, damaged in itertools.islice(damaged_bytes(raw, seed=5), 150):
        (tmp_path / "x").write_bytes(damaged)
        try:
            if not has_zip_header(tmp_path / "x"):
                continue
            check_archive(tmp_path / "x")
            loaded = torch.load(tmp_path / "x", weights_only=True)
        except Exception:  # refused here, or by torch
            continue
        else:
            passed += 1
            assert torch.equal(loaded["state_dict"]["a"], CONTENT["state_dict"]["a"]), label
            assert loaded["epoch"] == 3, label
    assert passed < 30


def test_a_file_with_right_checksums_is_read_the_same_by_torch_and_python(raw, tmp_path):
    for label, damaged in itertools.islice(damaged_zips(raw, seed=6), 100):
        (tmp_path / "x").write_bytes(damaged)
        try:
            entries = {entry.filename: entry for entry in check_archive(tmp_path / "x")}
            weights = torch.load(tmp_path / "x", weights_only=True)["state_dict"]["a"]
        except Exception:
            continue
        prefix = next(iter(entries)).split("/")[0]
        with zipfile.ZipFile(tmp_path / "x") as archive:
            name = next(name for name in entries if name.lower() == f"{prefix}/data/0".lower())
            assert weights.numpy().tobytes() == archive.read(name), label


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("a/data.pkl", b"1"), ("a/data.pkl", b"2")], "has two entries 'a/data.pkl'"),
        ([("a/data.pkl", b"1"), ("a/DATA.pkl", b"2")], "has two entries 'a/DATA.pkl'"),
        ([("a/data/0", bytes(100 * 2**20))], "more than 67,108,864 bytes in memory, out of proportion"),
    ],
)
def test_what_two_readers_may_take_differently_is_refused(entries, words, tmp_path):
    (tmp_path / "x").write_bytes(write_entries(entries, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match=words):
        check_archive(tmp_path / "x")


def test_a_bomb_of_overlapping_entries_is_refused(tmp_path):
    """One compressed block, under a thousand names: the directory repeats its record."""
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(2**16))
        for number in range(1, 9):
            other = copy.copy(archive.filelist[0])
            other.filename = f"a/data/{number}"
            archive.filelist.append(other)
    with pytest.raises(ValueError, match="overlaps another"):
        check_archive(tmp_path / "x")


def test_a_file_that_changes_is_read_again(raw, tmp_path):
    file = tmp_path / "x"
    file.write_bytes(raw)
    check_archive(file)
    damaged = bytearray(raw)
    damaged[raw.index(CONTENT["state_dict"]["a"].numpy().tobytes()) + 9] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"checksum of its entry '.*data/0' does not agree"):
        check_archive(file)
    # Long unchanged, it is read once, and again as soon as its time stamp or size differ.
    file.write_bytes(raw)
    old = time.time() - 100
    os.utime(file, (old, old))
    check_archive(file)
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match="does not agree"):
        check_archive(file)
