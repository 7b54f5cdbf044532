"""A module's step, observed: which parts with weights it calls with what, and what becomes of the results."""

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lit_xai.network.calling import defines_call, plain_name
from lit_xai.network.recording import in_place_of_call
from lit_xai.network.rows import columns
from lit_xai.network.tracking import Contact, Origin, Tracking, memory_of
from lit_xai.network.trees import leaves, replaced, with_own_containers


@dataclass(eq=False)
class PartCall:
    """A call of a part with weights, outside of any other part's call.

    Args:
        name: of the part; empty for the module itself.
        args: its positional arguments.
        kwargs: its keyword arguments.
        feeds: numbers of the answers that its arguments were computed from.
        origins: of the tensors in ``(args, kwargs)``, by path.
        result: what it returned.
        answers: numbers of the tensors in it, by path.
        made_of: columns of the batch that each of them was computed from, by path.
        data: paths of results that hold data alone, such as an input that is handed on.
        learns: whether its result has a gradient.
        optional: keywords that its signature has defaults for.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    feeds: frozenset[int] = frozenset()
    origins: dict[str, Origin] = field(default_factory=dict)
    result: Any = None
    answers: dict[str, int] = field(default_factory=dict)
    made_of: dict[str, frozenset[str]] = field(default_factory=dict)
    data: set[str] = field(default_factory=set)
    learns: bool = False
    optional: frozenset[str] = frozenset()

    def without(self, keywords: Collection[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments without some keywords."""
        return self.args, {key: value for key, value in self.kwargs.items() if key not in keywords}


@dataclass
class StepRecord:
    """What was observed of a step.

    Args:
        batch: that it was given, with tensors of its own.
        calls: of parts, in order.
        contacts: of what networks made of data with leaves of the batch, those whose result went through weights left
            out.
        losses: origins of what the step returned or called backward on.
        others: origins of what it logged.
        backward: the number of losses that it called backward on by itself.
        written: names of the parameters that it wrote to, or that what follows it did.
        untaught: names of the parameters that no loss has a gradient for.
        error: that ended it, after the calls above.
    """

    batch: Any
    calls: list[PartCall] = field(default_factory=list)
    contacts: dict[int, Contact] = field(default_factory=dict)
    losses: list[Origin] = field(default_factory=list)
    others: list[Origin] = field(default_factory=list)
    backward: int = 0
    written: tuple[str, ...] = ()
    untaught: tuple[str, ...] = ()
    error: Exception | None = None


@dataclass
class Told:
    """The tensors that a step reports while it runs.

    Args:
        losses: returned, or those that ``backward`` was called on.
        others: logged.
        backward: the number of the latter losses.
    """

    losses: list[Tensor] = field(default_factory=list)
    others: list[Tensor] = field(default_factory=list)
    backward: int = 0


def parts_with_weights(module: nn.Module) -> dict[str, nn.Module]:
    """Return a module and all parts of it that have parameters and can be called, by name.

    Example:
        >>> list(parts_with_weights(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
        ['', '0']
    """
    # Seen from inside, so that the wrapper of torch.compile is called where the step calls it.
    named = {plain_name(name): part for name, part in reversed(list(module.named_modules()))}
    weighted = {name: part for name, part in reversed(named.items()) if next(part.parameters(), None) is not None}
    return {name: part for name, part in weighted.items() if defines_call(part)}


def observe(
    module: nn.Module, batch: Any, step: Callable[[Any], object], parts: Mapping[str, nn.Module], told: Told
) -> StepRecord:
    """Run a step of a module and observe it; an error that ends the step is kept in the record.

    Args:
        module: runs the step, and changes as it does.
        batch: left unchanged.
        step: takes the batch.
        parts: the parts whose calls count, by name.
        told: is given, by the step, its losses and what it logs.

    Returns:
        The record; its results keep their graphs.
    """
    own = replaced(batch, {path: tensor.detach().clone() for path, tensor in leaves(batch)})
    record = StepRecord(own)
    tracking = Tracking(columns(own), module.parameters())
    with contextlib.ExitStack() as stack:
        stack.enter_context(_noted_writing(module, record, tracking))
        recorder = _Recorder(record, tracking, parts)
        for name, part in parts.items():
            stack.enter_context(in_place_of_call(part, name, recorder.around))
        stack.enter_context(tracking)
        try:
            step(own)
        except Exception as error:  # what came before tells enough most of the time
            record.error = error
    record.contacts = {n: one for n, one in enumerate(tracking.contacts) if n not in tracking.inner}
    record.losses = [tracking.origin(tensor) for tensor in told.losses]
    record.backward = told.backward
    record.others = [tracking.origin(tensor) for tensor in told.others]
    _keep_what_learns(record, module, told)
    return record


