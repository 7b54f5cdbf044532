"""A module whose forward is its own step, up to the results of the parts that the step calls one after the other."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from lit_xai.network.observing import parts_with_weights
from lit_xai.network.recording import in_place_of_call
from lit_xai.network.rows import column, columns, with_columns
from lit_xai.network.trees import Held

BATCH = "batch"
"""The keyword under which a view takes what of a batch is no input, and the name of a batch that is one tensor."""


@dataclass(frozen=True)
class StepCall:
    """A step that stands for a network.

    Args:
        run: runs the step of a module on a batch; it is interrupted once the results are there.
        parts: names of the parts that it calls.
        ends: places of the calls with the results, among the calls of these parts.
        data: paths of the columns of a batch that are inputs.
    """

    run: Callable[[nn.Module, Any], object]
    parts: tuple[str, ...]
    ends: tuple[int, ...]
    data: tuple[str, ...]

    def inputs(self, batch: Any) -> dict[str, Any]:
        """Return the keyword arguments of a view.

        Args:
            batch: of the step.

        Raises:
            ValueError: it has none of the data.
        """
        data = {name: column(batch, path) for name, path in self.keywords.items()}
        missing = [path for name, path in self.keywords.items() if data[name] is None]
        if missing:
            raise ValueError(f"a batch expected a tensor at {missing[0]!r}, but it has {list(columns(batch))}.")
        return {"held": Held(batch), **data}

    @property
    def keywords(self) -> dict[str, str]:
        """The paths of the data by keyword: a dot would lead into a nested value."""
        names: dict[str, str] = {}
        for path in self.data:
            name = path.replace(".*", "").replace(".", "_") or BATCH
            while name in names or name == "held":
                name += "_"
            names[name] = path
        return names


class _Reached(BaseException):
    """Ends a step whose results are there; not an Exception, which a step may catch."""


@contextlib.contextmanager
def until(
    parts: dict[str, nn.Module], last: int, before: bool = False, root: nn.Module | None = None
) -> Iterator[list[Any]]:
    """Record the calls of parts inside the context, and end it after a number of them.

    Args:
        parts: by name; a call within another's counts as part of that.
        last: the place of the last call, from 0.
        before: end before that call runs rather than after it.
        root: the module that holds the parts as attributes and that code inside the context calls them through.

    Yields:
        The calls up to there: name, positional arguments, keyword arguments and result.
    """
    calls: list[Any] = []
    depth = 0

    def around(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        if depth:
            return original(*args, **kwargs)
        if before and len(calls) == last:
            calls.append((name, args, kwargs, None))
            raise _Reached
        depth += 1
        try:
            result = original(*args, **kwargs)
        finally:
            depth -= 1
        calls.append((name, args, kwargs, result))
        if len(calls) > last:
            raise _Reached
        return result

    with contextlib.ExitStack() as stack:
        for name, part in parts.items():
            holder = None if root is None else _holder(root, name)
            if holder is None:
                stack.enter_context(in_place_of_call(part, name, around))
            else:
                stack.enter_context(_in_place_of_attribute(holder, name, part, around))
        # The innermost first: a module around a part is reached through its holder as long as that is itself.
        for name, outer in [] if root is None else _around(root, parts):
            holder = None if root is None else _holder(root, name)
            if holder is not None:
                stack.enter_context(_in_place_of_attribute(holder, name, outer, _without_call))
        with contextlib.suppress(_Reached):
            yield calls


def _around(root: nn.Module, parts: Iterable[str]) -> list[tuple[str, nn.Module]]:
    """Return the modules whose calls end in an exception as those of parts inside them do, the inner ones first."""
    named = {name: part for name, part in root.named_modules() if not isinstance(part, _CONTAINERS)}
    names = [name for name in named if name and name not in parts and any(one.startswith(f"{name}.") for one in parts)]
    return [(name, named[name]) for name in sorted(names, key=lambda name: -name.count("."))]


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # are indexed


def _without_call(name: str, part: nn.Module, *args: Any, **kwargs: Any) -> Any:
    has_hooks = part._forward_hooks or part._forward_pre_hooks
    return part(*args, **kwargs) if has_hooks else part.forward(*args, **kwargs)


def _holder(root: nn.Module, name: str) -> nn.Module | None:
    """Return the module that holds a part as an attribute; ``None`` where it is an element of a container."""
    *path, _ = name.split(".")
    holder = root
    for part in path:
        holder = getattr(holder, part)
    return None if not name or isinstance(holder, _CONTAINERS) else holder


@contextlib.contextmanager
def _in_place_of_attribute(holder: nn.Module, name: str, part: nn.Module, around: Callable[..., Any]) -> Iterator[None]:
    """Put a function in place of a part, rather than of its call.

    What tracks the calls of modules (``torch.export``) loses count if one of them ends in an exception; a function may.
    """
    key = name.rpartition(".")[2]
    vars(holder)[key] = _Called(part, name, around)
    try:
        yield
    finally:
        vars(holder).pop(key, None)


class _Called:
    """A part to whoever reads its attributes, but for its call."""

    def __init__(self, part: nn.Module, name: str, around: Callable[..., Any]) -> None:
        self._part, self._name, self._around = part, name, around

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._around(self._name, self._part, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def step_view(module: nn.Module, step: StepCall) -> nn.Module:
    """Return a module that shares everything with another but its forward, which runs that one's step.

    Parts, parameters and buffers are the module's own, and so are their names. Copies are views of copies.

    Args:
        module: usually a LightningModule.
        step: to run.
    """
    cls = type(module)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Its own call would be that of the view to whoever records it, in the attributes that both share.
        return self.forward(*args, **kwargs)

    base_class = type(cls.__name__, (cls,), {"__call__": call})
    # The module that a view is of, made anew from the attributes they share: a reference would be part of every copy.
    base: Any = object.__new__(base_class)
    object.__setattr__(base, "__dict__", vars(module))

    def forward(self: Any, held: Held, **tensors: Any) -> Any:
        return _results(base, step, held.value, tensors)

    def deepcopy(self: Any, memo: dict[int, Any]) -> nn.Module:
        return step_view(copy.deepcopy(module, memo), step)

    view_class = type(cls.__name__, (cls,), {"forward": forward, "__deepcopy__": deepcopy})
    view: nn.Module = object.__new__(view_class)
    object.__setattr__(view, "__dict__", vars(module))
    return view


def _results(module: nn.Module, step: StepCall, batch: Any, tensors: dict[str, Any]) -> Any:
    paths = step.keywords
    # Explaining and exporting change the number of samples. Labels have no influence, but the step may read them.
    batch = with_columns(batch, {paths[name]: tensor for name, tensor in tensors.items()})
    named = parts_with_weights(module)
    with until({name: named[name] for name in step.parts}, max(step.ends), root=module) as calls:
        step.run(module, batch)
    if len(calls) <= max(step.ends):
        wanted = " and ".join(map(repr, step.parts))
        raise ValueError(f"the step of {type(module).__name__} expected to call {wanted}, but it ended after {calls}.")
    if len(step.ends) == 1:
        return calls[step.ends[0]][-1]
    return {calls[place][0]: calls[place][-1] for place in step.ends}
