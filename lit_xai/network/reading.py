"""What a record of a step says: the network, its inputs in a batch, its logits, and the labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lit_xai.network.observing import PartCall, StepRecord
from lit_xai.network.outputs import locate_logits
from lit_xai.network.rows import Column, columns, is_list
from lit_xai.network.trees import leaves


class UnwatchableError(ValueError):
    """A step that calls no network, or that does not run by itself; its message says why."""


class AmbiguousError(ValueError):
    """A step that does not tell which network is meant, or which logits; its message says why."""


@dataclass(frozen=True)
class Reading:
    """The network of a step, and its call.

    Args:
        parts: names of the parts that make up the network: one, or several that the step calls one after the other.
        ends: places of the calls whose results are the output, among the calls of these parts; one, unless there are
            several heads.
        inputs: for each tensor in the call's ``(args, kwargs)``, by path, the path of the tensor of the batch that it
            is; ``None`` where the step computes the network's inputs.
        data: paths of the batch's columns that the output depends on, in the batch's order.
        logits: the path of the logits in the result; ``None`` where they are in their usual place.
        outputs: paths of all tensors in the result that reach the loss.
        label: the path of the labels in the batch, ``None`` if there are none.
        candidates: paths of what may be the labels, where several may.
        calls: the number of calls of the network in the step.
        has_values: whether the labels are values, as in a regression, rather than classes.
        written: names of the parameters that the step itself writes to, such as a running average's.
        untaught: names of the parameters that the loss has no gradient for.
        others: names of the other parts whose results reach the loss, each with the parts that take its result.
        closed: names of the parts whose result is no output to learn from, but losses or final detections: what they
            call inside may give one.
        unused: keywords of the call that the output does not depend on: of labels, where the network computes the loss.
    """

    parts: tuple[str, ...]
    ends: tuple[int, ...] = (0,)
    inputs: dict[str, str] | None = None
    data: tuple[str, ...] = ()
    logits: str | None = None
    outputs: tuple[str, ...] = ()
    label: str | None = None
    candidates: tuple[str, ...] = ()
    calls: int = 1
    unused: tuple[str, ...] = ()
    has_values: bool = False
    written: tuple[str, ...] = ()
    untaught: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    closed: tuple[str, ...] = ()

    @property
    def is_step(self) -> bool:
        """Whether the network is the whole step rather than one part."""
        return len(self.parts) > 1


def read(record: StepRecord) -> Reading:
    """Return what a record says.

    The network is the one part that takes data and gives what the loss sees, or the chain of parts that does; parts
    that do not learn (a teacher under ``no_grad``) count where a learning one continues from their result. Labels are
    what of the batch meets the network's answer in the loss or a metric, and is not what the answer was made of.

    Raises:
        UnwatchableError: no part with weights was called; says why.
        AmbiguousError: several networks learn side by side, or the network gives no logits.
    """
    chain = _chain(record)
    names = tuple(dict.fromkeys(call.name for call in chain))
    is_step = len(names) > 1
    ends = _ends(chain) if is_step else [0]
    results = [chain[place] for place in ends]
    contacts = _labelling(record, results)
    logits, outputs = _logits(record, results, contacts)
    label, candidates = _label(contacts, results, logits)
    made_of = frozenset().union(
        *(call.made_of[path] for call in results for path, tensor in leaves(call.result) if _is_output(tensor))
    )
    found = columns(record.batch)
    data = tuple(path for path in found if path in made_of)
    unused = () if is_step else _unused(chain[0], data, {one.leaf for one in record.contacts.values()})
    inputs = None if is_step else _inputs(chain[0], record, unused)
    values = label is not None and _are_values(found[label])
    return Reading(
        parts=names,
        ends=tuple(ends),
        inputs=inputs,
        data=data,
        logits=logits,
        outputs=outputs,
        label=label,
        candidates=candidates,
        calls=len(chain),
        unused=unused,
        has_values=values,
        written=record.written,
        untaught=record.untaught,
        others=_others(record, chain),
        closed=tuple(call.name for call in results if _is_number(call.result) or _is_detections(call.result)),
    )


def _others(record: StepRecord, chain: list[PartCall]) -> dict[str, tuple[str, ...]]:
    """Return the parts beside the network whose results reach the loss, and which parts take the result of each."""
    reached = frozenset().union(*(origin.answers for origin in record.losses))
    found: dict[str, tuple[str, ...]] = {}
    for call in record.calls:
        own = set(call.answers.values())
        if own & reached and call not in chain:
            takers = (other.name for other in record.calls if own & other.feeds)
            found[call.name] = (*found.get(call.name, ()), *takers)
    return {name: tuple(dict.fromkeys(takers)) for name, takers in found.items()}


def _chain(record: StepRecord) -> list[PartCall]:
    """Return the calls that make up the network."""
    calls = [call for call in record.calls if call.answers]
    # A metric with weights, a network whose output is thrown away: nothing of them reaches the loss.
    reached = frozenset().union(*(origin.answers for origin in record.losses or record.others))
    used = [call for call in calls if reached & set(call.answers.values())] or calls
    learning = _of_one_side(record, [call for call in used if call.learns] or used)
    # A loss with weights of its own gets what a network gave, and gives a number.
    networks = [call for call in learning if not (call.feeds and _is_number(call.result))] or learning
    if not networks:
        why = f" It ended with {type(record.error).__name__}: {record.error}" if record.error else ""
        raise UnwatchableError(f"it calls no part with weights.{why}")
    kept = _with_sources(networks, calls)
    _refuse_side_by_side(kept)
    return kept


def _with_sources(networks: list[PartCall], calls: list[PartCall]) -> list[PartCall]:
    """Return calls together with those whose results they continue from, in order."""
    wanted = frozenset().union(*(call.feeds for call in networks))
    kept = [call for call in calls if call in networks or wanted & set(call.answers.values())]
    return kept if len(kept) == len(networks) else _with_sources(kept, calls)


def _refuse_side_by_side(kept: list[PartCall]) -> None:
    """Refuse networks that do not continue from each other, unless a later part joins them."""
    groups: list[tuple[set[str], set[int]]] = []
    for call in kept:
        names, answers = {call.name}, set(call.answers.values())
        # Siblings that start from one answer (heads of a trunk) belong together as well.
        joined = [group for group in groups if group[1] & (call.feeds | answers) or call.name in group[0]]
        for group in joined:
            groups.remove(group)
            names, answers = names | group[0], answers | group[1]
        groups.append((names, answers | set(call.feeds)))
    if len(groups) > 1:
        parts = list(dict.fromkeys(name for names, _ in groups for name in sorted(names)))
        raise AmbiguousError(f"it calls {' and '.join(map(repr, parts))}, which do not continue from each other")


def _of_one_side(record: StepRecord, calls: list[PartCall]) -> list[PartCall]:
    """Return the calls of the network that takes the data, where several learn by turns: a discriminator, say.

    Raises:
        AmbiguousError: several take the data.
    """
    learning = {call.name for call in calls}
    names = [name for name in dict.fromkeys(call.name for call in record.calls) if name in learning]
    if record.backward < 2 or len(names) < 2:
        return calls
    taking = [call for call in calls if not call.feeds and any(one.leaves for one in call.origins.values())]
    sides = [name for name in names if any(call.name == name for call in taking)]
    if len(sides) != 1:
        raise AmbiguousError(f"it trains {' and '.join(map(repr, sides or names))} by {record.backward} losses in turn")
    return taking


def _ends(chain: list[PartCall]) -> list[int]:
    fed = frozenset().union(*(call.feeds for call in chain))
    ends = [place for place, call in enumerate(chain) if not fed & set(call.answers.values())]
    # Of a part that is called twice (two views of an image), the first call.
    first = {chain[place].name: place for place in reversed(ends)}
    return sorted(first.values())


def _labelling(record: StepRecord, results: list[PartCall]) -> list[Any]:
    """Return the contacts that may be with labels, the ones that count most alone."""
    own = frozenset().union(*(call.answers.values() for call in results))
    found = {n: one for n, one in record.contacts.items() if one.is_inside or own & one.answer.answers}
    outside = {n: one for n, one in found.items() if not one.is_inside}
    # Inside: a network that is given the labels and computes the loss itself.
    for group in (outside, found):
        for is_mask in (False, True):
            chosen = {n: one for n, one in group.items() if one.is_mask == is_mask and _is_label(one)}
            # Weights of samples meet a loss, which labels have met before.
            first = [one for one in chosen.values() if not one.answer.contacts & set(chosen)]
            if first:
                return first
    return []


def _is_label(contact: Any) -> bool:
    made_of = contact.answer.leaves
    # An autoencoder is compared with its own input; a decoder is shown labels, to predict the next one from.
    return contact.leaf not in made_of or (contact.is_integer and len(made_of) > 1)


def _logits(record: StepRecord, results: list[PartCall], contacts: list[Any]) -> tuple[str | None, tuple[str, ...]]:
    """Return the path of the logits in the result, and those of all outputs."""
    reached = frozenset().union(*(origin.answers for origin in (record.losses or record.others)))
    met = frozenset().union(*(contact.answer.answers for contact in contacts))
    named = _named(results)
    tensors = _answers(results, named)
    outputs = [path for path, (number, _) in tensors.items() if number in reached] or list(tensors)
    if len(results) == 1 and _is_one_of_maps(results[0].result):
        return None, tuple(outputs)
    first = [path for path in outputs if tensors[path][0] in met]
    usual = [path for path in named if path.rpartition(".")[2] == "logits"]
    if first:
        return first[0], tuple(outputs)
    if usual:
        return usual[0], tuple(outputs)
    return (outputs[0] if outputs else None), tuple(outputs)


def _answers(results: list[PartCall], named: dict[str, tuple[int, Tensor]]) -> dict[str, tuple[int, Tensor]]:
    """Return which tensors of a result may be logits, by path: those that learn, or none does.

    Raises:
        AmbiguousError: it holds a loss beside what was given, and no more.
    """
    outputs = {path: one for path, one in named.items() if _is_output(one[1])}
    if not outputs and any(_is_output(tensor) for call in results for _, tensor in leaves(call.result)):
        names = " and ".join(repr(call.name) for call in results)
        raise AmbiguousError(f"what {names} returns is a loss beside what it was given, without logits")
    # What was chosen by the answer, such as a reward, has no gradient.
    return {path: one for path, one in outputs.items() if one[1].requires_grad} or outputs


def _is_one_of_maps(result: Any) -> bool:
    """Return whether the logits are maps of several scales, which count as one tensor."""
    try:
        return bool(locate_logits(result).scales)
    except ValueError:
        return False


def _named(results: list[PartCall]) -> dict[str, tuple[int, Tensor]]:
    several = len(results) > 1
    found = {}
    for call in results:
        prefix = f"{call.name}." if several else ""
        # An input that is handed on is no answer, unless there is nothing else.
        weighted = [(path, tensor) for path, tensor in leaves(call.result) if path not in call.data]
        for path, tensor in weighted or leaves(call.result):
            found[f"{prefix}{path}".rstrip(".") if several else path] = (call.answers[path], tensor)
    return found


def _is_output(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() > 0


def _is_detections(result: Any) -> bool:
    """Return whether a result has a dict for each sample: boxes after the choice among them."""
    return isinstance(result, (list, tuple)) and len(result) > 0 and all(isinstance(one, Mapping) for one in result)


def _is_number(result: Any) -> bool:
    return all(tensor.dim() == 0 for _, tensor in leaves(result))


def _label(contacts: list[Any], results: list[PartCall], logits: str | None) -> tuple[str | None, tuple[str, ...]]:
    named = _named(results)
    number = named[logits][0] if logits in named else None
    # Labels of another head are not those of this one.
    own = [one for one in contacts if number in one.answer.answers] or contacts
    paths = tuple(dict.fromkeys(one.leaf for one in own))
    return (paths[0], ()) if len(paths) == 1 else (None, paths)


def _are_values(column: Column) -> bool:
    labels = torch.cat([one.flatten() for one in column]) if isinstance(column, list) else column
    # Zeros and ones may be several labels of one sample.
    return labels.is_floating_point() and not bool(((labels == 0) | (labels == 1)).all())


def _unused(call: PartCall, data: tuple[str, ...], met: set[str]) -> tuple[str, ...]:
    """Return keywords that hold nothing but leaves of the batch without influence that the answer meets.

    Others may have an influence on another batch: a mask is left out where nothing in a batch is masked.
    """
    found: dict[str, bool] = {}
    for path, origin in call.origins.items():
        side, _, rest = path.partition(".")
        if side == "1":
            keyword = rest.partition(".")[0]
            found[keyword] = found.get(keyword, True) and bool(origin.leaves) and origin.leaves <= met - set(data)
    return tuple(keyword for keyword, is_unused in found.items() if is_unused and keyword in call.optional)


def _inputs(call: PartCall, record: StepRecord, unused: tuple[str, ...]) -> dict[str, str] | None:
    """Return where the tensors of a call are in the batch; ``None`` if one of them is computed."""
    batch = columns(record.batch)
    found: dict[str, str] = {}
    for path, tensor in leaves(call.without(unused)):
        leaf = call.origins[path].leaf
        # Of a list that the step makes for the network, a call of another number of samples has another length.
        if leaf is None or is_list(leaf) or not _is_same(tensor, batch[leaf]):
            return None
        found[path] = leaf
    return found if _is_fixed(call) else None


def _is_same(tensor: Tensor, other: Column) -> bool:
    return (
        isinstance(other, Tensor)
        and tensor.data_ptr() == other.data_ptr()
        and tensor.shape == other.shape
        and tensor.dtype == other.dtype
        and tensor.stride() == other.stride()
    )


def _is_fixed(call: PartCall) -> bool:
    """Return whether a call's other arguments are the same for every batch, as far as one call can tell."""
    return all(_is_plain(value) for value in (*call.args, *call.kwargs.values()))


def _is_plain(value: Any) -> bool:
    # A number may be the size of this batch.
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (Tensor, bool, str, float))


def describe_paths(paths: Iterable[str]) -> str:
    """Return paths of a batch in words.

    Example:
        >>> describe_paths(["image", ""])
        "batch['image'] and the batch"
    """
    return " and ".join(f"batch[{path!r}]" if path else "the batch" for path in paths)
