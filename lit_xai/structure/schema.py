"""Values of files, checked against the types that they should have before anything is done with them.

A file is not believed: of what was read from one, types, ranges and lengths are checked here, and whatever is left is
plain data. pydantic does the work; it is imported when something is checked.
"""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import torch
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import TypedDict

T = TypeVar("T", bound=type)

NonNegative = Annotated[int, Ge(0), Le(2**63 - 1)]
Positive = Annotated[int, Ge(1), Le(2**63 - 1)]


def closed(cls: T) -> T:
    """Have a ``TypedDict`` of ``typing_extensions`` refuse entries it does not name, and values that need a conversion.

    A bool is no integer then, a list no tuple, and NaN and infinity are no numbers.

    Example:
        >>> @closed
        ... class State(TypedDict):
        ...     seen: NonNegative
        >>> check_schema({"seen": 3}, State, "a state")
        >>> check_schema({"seen": True}, State, "a state")
        Traceback (most recent call last):
        ...
        ValueError: The 'seen' of a state expected type int, but got True.
    """
    config = {"extra": "forbid", "strict": True, "allow_inf_nan": False, "arbitrary_types_allowed": True}
    cls.__pydantic_config__ = config  # type: ignore[attr-defined]  # where pydantic looks for it in a TypedDict
    return cls


def entries(types: Mapping[str, Any]) -> Any:
    """Return a :func:`closed` ``TypedDict`` with these entries, where a class cannot be written down.

    Example:
        >>> check_schema({"class": 3}, entries({"class": str}), "a layer")
        Traceback (most recent call last):
        ...
        ValueError: The 'class' of a layer expected type str, but got 3.
    """
    return closed(TypedDict("Entries", dict(types)))  # type: ignore[operator]  # known when it runs


@dataclass(frozen=True)
class Row:
    """An annotation: a list or tuple of so many values of these types, in this order."""

    types: tuple[Any, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        row = core_schema.tuple_schema([handler.generate_schema(one) for one in self.types])
        return core_schema.no_info_before_validator_function(_as_tuple, row)


@dataclass(frozen=True)
class Of:
    """An annotation: a value of a type that is made when the program runs, such as that of :func:`entries`."""

    type: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler.generate_schema(self.type)


@dataclass(frozen=True)
class Checked:
    """An annotation: a value that a function lets pass as well, which raises a ValueError with what it expects."""

    check: Callable[[Any], object]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._let_pass, handler(source))

    def _let_pass(self, value: Any) -> Any:
        self.check(value)
        return value


@dataclass(frozen=True)
class ListOf:
    """An annotation: a list of a type, of any length at little cost.

    Args:
        type: of its values.
        distinct: whether they are one or more, each once; for types whose values can be hashed.
    """

    type: Any
    distinct: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        # Up to the first error: collecting a million of them would take seconds.
        several = core_schema.list_schema(handler.generate_schema(self.type), fail_fast=True)
        return core_schema.no_info_after_validator_function(_distinct, several) if self.distinct else several


Indices = Annotated[list[int], ListOf(NonNegative, distinct=True)]
"""Places in one dimension of a tensor, each once."""


@dataclass(frozen=True)
class TensorOf:
    """An annotation: a dense tensor.

    Args:
        dtype: that it has; ``None`` for any.
        shape: likewise.
        finite: whether NaN and infinity are refused. NaN alone is refused otherwise: a mask may hold infinities.
    """

    dtype: torch.dtype | None = None
    shape: tuple[int, ...] | None = None
    finite: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.check)

    def check(self, value: Any) -> Any:
        """Return the tensor, or raise a ValueError that says what was expected."""
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
            raise ValueError("a dense tensor")
        if self.dtype is not None and value.dtype != self.dtype:
            raise ValueError(f"a tensor of {self.dtype}")
        if self.shape is not None and tuple(value.shape) != self.shape:
            raise ValueError(f"a tensor of shape {self.shape}")
        if value.is_floating_point():
            # A sum is NaN if any value is, and also where infinities of both signs meet.
            if self.finite and not bool(value.isfinite().all()):
                raise ValueError("a tensor of finite numbers")
            if not self.finite and bool(value.sum(dtype=torch.float32).isnan()) and bool(value.isnan().any()):
                raise ValueError("a tensor without NaN")
        return value