@contextlib.contextmanager
def observed_writing(module: nn.Module, record: StepRecord) -> Iterator[None]:
    """Add to a record the parameters that are written to inside the context.

    Args:
        module: whose step was observed.
        record: of that step.
    """
    tracking = Tracking({}, module.parameters())
    with _noted_writing(module, record, tracking), tracking:
        yield


@contextlib.contextmanager
def _noted_writing(module: nn.Module, record: StepRecord, tracking: Tracking) -> Iterator[None]:
    before = {plain_name(name): memory_of(parameter) for name, parameter in module.named_parameters()}
    yield
    # Written to, or with others in the place of its values.
    now = {plain_name(name): memory_of(parameter) for name, parameter in module.named_parameters()}
    written = [name for name, place in before.items() if place in tracking.written or now.get(name) != place]
    record.written = tuple(dict.fromkeys([*record.written, *written]))


def _keep_what_learns(record: StepRecord, module: nn.Module, told: Told) -> None:
    """Tell which calls and parameters learn: those that a loss has a gradient for, after all that a step detaches."""
    reached = _graph_of(told.losses)
    if not reached:  # an evaluation step, or a step that ended early
        return
    for call in record.calls:
        ends = [tensor for _, tensor in leaves(call.result) if tensor.requires_grad]
        call.learns = any(tensor.grad_fn is None or tensor.grad_fn in reached for tensor in ends)
    taught = {id(node.variable) for node in reached if hasattr(node, "variable")}
    record.untaught = tuple(plain_name(name) for name, one in module.named_parameters() if id(one) not in taught)


def _graph_of(losses: list[Tensor]) -> set[Any]:
    """Return the nodes of the autograd graph of losses."""
    reached: set[Any] = set()
    ahead = [loss.grad_fn for loss in losses]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in reached:
            reached.add(node)
            ahead += [following for following, _ in node.next_functions]
    return reached


def by_name(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call by the names of the function's parameters, where there are several.

    Example:
        >>> by_name(lambda user, item: None, (1, 2), {})
        ((), {'user': 1, 'item': 2})
    """
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # the call itself says what is wrong with it
        return args, dict(kwargs)
    kinds = {bound.signature.parameters[name].kind for name in bound.arguments}
    if len(args) + len(kwargs) < 2 or kinds - {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
        return args, dict(kwargs)
    return (), dict(bound.arguments)


def _optional(function: Callable[..., Any]) -> frozenset[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    return frozenset(p.name for p in parameters if p.default is not p.empty)


class _Recorder:
    def __init__(self, record: StepRecord, tracking: Tracking, parts: Mapping[str, Any]) -> None:
        self.record, self.tracking, self.parts, self.count = record, tracking, parts, 0

    def around(self, name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        tracking = self.tracking
        if tracking.depth:
            return original(*args, **kwargs)
        forward = self.parts[name].forward
        call = PartCall(name, *by_name(forward, args, kwargs), optional=_optional(forward))
        # A part may add what it computes to a dict or a graph that it is given.
        call.args, call.kwargs = with_own_containers((call.args, call.kwargs))
        call.origins = {path: tracking.origin(tensor) for path, tensor in leaves((call.args, call.kwargs))}
        call.feeds = frozenset().union(*(origin.answers for origin in call.origins.values()))
        tracking.depth += 1
        try:
            result = original(*args, **kwargs)
        finally:
            tracking.depth -= 1
        call.result = with_own_containers(result)  # a step may add its loss to what it was given
        for path, tensor in leaves(call.result):
            if not tracking.origin(tensor).is_weighted:
                call.data.add(path)
            tracking.add_answer(tensor, self.count)
            call.answers[path], self.count = self.count, self.count + 1
            call.made_of[path] = tracking.origin(tensor).leaves
            call.learns |= tensor.requires_grad
        self.record.calls.append(call)
        return result
