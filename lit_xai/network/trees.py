"""The tensors in a value of any shape: a batch, the arguments of a call, an output.

Values are nested as data loaders and networks nest them: mappings, lists, tuples, dataclasses, and objects that hold
their tensors as attributes, such as a graph or a token batch. Containers of Python are rebuilt; any other object is
copied by ``copy.deepcopy``, whose memo already holds the tensors to put in place of its own, or item by item.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import is_dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lit_xai.network.spelling import nearest


class Held:
    """A value that is held fixed: none of its tensors is found in it.

    Args:
        value: anything.

    Example:
        >>> list(leaves(Held(torch.zeros(2))))
        []
    """

    def __init__(self, value: Any) -> None:
        self.value = value


_PLAIN = (str, bytes, int, float, complex, type(None), np.ndarray, np.generic, torch.Size, torch.device, torch.dtype)
# A batch may refer to them; their tensors are none of the batch's.
_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
_OTHERS = (Held, nn.Module, Dataset, DataLoader, torch.Generator)
_PACKAGES = ("lightning", "pytorch_lightning", "lightning_fabric")  # a Trainer, a DataModule, a logger
_DEPTH = 4  # objects within objects; a graph keeps its tensors in the second


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in a value with its path: keys, positions and attributes, joined by dots.

    A tensor in two places of a list, tuple, dict or dataclass is yielded for each, and one in two places of another
    object for the first only. Private attributes that hold a part of an object leave no trace in a path.

    Args:
        value: anything. Modules, datasets and loaders in it are not searched.
        name: of the value itself, the first part of every path.

    Example:
        >>> [path for path, _ in leaves({"image": torch.zeros(1), "more": (torch.zeros(1), 3)})]
        ['image', 'more.0']
        >>> [path for path, _ in leaves(torch.zeros(1))]
        ['']
    """
    taken: dict[str, int] = {}
    for path, tensor in _tensors(value, name, ()):
        # {"0": a, 0: b} and {"a.b": a, "a": {"b": b}} hold two tensors of one path.
        taken[path] = taken.get(path, 0) + 1
        yield path if taken[path] == 1 else f"{path}~{taken[path]}", tensor


def replaced(value: Any, tensors: Mapping[str, Any]) -> Any:
    """Return a copy of a value with others in place of the tensors at these paths; the value itself stays as it is.

    What is no tensor is shared with the value or copied, and so are no tensors: those without a replacement are shared.

    Args:
        value: anything.
        tensors: replacements by path, as :func:`leaves` yields them.

    Raises:
        ValueError: there is no tensor at a path, or an object in the value cannot be copied with other tensors.

    Example:
        >>> replaced({"image": torch.zeros(1), "flip": True}, {"image": torch.ones(1)})
        {'image': tensor([1.]), 'flip': True}
    """
    present = dict(leaves(value))
    unknown = [path for path in tensors if path not in present]
    if unknown:
        known = list(present)
        raise ValueError(f"{unknown[0]!r} is the path of no tensor, but {known} are.{nearest(unknown[0], known)}")
    return with_tensors(value, [tensors.get(path, tensor) for path, tensor in present.items()])


def with_tensors(value: Any, tensors: Iterable[Any]) -> Any:
    """Return a copy of a value with others in place of all its tensors, in the order of :func:`leaves`.

    Raises:
        ValueError: as for :func:`replaced`.

    Example:
        >>> with_tensors(({"x": torch.zeros(1)}, "a"), [torch.ones(1)])
        ({'x': tensor([1.])}, 'a')
    """
    return _rebuilt(value, iter(tensors), ())


def to_device(value: Any, device: torch.device) -> Any:
    """Return a value moved to a device: its tensors, and objects that have a method ``to`` (a graph, a token batch).

    Example:
        >>> to_device({"image": torch.zeros(2)}, torch.device("cpu"))
        {'image': tensor([0., 0.])}
    """
    if hasattr(value, "to"):
        moved = value.to(device)
        return value if moved is None else moved  # some move themselves and return nothing
    if is_container(value):
        return with_parts(value, [to_device(part, device) for _, part in parts(value)])
    return changed(value, lambda tensor: tensor.to(device))


