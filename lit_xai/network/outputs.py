"""The logits in what a network returns: one tensor, whatever comes with it.

Known without being told: a tensor, ``logits`` in a dict or an object, ``out`` (segmentation), ``pred_logits``
(detection with queries), the first of several heads, the first of a tuple, and a list of maps, one for each scale.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lit_xai.network.describing import describe
from lit_xai.network.import_path import load_object

OutputSpec: TypeAlias = int | str | Callable[[Any], Tensor] | None

LOGITS_KEYS = ("logits", "out", "pred_logits")
"""Where dicts and objects hold their logits, in the order in which they are looked for."""

# What networks return beside their answers.
_INNER = ("loss", "hidden", "feature", "embed", "attention", "attn", "past_key", "boxes", "cache", "memory", "mask")


class Found(NamedTuple):
    """The logits in an output, and where they were.

    Args:
        logits: the tensor.
        head: its key where it was the first of several heads, else empty.
        scales: the sizes of a list's maps where it is a list of maps, ``((H, W), ...)``.
    """

    logits: Tensor
    head: str = ""
    scales: tuple[tuple[int, ...], ...] = ()


def find_logits(result: Any, output: OutputSpec = None) -> Tensor:
    """Return the logits in what a network returned.

    By default the tensor itself; the key or attribute ``logits``, ``out`` or ``pred_logits``; of a dict that holds
    nothing but heads, the first one; the first element of a tuple; of a list of maps of one number of channels, one for
    each scale, all places next to each other, ``(N, channels, places)``.

    Args:
        result: a network's output.
        output: a key, attribute or index, a function of the result, or such a function's import path (with a dot).

    Raises:
        ValueError: there is no tensor, or there are several; describes the output and names the argument to set.

    Example:
        >>> import torch
        >>> find_logits({"logits": torch.zeros(8, 2), "loss": None}).shape
        torch.Size([8, 2])
        >>> find_logits((torch.zeros(1), torch.zeros(8, 2)), output=1).shape
        torch.Size([8, 2])
        >>> find_logits([torch.zeros(2, 5, 8, 8), torch.zeros(2, 5, 4, 4)]).shape
        torch.Size([2, 5, 80])
    """
    return locate_logits(result, output).logits


def locate_logits(result: Any, output: OutputSpec = None) -> Found:
    """Return the logits in what a network returned, and where they were, as :func:`find_logits` finds them.

    Example:
        >>> import torch
        >>> locate_logits({"age": torch.zeros(8, 2), "place": torch.zeros(8, 3)}).head
        'age'
    """
    found = _usual(result) if output is None else _as_found(_picked(result, output))
    if found is None:
        place = "" if output is None else f" at output={output!r}"
        raise ValueError(
            f"No logits were found{place} in an output of {describe(result)}:"
            f" name them with output=, as a key, an attribute, an index, or a function{_hint(result)}."
        )
    return found


def _picked(result: Any, output: Any) -> Any:
    if isinstance(output, str) and "." in output and not (isinstance(result, Mapping) and output in result):
        output = load_object(output, "output")
    if callable(output):
        return output(result)
    return result.get(output) if isinstance(result, Mapping) else _member(result, output)


def _member(result: Any, output: str | int) -> Any:
    if isinstance(output, str):
        return getattr(result, output, None)
    return result[output] if isinstance(result, (tuple, list)) and -len(result) <= output < len(result) else None


def _as_found(value: Any) -> Found | None:
    if isinstance(value, Tensor):
        return Found(value)
    return _joined(value) if _are_maps(value) else None


def _usual(result: Any) -> Found | None:
    if isinstance(result, Tensor):
        return Found(result)
    known = next((value for key in LOGITS_KEYS if (value := _at(result, key)) is not None), None)
    if known is not None:
        return _as_found(known)
    if isinstance(result, Mapping):
        return _head(result)
    if _are_maps(result):
        return _joined(result)
    first = result[0] if isinstance(result, (tuple, list)) and result else None
    return Found(first) if isinstance(first, Tensor) else None


def _at(result: Any, key: str) -> Any:
    return result.get(key) if isinstance(result, Mapping) else getattr(result, key, None)


def _head(result: Mapping[Any, Any]) -> Found | None:
    """Return the first of several heads, the only tensor that may be one, or ``None``."""
    heads = {
        key: value
        for key, value in result.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() and not _is_inner(str(key))
    }
    # Heads answer for the same samples; of a dict of other things, none is preferred.
    rows = [value.shape[0] for value in heads.values()]
    if not rows or any(one != rows[0] for one in rows):
        return None
    others = [key for key, value in result.items() if key not in heads and not _is_beside(str(key), value)]
    if len(heads) > 1 and others:
        return None
    name, logits = next(iter(heads.items()))
    return Found(logits, str(name) if len(heads) > 1 else "")


def _is_beside(key: str, value: Any) -> bool:
    is_number = isinstance(value, Tensor) and not value.dim()
    return value is None or is_number or _is_inner(key)


def _is_inner(key: str) -> bool:
    return any(word in key.lower() for word in _INNER)


def _are_maps(value: Any) -> bool:
    """Return whether a value is a list of maps: at different scales, of the same samples and channels."""
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return False
    if not all(isinstance(part, Tensor) and part.dim() > 2 and part.is_floating_point() for part in value):
        return False
    # Compared and not hashed: while a network is exported, a number of samples is a symbol.
    first, others = value[0], value[1:]
    alike = all(part.dim() == first.dim() and part.shape[:2] == first.shape[:2] for part in others)
    return alike and any(part.shape[2:] != first.shape[2:] for part in others)


def _joined(maps: Sequence[Tensor]) -> Found:
    # Maps of several anchors in a cell, (N, anchors, H, W, channels), have one width in the last dimension.
    if maps[0].dim() == 5 and len({part.shape[-1] for part in maps}) == 1:
        maps = [part.movedim(-1, 1) for part in maps]
    return Found(torch.cat([part.flatten(2) for part in maps], 2), scales=tuple(tuple(p.shape[2:]) for p in maps))


def place_in_scales(scales: Sequence[tuple[int, ...]], place: int) -> tuple[int, int]:
    """Return the scale that one of the joined places of a list of maps is on, and its place there.

    Example:
        >>> place_in_scales(((8, 8), (4, 4)), 70)
        (1, 6)
    """
    for scale, size in enumerate(scales):
        if place < math.prod(size):
            return scale, place
        place -= math.prod(size)
    raise IndexError(place)


def _hint(result: Any) -> str:
    """Return what else to know about an output without logits: detections that are final, or several candidates."""
    if isinstance(result, (list, tuple)) and result and isinstance(result[0], Mapping) and "boxes" in result[0]:
        return (
            " (these are detections after the choice of boxes, which cannot be differentiated: name the part that"
            " scores all boxes with module=, such as its head)"
        )
    if isinstance(result, Mapping):
        keys = [str(key) for key, value in result.items() if isinstance(value, Tensor) and value.is_floating_point()]
        return f" (one of {', '.join(map(repr, keys))})" if keys else ""
    return ""


def class_dim(logits: Tensor, labels: Tensor | None) -> int:
    """Return the dimension of the classes: -1 where labels show that they are last, else 1.

    Args:
        logits: ``(N, C, ...)``, or ``(N, ..., C)`` as those of language models.
        labels: classes by place, ``(N, ...)``, where known.

    Example:
        >>> class_dim(torch.zeros(2, 5, 30), torch.zeros(2, 5, dtype=torch.int64))
        -1
        >>> class_dim(torch.zeros(2, 30, 5, 5), torch.zeros(2, 5, 5, dtype=torch.int64))
        1
    """
    if labels is None or labels.is_floating_point() or labels.dim() != logits.dim() - 1:
        return 1
    first, last = logits.shape[:1] + logits.shape[2:], logits.shape[:-1]
    return -1 if labels.shape == last != first else 1
