"""Where the tensors of a running step come from: which data, which weights, and which part's results.

Every operation is seen below autograd, so that functions, compiled kernels and metrics count alike. What is tracked
belongs to a tensor's memory: views and operations in place need no rules of their own.

Private name in use: ``torch.utils._python_dispatch``, the module of ``TorchDispatchMode``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lit_xai.network.rows import Column

# Operations after which a tensor is still the same data: casts, views, selections, one-hot, a change of unit.
# fmt: off
_SAME = frozenset({
    "alias", "as_strided", "cat", "clamp", "clone", "constant_pad_nd", "contiguous", "copy", "detach", "diagonal",
    "expand", "flatten", "flip", "gather", "index", "index_select", "lift_fresh", "masked_fill", "masked_select",
    "nan_to_num", "narrow", "one_hot", "permute", "repeat", "reshape", "roll", "scatter", "select", "slice", "split",
    "split_with_sizes", "squeeze", "stack", "t", "to", "transpose", "unbind", "unfold", "unsafe_split", "unsqueeze",
    "view", "where", "_reshape_alias", "_to_copy", "_unsafe_view",
})
# fmt: on
_RESCALED = frozenset({"add", "sub", "mul", "div", "rsub", "neg"})
# The condition of a `where` selects as an index does.
_FIRST_SELECTS = frozenset({"where"})


@dataclass(frozen=True)
class Origin:
    """What a tensor was computed from.

    Args:
        leaves: columns of the batch, by path.
        leaf: the one that it is (a part of), but for casts, views, selections and changes of unit.
        is_weighted: whether parameters took part.
        answers: results of parts, by number.
        contacts: places where an answer met a leaf, by number.
    """

    leaves: frozenset[str] = frozenset()
    leaf: str | None = None
    is_weighted: bool = False
    answers: frozenset[int] = frozenset()
    contacts: frozenset[int] = frozenset()

    @property
    def is_parameter(self) -> bool:
        """True of what was computed from parameters alone."""
        return self.is_weighted and not self.leaves and not self.answers

    @property
    def is_answer(self) -> bool:
        """True of what a network made of data."""
        return self.is_weighted and not self.is_parameter


@dataclass(frozen=True)
class Contact:
    """An operation on what a network made of data, and on a leaf of the batch: most often a loss or a metric.

    Args:
        leaf: the leaf's path.
        answer: where the other tensor comes from.
        dtype: of the leaf as it is used.
        is_inside: whether it happened within a call of a part with weights.
    """

    leaf: str
    answer: Origin
    dtype: torch.dtype
    is_inside: bool

    @property
    def is_mask(self) -> bool:
        """Whether the leaf is used as a boolean."""
        return self.dtype == torch.bool

    @property
    def is_integer(self) -> bool:
        """Whether it is used as integers: classes, tokens."""
        return not self.dtype.is_floating_point and not self.is_mask


@dataclass(eq=False)
class Tracking(TorchDispatchMode):
    """A context in which the origins of all tensors are tracked.

    Args:
        leaves: columns of the batch by path; no two of their tensors share memory.
        parameters: of the module that runs.

    Attributes:
        contacts: all contacts, in order.
        inner: numbers of those whose result went through weights: of attention masks, say.
        written: addresses of memory that operations wrote to.
        depth: of calls of parts that are running; set by who watches those.

    Example:
        >>> layer, x, y = torch.nn.Linear(2, 3), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
        >>> with Tracking({"x": x, "y": y}, layer.parameters()) as tracking:
        ...     loss = torch.nn.functional.cross_entropy(layer(x), y)
        >>> [contact.leaf for contact in tracking.contacts], sorted(tracking.origin(loss).leaves)
        (['y'], ['x', 'y'])
    """

    leaves: Mapping[str, Column]
    parameters: Iterable[Tensor]
    contacts: list[Contact] = field(default_factory=list)
    inner: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    depth: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._origins: dict[int, Origin] = {}
        # Memory that is freed is used again: what is tracked is kept until the end.
        self._kept: list[Any] = []
        for parameter in self.parameters:
            self._set(parameter, Origin(is_weighted=True))
        for path, column in self.leaves.items():
            for tensor in _tensors(column):
                self._set(tensor, Origin(frozenset({path}), path))

    def origin(self, tensor: Tensor) -> Origin:
        """Return where a tensor comes from; of constants an empty origin."""
        return self._origins.get(memory_of(tensor), _CONSTANT)

    def add_answer(self, tensor: Tensor, number: int) -> None:
        """Remember a tensor as a result of a part."""
        origin = self.origin(tensor)
        self._set(tensor, replace(origin, answers=origin.answers | {number}))

    def _set(self, tensor: Tensor, origin: Origin) -> None:
        place = memory_of(tensor)
        if place:
            if place not in self._origins:
                self._kept.append(tensor.untyped_storage())
            self._origins[place] = origin

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and combine the origins of its arguments."""
        result = func(*args, **(kwargs or {}))
        operands = list(_tensors((args, kwargs)))
        origins = [self.origin(tensor) for tensor in operands]
        if any(origin is not _CONSTANT for origin in origins):
            name = func.overloadpacket.__name__
            combined = self._combine(name.rstrip("_"), operands, origins)
            before = {memory_of(tensor) for tensor in operands}
            written = list(_tensors(args[:1] if name.endswith("_") else (kwargs or {}).get("out")))
            # A view has the memory of its base; only what is written to changes.
            made = [tensor for tensor in _tensors(result) if memory_of(tensor) not in before]
            for tensor in [*written, *made]:
                self._set(tensor, combined)
            # Not from the result: an operation on a list of tensors (torch._foreach_mul_) returns none.
            self.written.update(map(memory_of, written))
        return result

    def _combine(self, name: str, operands: list[Tensor], origins: list[Origin]) -> Origin:
        contacts = frozenset().union(*(origin.contacts for origin in origins))
        if any(origin.is_parameter for origin in origins):
            # A loss that is weighted by a parameter has no samples any more.
            through = (o.contacts for t, o in zip(operands, origins, strict=True) if t.dim() and not o.is_parameter)
            self.inner.update(*through)
        new = [
            self._meet(Contact(other.leaf, answer, tensor.dtype, self.depth > 0))
            for tensor, other in zip(operands, origins, strict=True)
            if other.leaf is not None and not other.is_weighted
            for answer in [next((origin for origin in origins if origin.is_answer), None)]
            if answer is not None
        ]
        return Origin(
            frozenset().union(*(origin.leaves for origin in origins)),
            _leaf(name, origins),
            any(origin.is_weighted for origin in origins),
            frozenset().union(*(origin.answers for origin in origins)),
            contacts | frozenset(new),
        )

    def _meet(self, contact: Contact) -> int:
        self.contacts.append(contact)
        return len(self.contacts) - 1


_CONSTANT = Origin()


def _leaf(name: str, origins: list[Origin]) -> str | None:
    """Return the leaf that an operation's result still is."""
    data = [origin for origin in origins[name in _FIRST_SELECTS :] if origin.leaves or origin.is_weighted]
    if not data or any(origin.is_weighted for origin in data):
        return None
    if name in _SAME:
        # Of an index the first is the data; what is joined has to be of one leaf.
        same = {origin.leaf for origin in (data if name in ("cat", "stack", "where") else data[:1])}
        return same.pop() if len(same) == 1 else None
    # A unit may be computed from other data: the mean of what came before.
    named = [origin.leaf for origin in data if origin.leaf is not None]
    return named[0] if name in _RESCALED and len(named) == 1 else None


def _tensors(value: Any) -> Iterator[Tensor]:
    # What operations take: tensors, lists of them, constants.
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)


def memory_of(tensor: Tensor) -> int:
    """Return the address of a tensor's memory; 0 for one that has none of its own (sparse, empty)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