Weights = dict[str, Annotated[Tensor, TensorOf()]]
"""A ``state_dict`` of tensors alone."""


def check_schema(value: Any, schema: Any, name: str, hint: str = "") -> None:
    """Refuse a value of another type than a schema, in one sentence about the first entry that differs.

    Args:
        value: as read from a file; it is left as it is.
        schema: a type, such as a ``TypedDict`` that is :func:`closed`.
        name: of the value, in words.
        hint: how to fix it, in one sentence or two.

    Raises:
        ValueError: names the entry, what was expected and what came.

    Example:
        >>> check_schema([["0.weight", -1]], list[Annotated[Any, Row((str, NonNegative))]], "a recipe")
        Traceback (most recent call last):
        ...
        ValueError: The [0][1] of a recipe expected a number greater than or equal to 0, but got -1.
    """
    from pydantic import ValidationError

    try:
        _adapter(schema).validate_python(value)
    except ValidationError as errors:
        sentence = _sentence(errors.errors(include_url=False)[0], name)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits
        sentence = f"{name[:1].upper()}{name[1:]} expected plain values, but got others ({error})."
    else:
        return
    raise ValueError(f"{sentence} {hint}".strip())


@lru_cache(maxsize=64)
def _adapter(schema: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # A TypedDict has its own, from closed().
    config = None if hasattr(schema, "__pydantic_config__") else ConfigDict(strict=True, allow_inf_nan=False)
    return TypeAdapter(schema, config=config)


def _sentence(error: Any, name: str) -> str:
    loc = list(error["loc"])
    last = loc.pop() if error["type"] in ("missing", "extra_forbidden") else None
    parts = "".join(f"[{shown(part)}]" for part in loc[1:])
    first = shown(loc[0]) if loc and isinstance(loc[0], str) else f"[{loc[0]}]" if loc else ""
    where = f"The {first}{parts} of {name}" if loc else name[:1].upper() + name[1:]
    if error["type"] == "missing":
        return f"{where} expected an entry {shown(last)}, but has none."
    if error["type"] == "extra_forbidden":
        return f"{where} expected no entry {shown(last)}, but got {shown(error['input'])}."
    return f"{where} expected {_expected(error)}, but got {shown(error['input'])}."


def _expected(error: Any) -> str:
    kind, message = error["type"], error["msg"].removeprefix("Input should be ")
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "too_long":
        return f"at most {error['ctx']['max_length']} values"
    if kind == "invalid_key":
        return "keys of type str"
    if kind.endswith("_type"):
        return f"type {'str' if kind == 'string_type' else kind.removesuffix('_type')}"
    return f"a number {message}" if kind.startswith(("greater_than", "less_than")) else message


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if type(value) not in (list, tuple):
        raise ValueError("type list")
    return tuple(value)


def _distinct(value: list[Any]) -> list[Any]:
    if not value or len(set(value)) != len(value):
        raise ValueError("one or more distinct values")
    return value


class _Short(reprlib.Repr):
    """The ``repr`` of a value of any size and depth, in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 80

    def repr_Tensor(self, value: Tensor, level: int) -> str:  # noqa: N802 - reprlib calls it by the class's name
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() < 256 else f"an integer of {value.bit_length()} bits"


def shown(value: Any) -> str:
    """Return a value in words for an error: short, in one line, however large or deeply nested it is.

    Example:
        >>> shown([[[[[1]]]]]), shown(10**6000), shown(torch.zeros(2, 3))
        ('[[[[...]]]]', 'an integer of 19932 bits', 'a tensor of shape (2, 3) and torch.float32')
    """
    return " ".join(_Short().repr(value).split())


def is_size(value: Any) -> bool:
    """Return whether a value is a positive integer and no bool.

    Example:
        >>> is_size(3), is_size(True), is_size(0)
        (True, False, False)
    """
    return type(value) is int and value > 0


def as_sizes(value: Any) -> Sequence[int] | None:
    """Return a size or a list of sizes as a list, ``None`` for anything else.

    Example:
        >>> as_sizes(3), as_sizes([4, 2]), as_sizes("3")
        ([3], [4, 2], None)
    """
    sizes = [value] if type(value) is int else value
    return sizes if isinstance(sizes, (list, tuple)) and all(map(is_size, sizes)) else None
