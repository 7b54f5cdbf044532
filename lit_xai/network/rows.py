"""The samples of a batch: rows of its tensors, and entries of lists that have one for each sample.

A detector's batch holds lists of images, of boxes and of dicts. The tensors at one place in all entries of such a list
are a *column*, whose path has a star in the place of the entry's number: ``targets.*.boxes``. A tensor that has a row
for each sample is a column of its own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from lit_xai.network.arguments import Arguments
from lit_xai.network.trees import is_container, joined, leaves, parts, replaced, with_parts

Column: TypeAlias = Tensor | list[Tensor]
"""A tensor, or those at one place in all entries of a list."""

_ENTRY = "*"


def take(batch: Any, rows: Sequence[int], n: int) -> Any:
    """Return samples of a batch of ``n`` of them: rows of tensors, entries of lists, and everything else as it is.

    Of a list (or tuple) of ``n`` entries, the entries are samples if they are alike, and are dicts or objects with
    tensors, or have tensors without ``n`` rows. Arguments of a call are none.

    Example:
        >>> import torch
        >>> take({"x": torch.arange(4), "scale": torch.ones(1), "name": "a"}, [1, 3], 4)
        {'x': tensor([1, 3]), 'scale': tensor([1.]), 'name': 'a'}
        >>> take({"x": torch.arange(2), "boxes": [torch.zeros(1, 4), torch.zeros(0, 4)]}, [1], 2)
        {'x': tensor([1]), 'boxes': [tensor([], size=(0, 4))]}
    """
    lists = _lists(batch, n)
    chosen = {path: part[list(rows)] for path, part in leaves(batch) if _has_rows(part, n) and not _in(lists, path)}
    taken = replaced(batch, chosen)
    for keys in lists.values():
        taken = _with_entries(taken, keys, rows)
    return taken


def count(batch: Any) -> int:
    """Return the number of samples in a batch, 0 if there is no tensor.

    The rows of the first tensor, or the entries of a list that more of the tensors agree on.

    Example:
        >>> import torch
        >>> count([[torch.zeros(3, 8, 8)] * 5, [{"boxes": torch.zeros(2, 4)}] * 5])
        5
        >>> count({"scale": torch.ones(()), "image": torch.zeros(8, 3)})
        8
    """
    tensors = dict(leaves(batch))
    rows = [len(tensor) for tensor in tensors.values() if tensor.dim()][:1]
    found = {n: _lists(batch, n) for n in (*rows, *(len(one) for *_, one in _lists_in(batch, "")))}
    agreeing = {n: sum(_has_rows(t, n) or _in(found[n], path) for path, t in tensors.items()) for n in found}
    return max(agreeing, key=agreeing.__getitem__) if any(agreeing.values()) else 0


def columns(batch: Any) -> dict[str, Column]:
    """Return the tensors of a batch by path, those of the entries of a list together.

    Example:
        >>> import torch
        >>> list(columns({"image": torch.zeros(2, 3), "boxes": [torch.zeros(1, 4), torch.zeros(0, 4)]}))
        ['image', 'boxes.*']
    """
    lists = _lists(batch, count(batch))
    found: dict[str, Column] = {}
    for path, tensor in leaves(batch):
        inside = next((one for one in lists if _in({one: ()}, path)), None)
        if inside is None:
            found[path] = tensor
        else:
            rest = path[len(inside) :].lstrip(".").partition(".")[2]
            column: Any = found.setdefault(joined(joined(inside, _ENTRY), rest) if rest else joined(inside, _ENTRY), [])
            column.append(tensor)
    return found


def column(batch: Any, path: str) -> Column | None:
    """Return the tensors at a path that :func:`columns` gave of another batch; ``None`` if there is none.

    Example:
        >>> import torch
        >>> column({"boxes": [torch.zeros(1, 4)]}, "boxes.*")
        [tensor([[0., 0., 0., 0.]])]
    """
    found = [tensor for _, tensor in _at(batch, path)]
    if is_list(path):
        return found or None
    return found[0] if found else None


def is_list(path: str) -> bool:
    """Return whether a column consists of the tensors in the entries of a list.

    Example:
        >>> is_list("targets.*.boxes"), is_list("image")
        (True, False)
    """
    return _ENTRY in path.split(".")


def with_columns(batch: Any, others: Mapping[str, Column]) -> Any:
    """Return a batch with other columns, and with as many samples of everything else.

    Args:
        batch: is left as it is; where the number of samples changes, its samples are repeated or left out.
        others: by path.

    Example:
        >>> import torch
        >>> with_columns({"x": torch.zeros(1), "y": torch.ones(1)}, {"x": torch.zeros(2)})
        {'x': tensor([0., 0.]), 'y': tensor([1., 1.])}
    """
    pairs = [(old, new) for path, new in others.items() if (old := column(batch, path)) is not None]
    sizes = {(len(old), len(new)) for old, new in pairs if _counts(old) and _counts(new)}
    if len(sizes) == 1 and (size := next(iter(sizes)))[0] != size[1]:
        batch = take(batch, [row % size[0] for row in range(size[1])], size[0])
    tensors: dict[str, Tensor] = {}
    for path, new in others.items():
        places = [place for place, _ in _at(batch, path)]
        tensors.update(zip(places, [new] if isinstance(new, Tensor) else new, strict=True))
    return replaced(batch, tensors)


def _counts(one: Column) -> bool:
    return isinstance(one, list) or one.dim() > 0


def _at(batch: Any, path: str) -> list[tuple[str, Tensor]]:
    if not is_list(path):
        return [(place, tensor) for place, tensor in leaves(batch) if place == path]
    pattern = re.compile(r"\.".join(r"\d+" if key == _ENTRY else re.escape(key) for key in path.split(".")))
    return [(place, tensor) for place, tensor in leaves(batch) if pattern.fullmatch(place)]


def _has_rows(tensor: Tensor, n: int) -> bool:
    return tensor.dim() > 0 and len(tensor) == n


def _in(lists: Mapping[str, Any], path: str) -> bool:
    return any(not one or path == one or path.startswith(f"{one}.") for one in lists)


def _lists(batch: Any, n: int) -> dict[str, tuple[int, ...]]:
    """Return the paths of lists that have an entry for each of ``n`` samples, and the places that lead there."""
    lists = [one for one in _lists_in(batch, "") if len(one[2]) == n]
    found = [(path, keys, _verdict(value, n, not keys)) for path, keys, value in lists]
    # Views of all samples and images of three channels look alike, unless other lists tell.
    least = _MAYBE if any(verdict == _CERTAIN for *_, verdict in found) else _CERTAIN
    chosen: dict[str, tuple[int, ...]] = {}
    for path, keys, verdict in found:
        if verdict >= least and not _in(chosen, path):  # the outer one of two
            chosen[path] = keys
    return chosen


def _lists_in(
    value: Any, path: str, keys: tuple[int, ...] = (), within: tuple[Any, ...] = ()
) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Yield lists and tuples, but for those that are the arguments of a call, with their paths and places."""
    if isinstance(value, Tensor) or not is_container(value) or any(value is one for one in within):
        return
    if type(value) is list or (type(value) is tuple and keys):
        yield path, keys, value
    for place, (key, part) in enumerate(parts(value)):
        inside = _lists_in(part, joined(path, key), (*keys, place), (*within, value))
        yield from (one for one in inside if not (isinstance(value, Arguments) and one[2] is value.args))


