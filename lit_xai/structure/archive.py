"""Zip files checked to their last byte before anything in them is believed.

``torch.load`` verifies no checksum, and its zip reader and Python's may disagree about a file that is not laid out as
usual. So a file passes here only if both read the same: every entry in place, once, and with the CRC-32 it was written
with.
"""

import mmap
import time
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

# Weights hardly compress. A compressed file that would grow more than this is a bomb, unless it stays small anyway.
_MOST_GROWTH, _SMALL = 50, 64 * 2**20

# A file that was changed this shortly before it was checked may change again without a new time stamp.
_CLOCK_NS = 10**9


class Entry(NamedTuple):
    """One file in an archive.

    Args:
        filename: its name.
        start: the place of its first byte in the archive.
        size: in bytes, unpacked.
        is_packed: compressed.
    """

    filename: str
    start: int
    size: int
    is_packed: bool


def has_zip_header(path: str | Path) -> bool:
    """Return whether a file begins like a zip file, which is how torch tells its formats apart."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def limit_of(path: str | Path) -> int:
    """Return how many bytes the content of a file may take in memory."""
    return max(_SMALL, _MOST_GROWTH * Path(path).stat().st_size)


def check_archive(path: str | Path) -> list[Entry]:
    """Return the entries of a zip file that is whole.

    A file that has not changed since it passed is not read again in the same process: one command reads a checkpoint
    several times.

    Raises:
        ValueError: says in words what is wrong with the file.
        OSError: the file cannot be read.
    """
    stat = Path(path).stat()
    state = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    is_settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _CLOCK_NS
    return list(_checked_once(state) if is_settled else _checked(str(path)))


@lru_cache(maxsize=8)
def _checked_once(state: tuple[str, int, int, int, int]) -> tuple[Entry, ...]:
    return _checked(state[0])


def _checked(path: str) -> tuple[Entry, ...]:
    try:
        with ZipFile(path) as archive, open(path, "rb") as file:
            entries = archive.infolist()
            _check_layout(entries, archive.start_dir, limit_of(path))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return tuple(_check_entry(entry, archive, content) for entry in entries)
    # Python's reader raises these for the headers, NotImplementedError for a method and RuntimeError for a password.
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"its zip archive is damaged ({str(error).rstrip('.') or type(error).__name__})") from error


def _check_layout(entries: list[ZipInfo], end: int, most: int) -> None:
    """Refuse entries that share a name or bytes, are packed in an unusual way, or would take too much memory."""
    if sum(entry.file_size for entry in entries) > most:
        raise ValueError(f"its content would take more than {most:,} bytes in memory, out of proportion to its size")
    names, free = set(), 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        # torch finds entries without regard to case.
        if entry.filename.lower() in names:
            raise ValueError(f"it has two entries '{entry.filename}'")
        names.add(entry.filename.lower())
        if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or entry.flag_bits & 1:
            raise ValueError(f"its entry '{entry.filename}' is neither stored nor deflated")
        if entry.compress_type == ZIP_STORED and entry.compress_size != entry.file_size:
            raise ValueError(f"its entry '{entry.filename}' has two different sizes")
        if entry.header_offset < free:
            raise ValueError(f"its entry '{entry.filename}' overlaps another")
        free = entry.header_offset + 30 + entry.compress_size
    if free > end or min((entry.header_offset for entry in entries), default=0):
        raise ValueError("its entries do not lie where its directory says")


def _check_entry(entry: ZipInfo, archive: ZipFile, content: mmap.mmap) -> Entry:
    """Compare the checksum of one entry."""
    start = entry.header_offset + 30
    start += sum(int.from_bytes(content[start + at : start + at + 2], "little") for at in (-4, -2))
    with archive.open(entry) as reader:  # compares the names in both headers
        if entry.compress_type == ZIP_DEFLATED:
            while reader.read(2**20):  # and compares the checksum at the end
                pass
            return Entry(entry.filename, start, entry.file_size, True)
    with memoryview(content) as view, view[start : start + entry.file_size] as data:
        # In one call: a third faster than in pieces.
        if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
            raise ValueError(f"the checksum of its entry '{entry.filename}' does not agree")
    return Entry(entry.filename, start, entry.file_size, False)
