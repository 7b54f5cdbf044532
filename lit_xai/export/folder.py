"""The folder of an export: the files of the old export or of the new one, never some of both."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from lit_xai.export.swap import prefix, remove, roll_forward, swap
from lit_xai.network.check import refusal

FILES = (
    *("model.onnx", "model.int8.onnx", "model.pt2", "model.pte", "sample.npz", "infer.py"),
    *("layers.md", "layers.png", "report.md", "report.json"),
)
"""The files of an export."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


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
def staged(folder: Path, overwrite: bool = True, files: Collection[str] = FILES) -> Iterator[Path]:
    """Yield a temporary folder whose files replace the folder's own after the body, but not after an exception.

    Whoever is killed at whatever moment leaves the old files or the new ones: on Linux the two folders change places in
    one step, see :func:`~lit_xai.export.swap.swap` for what happens elsewhere. Files of an earlier export that
    this one does not have go with it, since they would not belong to the others; other files in the folder stay.

    Args:
        folder: the folder to write to; created if it does not exist.
        overwrite: whether it may hold files of an earlier export.
        files: the names of all that an export, or whatever else is written, may have.

    Raises:
        ValueError: the folder cannot be created or written to, the disk is full, another process is exporting to it, or
            it holds an earlier export; what was there is left as it was.

    Example:
        >>> folder = Path(tempfile.mkdtemp()) / "export"
        >>> with staged(folder) as temporary:
        ...     _ = (temporary / "report.md").write_text("all is well")
        >>> [file.name for file in folder.iterdir()]
        ['report.md']
    """
    folder = folder.resolve()  # a link is followed, rather than replaced
    created = _missing(folder)
    try:
        place = _place(folder)
        with _alone(place / f".{folder.name}.lock", folder), _full_disk_in_a_sentence(folder):
            roll_forward(place, folder, files)  # what a killed process left
            check_folder(folder, overwrite)
            temporary = Path(tempfile.mkdtemp(dir=place, prefix=prefix(folder)))
            try:
                yield temporary
                swap(temporary, folder, files)
                created = []
            finally:
                remove(temporary)
                if created:
                    (place / f".{folder.name}.lock").unlink()  # or the new folders would stay
    except _InUseError:
        created = []  # the folder that this one made may be the other's by now, which has not filled it yet
        raise
    finally:
        _remove_empty(created)


class _InUseError(ValueError):
    """Another process is exporting to the folder."""


def _place(folder: Path) -> Path:
    """Return where to put a temporary folder and the lock, so that files can be moved to the folder in one step.

    Beside the folder, so that the two can change places; inside, where its parent is not ours or on another disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"dirpath expected a folder that can be written to, but got {folder}: {error.strerror}."
        ) from None
    nothing = f"{prefix(folder)}nothing"
    try:
        os.rename(folder.parent / nothing, folder / nothing)
    except FileNotFoundError:  # as it should be: Linux refuses a move to another disk before it looks for the file
        is_one_disk = folder.parent.stat().st_dev == folder.stat().st_dev
        return folder.parent if is_one_disk and os.access(folder.parent, os.W_OK) else folder
    except OSError:
        pass
    return folder


@contextlib.contextmanager
def _full_disk_in_a_sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:  # of the user's data, say
            raise
        raise ValueError(
            f"dirpath expected a folder with room for the files, but writing to {folder} failed: {error.strerror}; what"
            " was there is left as it was."
        ) from None


@contextlib.contextmanager
def _alone(lock_file: Path, folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, in a hidden file that stays."""
    from filelock import FileLock, Timeout  # a requirement of torch

    lock = FileLock(lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise _InUseError(
            f"dirpath expected a folder for this export alone, but another process is exporting to {folder}: wait until"
            " it has ended, or name another folder."
        ) from None
    except (OSError, NotImplementedError) as error:  # of another user, or on a file system without locks
        raise ValueError(f"dirpath expected a folder that can be locked, but got {folder}: {error}.") from None
    try:
        yield
    finally:
        lock.release()


def _missing(folder: Path) -> list[Path]:
    """Return the folders that do not exist yet, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