_NO, _MAYBE, _CERTAIN = range(3)


def _verdict(entries: Sequence[Any], n: int, is_root: bool) -> int:
    """Return whether the entries of a list are samples."""
    first = entries[0] if entries else None
    if not all(type(one) is type(first) for one in entries):
        return _NO
    if isinstance(first, str):
        return _NO if is_root else _MAYBE
    tensors = [list(leaves(one)) for one in entries]
    if not any(tensors):
        return _NO
    is_other = any(not _has_rows(tensor, n) for one in tensors for _, tensor in one)
    if isinstance(first, Tensor):
        alike = all(one.dim() == first.dim() and one.dtype == first.dtype for one in entries)
        return _NO if is_root or not alike else _CERTAIN if is_other else _MAYBE
    if isinstance(first, (list, tuple)) and len({tuple(path for path, _ in one) for one in tensors}) > 1:
        return _NO  # a list of images and one of targets
    # A list of batches, and one sample in a list, have the rows of a batch.
    is_batch = isinstance(first, (list, tuple)) or is_root or n == 1
    return _CERTAIN if is_other or not is_batch else _MAYBE


def _with_entries(value: Any, keys: tuple[int, ...], rows: Sequence[int]) -> Any:
    if not keys:
        return type(value)([value[row] for row in rows])
    own = [part for _, part in parts(value)]
    own[keys[0]] = _with_entries(own[keys[0]], keys[1:], rows)
    return with_parts(value, own)
