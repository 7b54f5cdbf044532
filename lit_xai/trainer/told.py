"""What a callback was told, as plain values that compare between runs."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

TOLD_BY_DEFAULT = ("alpha", "temperature", "bits", "reference", "explainer", "n")
"""Arguments whose defaults count as told: two runs compare by them though only one names them."""
LONGEST = 120
"""Letters of a value; a path or a list may be longer than a column can show."""

Plain = bool | int | float | str


def told(signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Plain]:
    """Return the arguments of a call as plain values: those given, and a few defaults; ``None`` is left out.

    Args:
        signature: of the function, with ``self`` as its first parameter.
        args: given in order, without ``self``.
        options: given by name.

    Example:
        >>> def init(self, target, *, alpha=0.5, layers=None, other=1): ...
        >>> told(inspect.signature(init), (0.25,), {"layers": ["conv1", "fc"]})
        {'target': 0.25, 'alpha': 0.5, 'layers': 'conv1, fc'}
    """
    try:
        bound = signature.bind(None, *args, **options)
    except TypeError:  # the call itself says what is wrong
        return {}
    given = dict(list(bound.arguments.items())[1:])
    defaults = {name: one.default for name, one in signature.parameters.items() if name in TOLD_BY_DEFAULT}
    values = {name: given.get(name, defaults.get(name)) for name in signature.parameters}
    return {name: plain(value) for name, value in values.items() if value is not None and _is_set(value)}


def _is_set(value: Any) -> bool:
    return value is not inspect.Parameter.empty and not (isinstance(value, list | tuple | dict) and not value)


def plain(value: Any) -> Plain:
    """Return a number, bool or string as it is, a collection in words, and of everything else the name.

    Example:
        >>> plain((8, 4)), plain({"a": 0.5}), plain(inspect.Signature())
        ('8, 4', 'a: 0.5', 'Signature')
    """
    if isinstance(value, bool | int | float):
        return value
    return _in_words(value)[:LONGEST]


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_in_words(one)}" for key, one in value.items())
    if isinstance(value, list | tuple | set):
        return ", ".join(map(_in_words, value))
    if isinstance(value, type) or callable(value):
        return str(getattr(value, "__qualname__", type(value).__name__))
    return str(value) if type(value).__repr__ is not object.__repr__ and _is_short(value) else type(value).__name__


def _is_short(value: Any) -> bool:
    # A tensor or a data class of tensors would be printed with all of its values.
    return isinstance(value, bool | int | float | str) or type(value).__module__ in ("pathlib", "builtins")
