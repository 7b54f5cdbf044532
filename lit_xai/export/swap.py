"""Replace the files of a folder by others in one step, as far as the operating system has one."""

import contextlib
import ctypes
import glob
import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

_CURRENT, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux

_CACHE = "__pycache__"  # of the script that goes with the folder

_LIST = ".list"  # the names of a complete export's files, moved or not


def prefix(folder: Path) -> str:
    """Return how the names of temporary folders for a folder begin."""
    return f".{folder.name}.new-"


def swap(temporary: Path, folder: Path, names: Collection[str]) -> None:
    """Replace the files of these names in a folder by those in another, which is gone or empty afterwards.

    The two folders change places in one step, after the folder's other files were linked into the new one. Where that
    is impossible (not on Linux; the folder is a disk, belongs to somebody else, holds other folders, or is where this
    process works) files are moved one by one: from a folder whose name says that it is complete, after all old files
    are gone. Whoever is killed then leaves some of the new files and none of the old, and :func:`roll_forward` moves
    the rest.

    Args:
        temporary: holds files of these names alone; on the same disk.
        folder: holds any files.
        names: of the files that belong together.

    Raises:
        OSError: the disk is full or broken; the old files are left as they were, or :func:`roll_forward` completes the
            new ones.
    """
    written = sorted(path.name for path in temporary.iterdir())
    for path in (*temporary.iterdir(), temporary):
        _to_disk(path)
    if not _exchanged(temporary, folder, names):
        complete = _complete(temporary.parent, folder)
        (temporary / _LIST).write_text("\n".join(written), encoding="utf-8")
        os.rename(temporary, complete)
        _move(complete, folder, names)
    _to_disk(folder.parent)


def roll_forward(place: Path, folder: Path, names: Collection[str]) -> None:
    """Complete what a killed process began, and remove what it left; call it with the folder's lock held.

    Args:
        place: the folder in which temporary ones are.
        folder: the one that was written to.
        names: of the files that belong together.
    """
    complete = _complete(place, folder)
    if complete.is_dir():
        _move(complete, folder, names)
    # Those of earlier releases were inside, under another name.
    for left in (*place.glob(f"{glob.escape(prefix(folder))}*"), *folder.glob(".export-*")):
        _keep_others(left, folder, names, is_newer=False)
        remove(left)


def remove(folder: Path) -> None:
    """Remove a folder, whatever is in it, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def _complete(place: Path, folder: Path) -> Path:
    return place / f".{folder.name}.complete"


def _exchanged(temporary: Path, folder: Path, names: Collection[str]) -> bool:
    """Return whether the folders could change places; nothing has changed where not."""
    others = [path for path in folder.iterdir() if path.name not in names and path.name != _CACHE]
    linked: list[Path] = []
    try:
        before, now = folder.stat(), temporary.stat()
        is_ours = (before.st_uid, before.st_gid, before.st_dev) == (now.st_uid, now.st_gid, now.st_dev)
        is_in_use = folder in (Path.cwd(), *Path.cwd().parents)
        if not is_ours or is_in_use or temporary.parent == folder or any(path.is_dir() for path in others):
            return False
        for path in others:
            os.link(path, temporary / path.name, follow_symlinks=False)
            linked.append(temporary / path.name)
        mode = temporary.stat().st_mode
        shutil.copystat(folder, temporary)
        if not _exchange(temporary, folder):
            temporary.chmod(mode)
            raise OSError
    except (OSError, NotImplementedError):
        for path in linked:
            path.unlink()
        return False
    _keep_others(temporary, folder, names, is_newer=True)
    remove(temporary)
    return True


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc has it since 2.28
    if rename is None:
        return False
    return bool(rename(_CURRENT, os.fsencode(first), _CURRENT, os.fsencode(second), _EXCHANGE) == 0)


def _keep_others(old: Path, folder: Path, names: Collection[str], is_newer: bool) -> None:
    """Move what somebody has saved in an old folder since its files were linked into the new one."""
    for path in old.iterdir():
        new = folder / path.name
        if path.name not in {*names, _CACHE, _LIST} and (is_newer or not os.path.lexists(new)):
            with contextlib.suppress(OSError):  # of a folder that is there already
                os.rename(path, new)  # does nothing where both are links to one file


def _move(complete: Path, folder: Path, names: Collection[str]) -> None:
    """Move the files of a complete export, or those that are left; it may be killed at any time and called again."""
    waiting = {path.name for path in complete.iterdir()} - {_LIST}
    if waiting:
        moved = {*(complete / _LIST).read_text(encoding="utf-8").split("\n")} - waiting
        for name in {*names} - moved:
            (folder / name).unlink(missing_ok=True)
        _to_disk(folder)
        for name in waiting:
            os.replace(complete / name, folder / name)
        _to_disk(folder)
    remove(complete)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    with contextlib.suppress(PermissionError, IsADirectoryError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
