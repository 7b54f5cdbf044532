"""What is inside a checkpoint, checked before it is used: kinds of values, sizes, weights that are finite."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# What a Lightning Trainer writes under these keys; a checkpoint need not have all of them.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "state_dict": (dict, "a dictionary"),
    "hyper_parameters": (Mapping, "a dictionary"),
    "hparams_name": (str, "a string"),
    "pytorch-lightning_version": (str, "a version"),
    "epoch": (int, "an integer"),
    "global_step": (int, "an integer"),
    "callbacks": (dict, "a dictionary"),
    "loops": ((dict, type(None)), "a dictionary"),
    "optimizer_states": (list, "a list"),
    "lr_schedulers": (list, "a list"),
}


def first_mistake(checkpoint: Mapping[Any, Any], most: int) -> str:
    """Return a sentence on the first thing in a checkpoint that no Trainer writes, empty if there is none.

    Args:
        checkpoint: as ``torch.load`` returns it.
        most: the bytes that one tensor may take.

    Example:
        >>> first_mistake({"state_dict": {}, "epoch": "three"}, 1000)
        "'epoch' expected an integer, but got 'three'."
    """
    for key, (kind, words) in _KINDS.items():
        if key in checkpoint and (not isinstance(checkpoint[key], kind) or isinstance(checkpoint[key], bool)):
            return f"'{key}' expected {words}, but got {_short(checkpoint[key])}."
    version = checkpoint.get("pytorch-lightning_version", "0")
    if not version[:1].isdigit() or not version.replace(".", "").replace("+", "").isalnum():
        return f"'pytorch-lightning_version' expected a version, but got {_short(version)}."
    if min(checkpoint.get("epoch", 0), checkpoint.get("global_step", 0)) < 0:
        return "'epoch' and 'global_step' expected no negative number."
    for key in ("state_dict", "hyper_parameters", "callbacks"):
        odd = [name for name in checkpoint.get(key, ()) if not isinstance(name, str)]
        if odd:
            return f"'{key}' expected strings as keys, but got {_short(odd[0])}."
    for tensor in tensors_in(checkpoint):
        # One stored number may be repeated in any shape.
        if tensor.numel() * tensor.element_size() > most:
            return f"it has a tensor of shape {tuple(tensor.shape)}, out of proportion to the file's size."
    return ""


def tensors_in(value: Any) -> Iterator["Tensor"]:
    """Yield every tensor in nested dictionaries, lists and tuples, once for each place that holds it.

    A container that is held in several places is entered once: in a few bytes a file may refer to one a billion times.
    """
    import torch

    waiting, entered = [value], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in entered:
            entered.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def first_not_finite(weights: Mapping[str, Any]) -> str | None:
    """Return the name of the first tensor with a NaN, or the first weight or bias that is infinite, else ``None``.

    Buffers may be infinite: masks, and the ranges of observers that have seen nothing.

    Example:
        >>> import torch
        >>> first_not_finite({"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan])})
        'b'
    """
    return next((name for name, tensor in weights.items() if not _is_usable(name, tensor)), None)


def _is_usable(name: str, tensor: Any) -> bool:
    import torch

    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.is_meta or tensor.layout is not torch.strided or tensor.element_size() < 2:
        return True
    # The extremes are NaN if any value is: a quarter of the time of isfinite, which builds a mask.
    extremes = torch.stack(torch.aminmax(tensor.detach()))
    is_weight = name.endswith(("weight", "bias"))
    return not bool((extremes.isnan() | (extremes.isinf() & is_weight)).any())


def _short(value: Any) -> str:
    # Not the whole of it: a file may hold anything.
    if isinstance(value, str | int | float | None):
        text = repr(value)
        return text if len(text) < 60 else f"{text[:57]}..."
    return f"a value of type {type(value).__name__}"
