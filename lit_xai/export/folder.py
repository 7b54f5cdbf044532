"""The folder that an export is written into: whole, or not at all, and nothing in it lost by accident."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

FILES = ("model.onnx", "model.int8.onnx", "model.pt2", "sample.npz", "infer.py", "report.md", "report.json")
"""What an export may consist of, in the order in which the files appear."""

_TEMPORARY = ".export-"


def check_folder(dirpath: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return the folder as a path, if an export may be written into it.

    Args:
        dirpath: need not be there yet.
        overwrite: whether files of an earlier export may lie there.

    Raises:
        ValueError: there are such files, or the path is a file's.

    Example:
        >>> check_folder("no such folder").name
        'no such folder'
    """
    if not isinstance(dirpath, (str, os.PathLike)) or not str(dirpath):
        raise ValueError(f"dirpath expected a folder's path, but got {dirpath!r}.")
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
    """Give a temporary folder whose files replace the folder's own after the body, but not after an exception.

    It lies inside the folder: a move from there is one step of the file system. Files of an earlier export that this
    one does not have are deleted, as they would not belong to what lies beside them; so is what a killed process left.

    Args:
        folder: where the files are to lie; made if it is not there.

    Raises:
        ValueError: it cannot be made or written to.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with staged(folder) as temporary:
        ...     _ = (temporary / "report.md").write_text("all is well")
        >>> [file.name for file in folder.iterdir()]
        ['report.md']
    """
    made = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=_TEMPORARY))
    except OSError as error:
        _remove_empty(made)
        raise ValueError(
            f"dirpath expected a folder that can be written to, but got {folder}: {error.strerror}."
        ) from None
    try:
        yield temporary
        _move(temporary, folder)
        made = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(made)


def _move(temporary: Path, folder: Path) -> None:
    names = sorted((file.name for file in temporary.iterdir()), key=lambda name: FILES.index(name))
    for name in FILES:
        if name not in names:
            (folder / name).unlink(missing_ok=True)
    for name in names:
        os.replace(temporary / name, folder / name)
    for left in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _missing(folder: Path) -> list[Path]:
    """Return the folders that are not there yet, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
