"""Damaged files for tests: bytes flipped, cut and swapped, zip entries edited, values replaced; the same for a seed.

Each function yields ``(label, damaged)`` without end, where the label says what was done; take as many as you need with
``itertools.islice``. A yielded value may by chance equal the original: a test asks for a refusal *or the same result*.
"""

import copy
import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch

# --- bytes --------------------------------------------------------------------------------------------------------


def damaged_bytes(raw: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield a file whose bytes were flipped, overwritten, cut off, removed, inserted, repeated or swapped."""
    rng = random.Random(seed)
    while True:
        how = rng.choice([_flip, _flip, _overwrite, _cut, _remove, _insert, _repeat, _swap, _zero, _prepend])
        start = rng.randrange(max(len(raw), 1))
        yield f"{how.__name__.strip('_')} at {start} of {len(raw)}", how(raw, start, rng)


def _flip(raw: bytes, start: int, rng: random.Random) -> bytes:
    flipped = bytearray(raw)
    for place in {start, *(rng.randrange(len(raw)) for _ in range(rng.choice([0, 0, 1, 8])))}:
        flipped[place] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _overwrite(raw: bytes, start: int, rng: random.Random) -> bytes:
    noise = rng.randbytes(rng.choice([1, 4, 64, 1024]))
    return (raw[:start] + noise + raw[start + len(noise) :])[: len(raw)]


def _cut(raw: bytes, start: int, rng: random.Random) -> bytes:
    return raw[: rng.choice([start, start, 0, 3, len(raw) - 1, len(raw) - 22])]


def _remove(raw: bytes, start: int, rng: random.Random) -> bytes:
    return raw[:start] + raw[start + rng.choice([1, 16, 512]) :]


def _insert(raw: bytes, start: int, rng: random.Random) -> bytes:
    return raw[:start] + rng.randbytes(rng.choice([1, 16, 512])) + raw[start:]


def _repeat(raw: bytes, start: int, rng: random.Random) -> bytes:
    block = raw[start : start + rng.choice([16, 512, 4096])]
    return raw[:start] + block + raw[start:]


def _swap(raw: bytes, start: int, rng: random.Random) -> bytes:
    size = min(rng.choice([16, 256, 4096]), len(raw) // 2)
    first = min(start, len(raw) - 2 * size)
    second = rng.randrange(first + size, len(raw) - size + 1)
    blocks = raw[first : first + size], raw[second : second + size]
    return raw[:first] + blocks[1] + raw[first + size : second] + blocks[0] + raw[second + size :]


def _zero(raw: bytes, start: int, rng: random.Random) -> bytes:
    size = min(rng.choice([16, 512, 4096]), len(raw) - start)  # as after a crash: a block that was never written
    return raw[:start] + bytes(size) + raw[start + size :]


def _prepend(raw: bytes, start: int, rng: random.Random) -> bytes:
    return rng.choice([b"\n", b"\xef\xbb\xbf", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04"]) + raw


# --- zip files ----------------------------------------------------------------------------------------------------

Entries = list[tuple[str, bytes]]


def read_entries(raw: bytes) -> Entries:
    """Return the names and contents of the entries of a zip file."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def write_entries(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file with right checksums; names may occur twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            # Not through writestr(name): it warns of names that occur twice.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = compression
            archive.NameToInfo.pop(name, None)
            archive.writestr(entry, content)
    return file.getvalue()


def damaged_zips(raw: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield a zip file with an edited entry under a right checksum, edited headers, or a bomb."""
    rng, entries = random.Random(seed), read_entries(raw)
    changes: list[Callable[[Entries, int, random.Random], Entries]]
    changes = [_entry_bytes, _entry_bytes, _drop, _rename, _twice, _exchange, _empty, _bomb, _add]
    while True:
        place = rng.randrange(len(entries))
        if rng.random() < 0.3:
            field = rng.choice(list(_CENTRAL))
            yield f"{field} of entry {entries[place][0]}", _central(raw, place, field, rng)
            continue
        change = rng.choice(changes)
        # A bomb is small on disk only where it is compressed.
        packed = change is _bomb or rng.random() < 0.2
        compression = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        label = f"{change.__name__.strip('_')} entry {entries[place][0]}{', compressed' if packed else ''}"
        yield label, write_entries(change(list(entries), place, rng), compression)


def _entry_bytes(entries: Entries, place: int, rng: random.Random) -> Entries:
    name, content = entries[place]
    if content:
        _, content = next(damaged_bytes(content, rng.randrange(2**32)))
    entries[place] = name, content
    return entries


def _drop(entries: Entries, place: int, rng: random.Random) -> Entries:
    del entries[place]
    return entries


def _rename(entries: Entries, place: int, rng: random.Random) -> Entries:
    name = entries[place][0]
    entries[place] = rng.choice([f"{name}x", f"../{name}", f"other/{name}", "", name.upper()]), entries[place][1]
    return entries


def _twice(entries: Entries, place: int, rng: random.Random) -> Entries:
    name, content = entries[place]
    entries.insert(rng.choice([0, len(entries)]), (name, rng.choice([content, rng.randbytes(len(content))])))
    return entries


def _exchange(entries: Entries, place: int, rng: random.Random) -> Entries:
    other = rng.randrange(len(entries))
    contents = entries[place][1], entries[other][1]
    entries[place], entries[other] = (entries[place][0], contents[1]), (entries[other][0], contents[0])
    return entries


def _empty(entries: Entries, place: int, rng: random.Random) -> Entries:
    entries[place] = entries[place][0], b""
    return entries


def _bomb(entries: Entries, place: int, rng: random.Random) -> Entries:
    entries[place] = entries[place][0], bytes(rng.choice([2, 16]) * 2**20)
    return entries


def _add(entries: Entries, place: int, rng: random.Random) -> Entries:
    return [*entries, (rng.choice(["note.txt", entries[0][0].split("/")[0] + "/data/999"]), rng.randbytes(100))]


# Offsets in an entry's record of the central directory, and their sizes.
_CENTRAL = {"method": (10, "H"), "CRC": (16, "I"), "compressed size": (20, "I"), "size": (24, "I"), "offset": (42, "I")}


def _central(raw: bytes, place: int, field: str, rng: random.Random) -> bytes:
    changed, start = bytearray(raw), -1
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        start = archive.start_dir
    for _ in range(place):
        name, extra, comment = struct.unpack_from("<HHH", raw, start + 28)
        start += 46 + name + extra + comment
    offset, kind = _CENTRAL[field]
    most = 2 ** (8 * struct.calcsize(kind)) - 2
    (old,) = struct.unpack_from(f"<{kind}", raw, start + offset)
    new = rng.choice([0, 8, old ^ 1, min(old + 64, most), min(old * 1000, most), most])
    struct.pack_into(f"<{kind}", changed, start + offset, new)
    return bytes(changed)


# --- values -------------------------------------------------------------------------------------------------------

FOREIGN: tuple[Any, ...] = (
    *(None, True, 0, -1, 7, 2**31, 2**70, 0.5, float("nan"), float("inf"), -1e300),
    *("", "x", "os.system", "../x", "\x00", "é" * 3, "a.b.c"),
    *([], {}, [None], [0, 0], [[]], {"x": 1}, {0: 0}, ()),
    *(torch.zeros(0), torch.zeros(3, dtype=torch.int64), torch.full((2,), torch.nan)),
)
"""Values that take the place of others: plain ones and tensors, all of which ``weights_only=True`` loads."""


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything inside nested dictionaries and lists; tensors are ends."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inside = [(key, child) for key, child in items]
    return [path for key, child in inside for path in ((*at, key), *places(child, (*at, key)))]


def damaged_values(value: Any, seed: int = 0, under: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield a deep copy of nested dictionaries, lists and tensors in which one value or key was changed.

    Args:
        value: is left as it is.
        seed: of the choices.
        under: the path of the part to damage, by default all of it.
    """
    rng, paths = random.Random(seed), places(value)
    paths = [path for path in paths if path[: len(under)] == under and path != under] or paths
    while True:
        path, damaged = rng.choice(paths), copy.deepcopy(value)
        parent = damaged
        for key in path[:-1]:
            parent = parent[key]
        label = _change(parent, path[-1], rng)
        yield f"{'.'.join(map(str, path))}: {label}", damaged


def _change(parent: Any, key: Any, rng: random.Random) -> str:
    old, how = parent[key], rng.choice(["replace", "replace", "own", "own", "remove", "key", "repeat"])
    if how == "remove":
        del parent[key]
    elif how == "key" and isinstance(parent, dict):
        parent[rng.choice([f"{key}x", str(key).upper(), "", 0])] = parent.pop(key)
    elif how == "repeat" and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(old))
    elif how == "own":
        parent[key] = _near(old, rng)
        return f"from {_short(old)} to {_short(parent[key])}"
    else:
        how, parent[key] = "replace", copy.deepcopy(rng.choice(FOREIGN))
        return f"from {_short(old)} to {_short(parent[key])}"
    return how


def _near(old: Any, rng: random.Random) -> Any:
    """Return a value of the same type that is wrong."""
    if isinstance(old, torch.Tensor):
        return rng.choice(_TENSORS)(old)
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return rng.choice([old + 1, old - 1, -old, old * 1000, type(old)(0)])
    if isinstance(old, str):
        return rng.choice([old + "x", old[:-1], old.upper(), old.replace(".", "_"), old + "." + old])
    if isinstance(old, list):
        return rng.choice([old[:-1], old[::-1], old * 2, [*old, *old[:1]], [old]])
    return {} if old else {"x": old}


_TENSORS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda t: t[None],
    lambda t: t[:1] if t.dim() else t[None],
    lambda t: t.flatten(),
    lambda t: t.to(torch.float64),
    lambda t: t.to(torch.float16),
    lambda t: t.to(torch.int64),
    lambda t: t.to(torch.complex64),
    lambda t: t.bool(),
    lambda t: t.to_sparse() if t.dim() and t.numel() else t[None],
    lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else t + 1,
    lambda t: torch.full_like(t, torch.inf) if t.is_floating_point() else -t,
    lambda t: t.to("meta"),
    lambda t: t.expand(2, *t.shape),
]
"""Tensors of another shape, precision, layout or device, or without finite values."""


def _short(value: Any) -> str:
    text = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
    text = " ".join(text.split())
    return text if len(text) < 60 else f"{text[:57]}..."
