"""Checkpoint files and the weights in them: read, or refused in one sentence.

torch is imported once a file is read: the command line looks for files before that.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_xai.network.spelling import nearest
from lit_xai.structure.archive import Entry, check_archive, has_zip_header, limit_of
from lit_xai.structure.content import first_mistake, first_not_finite, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn

_PAGE = 4096


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
    """Read a Lightning checkpoint, once its checksums agree.

    Tensors are memory-mapped rather than copied where the format allows it. Warns of weights that are not finite, as
    those of a diverged run are.

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
    # Files in the format before torch 1.6 are not zip files: they have no checksums, and cannot be memory-mapped.
    entries = _checked_entries(path, file) if has_zip_header(path) else []
    # Mapped, a compressed entry would give its compressed bytes as weights.
    mapped = bool(entries) and not any(entry.is_packed for entry in entries)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a damaged file seems to be
            checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only is not False, mmap=mapped)
    except PermissionError:
        raise
    except Exception as error:  # bytes that are no pickle end in any error there is
        raise ValueError(f"{file} {_why_unreadable(path, str(error), trust)}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(
            f"{file} is no checkpoint of a Lightning Trainer: it has no 'state_dict'. If it holds weights alone, load"
            " them into a module yourself."
        )
    if weights_only is not False and (mistake := first_mistake(checkpoint, limit_of(path))):
        raise ValueError(f"{file} is damaged, or no checkpoint of a Lightning Trainer: {mistake}")
    if mapped and not _fill_entries(checkpoint, entries):
        raise ValueError(f"{file} is damaged: a tensor in it has another size than its entry in the file.")
    if infinite := first_not_finite(checkpoint["state_dict"]):
        message = f"{file} holds weights that are not finite, first in '{infinite}': its run diverged."
        warnings.warn(message, stacklevel=2)
    return checkpoint


def _checked_entries(path: str | Path, file: str) -> list[Entry]:
    try:
        return check_archive(path)
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged, or no checkpoint of a Lightning Trainer: {error}.{_newest_beside(path)}"
        ) from error


def _why_unreadable(path: str | Path, reason: str, trust: str) -> str:
    # torch names the first class that weights_only=True does not load in these words.
    foreign = re.search(r"GLOBAL ([A-Za-z_][\w.]*) (?:was|whose)", reason)
    if foreign:
        return (
            f"holds an object of {foreign[1]}, whose unpickling may run code of the file's author: if you trust the"
            f" file, {trust}."
        )
    return f"is damaged, or no checkpoint of a Lightning Trainer.{_newest_beside(path)}"


def _fill_entries(checkpoint: dict[str, Any], entries: list[Entry]) -> bool:
    """Return whether each mapped tensor's memory is a whole entry of the file: torch checks that for copies alone."""
    storages = {s.data_ptr(): s.nbytes() for t in tensors_in(checkpoint) if (s := _storage(t)) is not None}
    used = [(place, size) for place, size in storages.items() if size]
    sizes = {entry.start: entry.size for entry in entries}
    if not used:
        return True
    # Nobody says where in memory the file begins, but at the begin of a page, and all storages count from there.
    begins = (used[0][0] - start for start, size in sizes.items() if size == used[0][1])
    pages = (begin for begin in begins if begin % _PAGE == 0)
    return any(all(sizes.get(place - begin) == size for place, size in used) for begin in pages)


def _storage(tensor: "Tensor") -> Any:
    import torch

    # Sparse tensors have none of their own, and those of other packages may not.
    is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    return tensor.untyped_storage() if is_plain and not tensor.is_meta else None


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
        return any(Path(entry.filename).name == "data.pkl" for entry in check_archive(file))
    except (ValueError, OSError):
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
        elif mistake := _misfit(saved[name], tensor):
            return f"'{name}' {mistake} in the model."
    surplus = next((name for name in saved if name not in own), None) if strict else None
    return "" if surplus is None else f"'{surplus}' of the file is not in the model.{nearest(surplus, own)}"


def _misfit(saved: Any, own: Any) -> str:
    import torch

    if not isinstance(own, torch.Tensor):  # the extra state of a module, which checks it itself
        return ""
    if not isinstance(saved, torch.Tensor):
        return f"is of type {type(saved).__name__} in the file, but a tensor"
    if torch.nn.parameter.is_lazy(own):  # takes any shape
        return ""
    if saved.shape != own.shape:
        return f"has shape {tuple(saved.shape)} in the file, but {tuple(own.shape)}"
    # Another precision of the same kind is converted without harm; integers for weights are not what was trained.
    if _kind(saved) != _kind(own) or saved.is_meta:
        return f"is {'without values' if saved.is_meta else saved.dtype} in the file, but {own.dtype}"
    return ""


def _kind(tensor: "Tensor") -> str:
    if tensor.is_floating_point() or tensor.is_complex():
        return "complex" if tensor.is_complex() else "floating"
    return str(tensor.dtype) if str(tensor.dtype) == "torch.bool" or tensor.is_quantized else "integer"


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
        for name, value in (saved.items() if isinstance(saved, Mapping) else ())
        if name in own and isinstance(value, plain) and isinstance(own[name], plain) and own[name] != value
    ]
    which = f": {', '.join(other)}" if other else ""
    return f"Build {type(module).__name__} with the arguments that it was trained with{which}."
