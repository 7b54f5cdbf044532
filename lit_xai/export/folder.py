"""The folder of an export: written whole or not at all, and never overwritten by accident."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lit_xai.network.check import refusal

FILES = ("model.onnx", "model.int8.onnx", "model.pt2", "sample.npz", "infer.py", "report.md", "report.json")
"""The files of an export, in the order in which they appear."""

_TEMPORARY = ".export-"


def check_folder(dirpath: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return the folder as a path, if an export may be written into it.

    Args:
        dirpath: the folder's path; the folder need not exist.
        overwrite: whether it may hold files of an earlier export.

    Raises:
        ValueError: it holds such files, or the path is a file's.

    Example:
        >>> check_folder("no such folder").name
        'no such folder'
    """
    if not isinstance(dirpath, (str, os.PathLike)) or not str(dirpath):
        raise refusal("dirpath", "a folder's path", dirpath)
    path = Path(dirpath)
    if path.exists() and not path.is_dir():
        raise ValueError(f"dirpath expected a folder, but got the file {path}.")
    found = [name for name in FILES if (path / name).exists()]
    if found and not overwrite:
        raise ValueError(
            f"dirpath expected a folder without an earlier export, but {path} holds {', '.join(found)}: name another,"
            " or give overwrite=True."
        )
    return path


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files replace the folder's own after the body, but not after an exception.

    It is inside the folder, so that each file is moved in one step of the file system. Files of an earlier export that
    this one does not have are deleted, since they would not belong to the others; so are those of a killed process.

    Args:
        folder: the folder to write to; created if it does not exist.

    Raises:
        ValueError: the folder cannot be created or written to.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with staged(folder) as temporary:
        ...     _ = (temporary / "report.md").write_text("all is well")
        >>> [file.name for file in folder.iterdir()]
        ['report.md']
    """
    created = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=_TEMPORARY))
    except OSError as error:
        _remove_empty(created)
        raise ValueError(
            f"dirpath expected a folder that can be written to, but got {folder}: {error.strerror}."
        ) from None
    try:
        yield temporary
        _move(temporary, folder)
        created = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(created)


def _move(temporary: Path, folder: Path) -> None:
    # The report comes last, so that a folder with a report is complete.
    names = sorted((file.name for file in temporary.iterdir()), key=lambda name: FILES.index(name))
    for name in FILES:
        if name not in names:
            (folder / name).unlink(missing_ok=True)
    for name in names:
        os.replace(temporary / name, folder / name)
    for left in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _missing(folder: Path) -> list[Path]:
    """Return the folders that do not exist yet, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
