"""The files of a report: written whole or not at all, and made anew from the samples to see whether any was changed."""

import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lit_xai.export.folder import staged
from lit_xai.report.card import model_card
from lit_xai.report.page import page
from lit_xai.report.record import ARRAYS, FACTS, Record, read_json
from lit_xai.report.summary import summary

PAGE, NUMBERS, CARD, MANIFEST = "report.html", "report.json", "model_card.md", "manifest.json"
SOURCES, MADE = (ARRAYS, FACTS), (PAGE, NUMBERS, CARD)
FILES = (*SOURCES, *MADE, MANIFEST)
"""The files of a report."""

SIGNATURE = "manifest.json.sig"
"""A signature of the manifest, where somebody signed it."""


def write(record: Record, folder: Path) -> str:
    """Write a record and its report into a folder: all files or, after an error, none.

    Args:
        record: what was measured.
        folder: is created; other files in it stay, but a signature only if it still fits.

    Returns:
        The root digest, by which whoever keeps it can tell this report from any other.

    Raises:
        ValueError: the folder cannot be written to, the disk is full, or the record holds what no report shows; one
            sentence. What was in the folder is left as it was.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from lit_xai.report.record import Candidate
        >>> record = Record((Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))), "classes")
        >>> folder = Path(tempfile.mkdtemp()) / "report"
        >>> root = write(record, folder)
        >>> sorted(file.name for file in folder.iterdir())
        ['facts.json', 'manifest.json', 'model_card.md', 'report.html', 'report.json', 'samples.npz']
        >>> verify(folder, root)
        []
    """
    folder = Path(folder)
    with staged(folder, files=(*FILES, SIGNATURE)) as temporary:
        record.save(temporary)
        # From what is on the disk, as it will be made again: JSON knows neither tuples nor NaN.
        for name, text in made_from(Record.load(temporary)).items():
            (temporary / name).write_bytes(text.encode())
        digests = _digests(temporary)
        root = _root(digests)
        manifest = _json({"files": digests, "root": root}).encode()
        (temporary / MANIFEST).write_bytes(manifest)
        is_signed = (folder / SIGNATURE).is_file() and (folder / MANIFEST).is_file()
        if is_signed and (folder / MANIFEST).read_bytes() == manifest:
            shutil.copyfile(folder / SIGNATURE, temporary / SIGNATURE)
    return root


def made_from(record: Record) -> dict[str, str]:
    """Return the text of each file that is made from a record.

    Args:
        record: what was measured.
    """
    numbers = summary(record)
    return {PAGE: page(record, numbers), NUMBERS: _json(numbers), CARD: model_card(record, numbers)}


def verify(folder: Path, digest: str = "") -> list[str]:
    """Make a report again from its samples and facts, and compare it byte for byte, and all files with their hashes.

    This finds accidents. Whoever changes samples, report and manifest alike is found by a digest that is kept
    elsewhere.

    Args:
        folder: of the report.
        digest: the root digest as it was printed when the report was written.

    Returns:
        A sentence for each difference, without its full stop; none if there is none.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        return [f"{folder / name} is missing" for name in missing]
    return [*_remade(folder), *_hashes(folder, digest)]


def root_digest(folder: Path) -> str:
    """Return the one digest of all files of a report, as they are now, but the manifest.

    It is that of the list that ``sha256sum`` prints of them, sorted by name.

    Args:
        folder: of the report.

    Raises:
        OSError: a file is missing.
    """
    return _root(_digests(Path(folder)))


def check_new(folder: Path, overwrite: bool = False, files: Collection[str] = FILES) -> None:
    """Refuse a folder that holds a report, before any work is done for another.

    Args:
        folder: to write to; it need not exist.
        overwrite: whether it may hold one.
        files: what a report, or whatever else is written, consists of.

    Raises:
        ValueError: it holds a report, or is a file.

    Example:
        >>> check_new(Path("no such folder"))
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"dirpath expected a folder, but got the file {folder}.")
    found = [name for name in files if (folder / name).exists()]
    if found and not overwrite:
        raise ValueError(
            f"dirpath expected a folder without an earlier report, but {folder} holds {', '.join(found)}: name another,"
            " or give overwrite=True."
        )


def _remade(folder: Path) -> list[str]:
    try:
        made = made_from(Record.load(folder))
    except (OSError, ValueError) as error:
        return [str(error).rstrip(".")]
    return [
        f"{folder / name} is not what its samples and facts give, from byte {_first(expected, found)} on"
        for name, text in made.items()
        if (expected := text.encode()) != (found := (folder / name).read_bytes())
    ]


def _first(expected: bytes, found: bytes) -> int:
    """Return the place of the first byte that differs."""
    pairs = zip(expected, found, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(found)))


def _hashes(folder: Path, digest: str) -> list[str]:
    known, digests = _manifest(folder / MANIFEST), _digests(folder)
    if isinstance(known, str):
        return [known]
    changed = [name for name, one in digests.items() if known[name] != one]
    found = [f"{folder / name} has another hash than in {MANIFEST}" for name in changed]
    root = _root(digests)
    if not found and known["root"] != root:
        found.append(f"{folder / MANIFEST} has another root digest than that of its files")
    if digest and digest.strip().lower() != root:
        found.append(f"{folder} has the root digest {root}, and not {digest.strip()[:64]}")
    return found


def _digests(folder: Path) -> dict[str, str]:
    return {name: _sha256(folder / name) for name in sorted((*SOURCES, *MADE))}


def _root(digests: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{one}  {name}\n" for name, one in digests.items()).encode()).hexdigest()


def _manifest(path: Path) -> dict[str, str] | str:
    """Return the digests that a manifest lists, and its root; or a sentence on why it is none."""
    try:
        plain: Any = read_json(path)
    except (OSError, ValueError) as error:
        return str(error).rstrip(".")
    files = plain.get("files") if isinstance(plain, dict) else None
    if not isinstance(files, dict) or sorted(files) != sorted((*SOURCES, *MADE)) or sorted(plain) != ["files", "root"]:
        return f"{path} expected a digest for each of {', '.join((*SOURCES, *MADE))}, and their root"
    return {**files, "root": plain["root"]}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(values: Any) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
