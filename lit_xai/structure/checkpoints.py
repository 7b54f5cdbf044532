"""Checkpoint files and the weights in them: read, or refused in one sentence.

torch is imported once a file is read: the command line looks for files before that.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile, is_zipfile

from lit_xai.network.spelling import nearest

if TYPE_CHECKING:
    from torch import Tensor, nn


def require_file(path: str | Path, keywords: Iterable[str] = ()) -> None:
    """Refuse a checkpoint that is not there.

    Args:
        path: the file.
        keywords: words that are valid in place of a path and may have been misspelled.

    Raises:
        FileNotFoundError: there is no such file; names the nearest in its folder.
        IsADirectoryError: it is a folder; names the newest complete checkpoint in it.
    """
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder: name a checkpoint in it.{_newest_beside(file)}")
    if not file.is_file():
        known = [*keywords, *map(str, file.parent.glob("*.ckpt"))]
        raise FileNotFoundError(f"there is no file '{path}'.{nearest(str(path), known)}")


def read_checkpoint(
    path: str | Path,
    weights_only: bool | None = None,
    trust: str = "add weights_only=False",
    argument: str = "",
    keywords: Iterable[str] = (),
) -> dict[str, Any]:
    """Read a Lightning checkpoint; tensors are memory-mapped rather than copied where the format allows it.

    Args:
        path: a file that a Trainer wrote.
        weights_only: ``False`` to unpickle objects of any class, which may run code of the file's author; by default
            only tensors and plain values are loaded.
        trust: the advice to a user who trusts the file, for the error.
        argument: the name of the argument, for errors about a file that exists.
        keywords: see :func:`require_file`.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: it is no Lightning checkpoint, is damaged, or holds more than tensors and plain values.
    """
    import torch

    require_file(path, keywords)
    file = f"{argument}='{path}'" if argument else f"'{path}'"
    try:
        # Files in the format before torch 1.6 are not zip files, and cannot be memory-mapped.
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only is not False, mmap=is_zipfile(path))
    except PermissionError:
        raise
    except Exception as error:  # bytes that are no pickle end in any error there is
        raise ValueError(f"{file} {_why_unreadable(path, str(error), trust)}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(
            f"{file} is no checkpoint of a Lightning Trainer: it has no 'state_dict'. If it holds weights alone, load"
            " them into a module yourself."
        )
    return checkpoint


def _why_unreadable(path: str | Path, reason: str, trust: str) -> str:
    # torch names the first class that weights_only=True does not load in these words.
    foreign = re.search(r"GLOBAL (\S+)", reason)
    if foreign:
        return (
            f"holds an object of {foreign[1]}, whose unpickling may run code of the file's author: if you trust the"
            f" file, {trust}."
        )
    return f"is damaged, or no checkpoint of a Lightning Trainer.{_newest_beside(path)}"


def _newest_beside(path: str | Path) -> str:
    newest = newest_whole_checkpoint(path)
    return "" if newest is None else f" The newest whole checkpoint in that folder is '{newest}'."


def newest_whole_checkpoint(path: str | Path) -> Path | None:
    """Return the checkpoint written last in a folder that can be read to its end, or ``None``.

    Args:
        path: the folder, or a checkpoint in it, damaged or not. A link counts as the file that it points to.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    # last.ckpt may be a link to another file of the folder, which is listed itself.
    files = [file for file in folder.glob("*.ckpt") if file.is_file() and not file.is_symlink()]
    newest_first = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return next((file for file in newest_first if _is_whole(file)), None)


def _is_whole(file: Path) -> bool:
    try:
        with ZipFile(file) as archive:
            # Only the checksums tell of damage in the middle, and torch.load verifies none.
            return archive.testzip() is None and any(Path(n).name == "data.pkl" for n in archive.namelist())
    except (BadZipFile, OSError, EOFError, NotImplementedError):
        return False


def first_mismatch(saved: "Mapping[str, Tensor]", own: "Mapping[str, Tensor]", strict: bool = True) -> str:
    """Return a sentence on the first weight of a file that does not fit the model, empty if all fit.

    Args:
        saved: the file's weights.
        own: the model's.
        strict: whether names have to be the same too.

    Example:
        >>> import torch
        >>> first_mismatch({"0.weight": torch.zeros(2, 3)}, {"0.weight": torch.zeros(4, 3)})
        "'0.weight' has shape (2, 3) in the file, but (4, 3) in the model."
    """
    for name, tensor in own.items():
        if name not in saved:
            if strict:
                return f"'{name}' is missing in the file.{nearest(name, saved)}"
        elif saved[name].shape != tensor.shape:
            return f"'{name}' has shape {tuple(saved[name].shape)} in the file, but {tuple(tensor.shape)} in the model."
    surplus = next((name for name in saved if name not in own), None) if strict else None
    return "" if surplus is None else f"'{surplus}' of the file is not in the model.{nearest(surplus, own)}"


def advise_arguments(module: "nn.Module", saved: Mapping[str, Any]) -> str:
    """Return a sentence on how to build a module that fits a checkpoint.

    Args:
        module: a LightningModule that the checkpoint does not fit.
        saved: the hyperparameters in the checkpoint.

    Example:
        >>> from torch import nn
        >>> advise_arguments(nn.Linear(2, 2), {})
        'Build Linear with the arguments that it was trained with.'
    """
    # Only plain values: two objects of one class need not compare equal.
    own, plain = getattr(module, "hparams", {}), (bool, int, float, str)
    other = [
        f"{name}={value!r} rather than {own[name]!r}"
        for name, value in saved.items()
        if name in own and isinstance(value, plain) and isinstance(own[name], plain) and own[name] != value
    ]
    which = f": {', '.join(other)}" if other else ""
    return f"Build {type(module).__name__} with the arguments that it was trained with{which}."