def changed(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return a copy of a value with a function applied to each of its tensors.

    Example:
        >>> changed([torch.zeros(2), "a"], lambda tensor: tensor + 1)
        [tensor([1., 1.]), 'a']
    """
    return with_tensors(value, [change(tensor) for _, tensor in leaves(value)])


def with_own_containers(value: Any) -> Any:
    """Return a value with containers of its own around the same tensors: others may write into those.

    Example:
        >>> batch = {"x": torch.zeros(1)}
        >>> copied = with_own_containers(batch)
        >>> copied is batch, copied["x"] is batch["x"]
        (False, True)
    """
    if isinstance(value, Tensor) or _is_opaque(value):
        return value
    try:
        return with_tensors(value, [tensor for _, tensor in leaves(value)])
    except ValueError:  # an object that cannot be copied
        return value


def objects(value: Any) -> list[Any]:
    """Return a value and what is found in it while its tensors are searched, those included.

    Example:
        >>> [type(one).__name__ for one in objects({"x": torch.zeros(1)})]
        ['dict', 'Tensor']
    """
    seen: dict[int, Any] = {}
    for _ in _of_object(value, "", seen, 0):
        pass
    return list(seen.values())


def is_outside(value: Any) -> bool:
    """Return whether a value is no part of what refers to it: a module, a dataset, code, a Trainer or part of torch.

    Example:
        >>> is_outside(nn.ReLU()), is_outside(torch.Generator()), is_outside([1])
        (True, False, False)
    """
    if isinstance(value, (nn.Module, Dataset, DataLoader, *_CODE)):
        return True
    package = type(value).__module__.partition(".")[0]
    return package in _PACKAGES or (package == "torch" and not isinstance(value, torch.Generator))


def _tensors(value: Any, path: str, within: tuple[Any, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif is_container(value):
        if not any(value is one for one in within):
            for key, part in parts(value):
                yield from _tensors(part, joined(path, key), (*within, value))
    else:
        yield from _of_object(value, path, {}, 0)


def _of_object(value: Any, path: str, seen: dict[int, Any], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors in an object, each object in it once: the copy of an object keeps what it holds twice."""
    if id(value) in seen:
        return
    seen[id(value)] = value  # held, or another object may get its id
    if isinstance(value, Tensor):
        yield path, value
    elif depth <= _DEPTH and not _is_opaque(value):
        is_object = not isinstance(value, (Mapping, list, tuple))
        for key, part in parts(value):
            hidden = is_object and key.startswith("_") and not isinstance(part, Tensor)
            yield from _of_object(part, path if hidden else joined(path, key), seen, depth + is_object)


def joined(path: str, key: str) -> str:
    """Return the path of a part."""
    return f"{path}.{key}" if path else key


def _is_opaque(value: Any) -> bool:
    return isinstance(value, (*_PLAIN, *_OTHERS, *_CODE)) or type(value).__module__.partition(".")[0] in _PACKAGES


def is_container(value: Any) -> bool:
    """Return whether a value is rebuilt from its :func:`parts`, rather than copied as a whole."""
    if isinstance(value, tuple):
        return not isinstance(value, _PLAIN)
    # A subclass of dict or list may hold more than its items, and is an object.
    return type(value) in (dict, list) or (is_dataclass(value) and not isinstance(value, (type, Mapping, list)))


def parts(value: Any) -> list[tuple[str, Any]]:
    """Return what a value holds, with its keys, positions or attributes."""
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        # A long list of numbers or words is slow to search.
        words = len(value) > 64 and all(isinstance(part, (str, bytes, int, float)) for part in value[:64])
        names = getattr(value, "_fields", None) or map(str, range(len(value)))
        return list(zip(names, () if words else value, strict=False))
    slots = [slot for cls in type(value).__mro__ for slot in _slots(cls) if hasattr(value, slot)]
    return [*((slot, getattr(value, slot)) for slot in slots), *getattr(value, "__dict__", {}).items()]


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return tuple(s for s in ((slots,) if isinstance(slots, str) else slots) if s not in ("__dict__", "__weakref__"))


def _rebuilt(value: Any, tensors: Iterator[Any], within: tuple[Any, ...]) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if not is_container(value):
        return _copied(value, tensors)
    if any(value is one for one in within):
        return value
    return with_parts(value, [_rebuilt(part, tensors, (*within, value)) for _, part in parts(value)])


def with_parts(value: Any, others: list[Any]) -> Any:
    """Return a container with others in place of its :func:`parts`."""
    if is_dataclass(value):
        return _with_attributes(value, others)
    if len(others) < len(value):  # a long list of numbers or words
        return copy.copy(value)
    if isinstance(value, dict):
        return dict(zip(value, others, strict=True))
    # A namedtuple takes its fields as separate arguments, but for this method.
    return value._make(others) if hasattr(value, "_fields") else type(value)(others)


def _with_attributes(value: Any, others: list[Any]) -> Any:
    copied = copy.copy(value)
    for (name, old), part in zip(parts(value), others, strict=True):
        if part is not old:
            object.__setattr__(copied, name, part)  # it may be frozen
    return copied


def _copied(value: Any, tensors: Iterator[Any]) -> Any:
    """Return a copy of an object with the next tensors in place of its own; an object without any itself."""
    seen: dict[int, Any] = {}
    mine = [tensor for _, tensor in _of_object(value, "", seen, 0)]
    if not mine:
        return value
    others = [next(tensors) for _ in mine]
    # A copy shares what is not searched: a module is no part of a batch.
    memo = {key: part for key, part in seen.items() if _is_opaque(part)}
    new = {id(old): other for old, other in zip(mine, others, strict=True)}
    try:
        copied = copy.deepcopy(value, memo | new)
        if not _holds(copied, others) and isinstance(value, MutableMapping):
            copied = _by_items(value, new)
    except (TypeError, RuntimeError, AttributeError, ValueError) as error:
        raise _not_copied(value, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    # A mapping may share its items with its copies.
    if not _holds(copied, others) or not _holds(value, mine):
        raise _not_copied(value, "it computes its tensors")
    return copied


def _holds(value: Any, tensors: list[Any]) -> bool:
    """Return whether tensors are found in an object; a tensor may stand in two places, so that fewer are."""
    found = {id(tensor) for _, tensor in _of_object(value, "", {}, 0)}
    return all(id(tensor) in found for tensor in tensors if isinstance(tensor, Tensor))


def _by_items(value: MutableMapping[Any, Any], new: dict[int, Any]) -> Any:
    """Return a copy of a mapping that copies its tensors by itself, with others set under its keys.

    Its ``batch_size``, if it has one (a TensorDict), is the size that its tensors have in common.
    """
    copied: Any = copy.copy(value)
    size = getattr(value, "batch_size", None)
    if isinstance(size, torch.Size):
        copied.batch_size = size[:0]
    for key, part in value.items():
        if isinstance(part, MutableMapping) and not is_container(part):
            copied[key] = _by_items(part, new)
        else:
            copied[key] = with_tensors(part, [new.get(id(tensor), tensor) for _, tensor in leaves(part)])
    if isinstance(size, torch.Size):
        shapes = [tensor.shape[: len(size)] for _, tensor in leaves(copied)]
        copied.batch_size = shapes[0] if len(set(shapes)) == 1 else size[:0]
    return copied


def _not_copied(value: Any, reason: str) -> ValueError:
    return ValueError(
        f"{type(value).__name__} holds tensors but cannot be copied with others in their place ({reason}): give the"
        " network a dict, a tuple or a dataclass of tensors, or take them out with batch_to_inputs=, a function."
    )
