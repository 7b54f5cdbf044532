"""The network of a LightningModule, its call, and its labels: watched in a run of its own step.

The step runs once, on a copy and on a few samples, with a stand-in for the Trainer; every callback of a run is given
the same answer. What is trained is watched in the training step, what is explained in the evaluation step.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lit_xai.network.arguments import inputs_of_call
from lit_xai.network.calling import BatchToTarget, defines_call, find_network, plain_name
from lit_xai.network.copying import copy_network, uncompiled_
from lit_xai.network.describing import describe
from lit_xai.network.observing import StepRecord, Told, observe, observed_writing, parts_with_weights
from lit_xai.network.probing import Probe
from lit_xai.network.reading import AmbiguousError, Reading, UnwatchableError, describe_paths, read
from lit_xai.network.rows import column, columns
from lit_xai.network.selectors import ComputedInputs, InputsInBatch, InputsOfStep, LabelsAt, LogitsAt
from lit_xai.network.spec import Network, weighted_parts
from lit_xai.network.state import kept_state
from lit_xai.network.step_view import StepCall, until
from lit_xai.network.trees import leaves, replaced
from lit_xai.network.untouched import fork_rng
from lit_xai.trainer.access import callbacks_of, rank_zero_info
from lit_xai.trainer.stand_in import STEPS, run_step, standing_in, step_loader

HOOKS = {
    "train": ("on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
    "val": ("on_fit_start", "on_validation_start", "on_validation_epoch_start", "on_validation_batch_start"),
    "test": ("on_test_start", "on_test_epoch_start", "on_test_batch_start"),
}
"""Hooks in which a module may set up what its step uses; the last of each takes the batch."""

MOST = 8
"""Samples that a step is watched with, unless the batches of the run are smaller."""


@dataclass(frozen=True)
class Watched:
    """The answer of a run's own step.

    Args:
        network: which module, the function that gives its inputs, and the one that gives its logits: the
            LightningModule itself if its forward does what its step does.
        called: the same, as the step calls it: the part that is called, or the whole step.
        batch_to_target: the function that gives the labels; ``None`` if there are none.
        reading: what the record of the step said.
        step: ``"train"``, ``"val"`` or ``"test"``: which was watched.
        inputs: of one call, described.
    """

    network: Network
    called: Network
    batch_to_target: BatchToTarget
    reading: Reading
    step: str
    inputs: str


@dataclass
class _Run:
    """What was watched in one stage of a Trainer."""

    answers: dict[tuple[Any, ...], Watched | ValueError] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


_runs: WeakKeyDictionary[Trainer, _Run] = WeakKeyDictionary()


def forget(trainer: Trainer) -> None:
    """Watch anew from here on: a stage begins, perhaps with another module or other data."""
    _runs.pop(trainer, None)


def watch(trainer: Trainer, pl_module: LightningModule, loader: str, module: str | None = None) -> Watched:
    """Return what a module's step does with a batch; call it on every process.

    Args:
        trainer: inside a stage, its loaders set up.
        pl_module: its module, left unchanged.
        loader: ``"train"``, ``"val"`` or ``"test"``: whose step is watched.
        module: the network, if that is known.

    Raises:
        ValueError: the step calls no network, or several side by side; names them, and the arguments to set.
    """
    run = _runs.setdefault(trainer, _Run())
    key = (id(pl_module), loader, module)
    if key not in run.answers:
        try:
            watched = _watch_either(trainer, pl_module, loader, module)
        except ValueError as error:
            run.answers[key] = error
        else:
            run.answers[key] = watched
            _say(run, pl_module, watched)
    answer = run.answers[key]
    if isinstance(answer, ValueError):
        raise answer
    return answer


def labels_of(
    trainer: Trainer, pl_module: LightningModule, loader: str, given: Network, batch_to_target: BatchToTarget = None
) -> BatchToTarget:
    """Return where the labels are in a batch: as the user or another callback named it, or as the step shows it.

    Args:
        trainer: as for :func:`watch`.
        pl_module: likewise.
        loader: likewise.
        given: the network that the user named.
        batch_to_target: what the user named.
    """
    if batch_to_target is not None:
        return batch_to_target
    named = [
        one for one in (getattr(other, "batch_to_target", None) for other in callbacks_of(trainer)) if one is not None
    ]
    if named:  # data have their labels in one place, whoever asks
        return named[0]
    try:
        return watch(trainer, pl_module, loader, given.module).batch_to_target
    except ValueError:
        return None


def seen_in_step(trainer: Trainer, pl_module: LightningModule, given: Network) -> Reading:
    """Return what a module's training step was seen to do; nothing if it cannot be watched.

    Args:
        trainer: as for :func:`watch`.
        pl_module: likewise.
        given: the network that the user named.
    """
    try:
        return watch(trainer, pl_module, "train", given.module).reading
    except ValueError:  # whoever needs the network says so
        return Reading(())


def resolved(
    trainer: Trainer, pl_module: LightningModule, loader: str, given: Network, as_called: bool = False
) -> Network:
    """Return a network with all that was left out taken from the module's own step.

    Args:
        trainer: as for :func:`watch`.
        pl_module: likewise.
        loader: likewise.
        given: what the user named.
        as_called: whether to name the part that the step calls, where the module's own forward does the same.

    Raises:
        ValueError: as for :func:`watch`.
    """
    given = _completed(given, callbacks_of(trainer))
    if given.batch_to_inputs is not None and given.output is not None:
        return given
    try:
        watched = watch(trainer, pl_module, loader, given.module)
        # Several parts in one step have no call of their own: the module itself, if it can be called, stands for them.
        network = watched.called if as_called and watched.called.step is None else watched.network
    except UnwatchableError:
        # Its forward can still be called, with what its signature takes of a batch.
        if not defines_call(find_network(pl_module, given.module)):
            raise
        return given
    if given.batch_to_inputs is not None and network.step is not None:
        return given  # inputs that the user picks are those of a module's forward
    return replace(
        network,
        batch_to_inputs=network.batch_to_inputs if given.batch_to_inputs is None else given.batch_to_inputs,
        output=network.output if given.output is None else given.output,
    )


def _completed(given: Network, callbacks: Iterable[Any]) -> Network:
    """Return a network with what other callbacks were told of the same one."""
    others = [one for one in (getattr(other, "given", None) for other in callbacks) if isinstance(one, Network)]
    for name in ("batch_to_inputs", "output"):
        told = [getattr(one, name) for one in others if one.module == given.module and getattr(one, name) is not None]
        if getattr(given, name) is None and told:
            given = replace(given, **{name: told[0]})
    return given


def _watch_either(trainer: Trainer, pl_module: LightningModule, loader: str, module: str | None) -> Watched:
    """Watch the step of a loader, or that of training, on a batch of this loader."""
    own = step_loader(pl_module, loader)
    try:
        return _watch(trainer, pl_module, loader, own, module)
    except (UnwatchableError, AmbiguousError):
        if own == "train":
            raise
    return _watch(trainer, pl_module, loader, "train", module)


def _watch(trainer: Trainer, pl_module: LightningModule, loader: str, step: str, module: str | None) -> Watched:
    from lit_xai.trainer.batches import loaders, read_batch

    find_network(pl_module, module)
    batch, _ = read_batch(trainer, loader, Probe(n=_samples(loaders(trainer)[loader])), seed=0)
    record, outcome = _read_step(trainer, pl_module, batch, step, module)
    if trainer.world_size > 1:
        # Every process ran the step, which may pass tensors between them; the answer is that of the first.
        outcome = trainer.strategy.broadcast(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    called, reading = outcome
    target = None if reading.label is None or not _is_one_each(batch, reading.label) else LabelsAt(reading.label)
    network, inputs = _network(trainer, pl_module, step, record, reading)
    as_called, _ = _network(trainer, pl_module, step, record, called)
    return Watched(network, as_called, target, reading, step, inputs)


def _opened(
    trainer: Trainer, copied: Any, record: StepRecord, called: Reading, step: str, parts: dict[str, nn.Module]
) -> tuple[StepRecord, Reading, dict[str, nn.Module]]:
    """Look inside a network that returns losses or final detections, for the last parts of it that return more."""
    closed = called.closed
    inside = {
        name: part
        for name, part in parts.items()
        if not any(f"{one}.".startswith(f"{name}.") for one in closed) and name
    }
    if not closed or len(inside) == len(parts):
        return record, called, parts
    try:
        other = _observed(trainer, copied, record.batch, step, inside)
        return _opened(trainer, copied, other, read(other), step, inside)
    except (UnwatchableError, AmbiguousError):
        return record, called, parts


def _is_one_each(batch: Any, label: str) -> bool:
    """Return whether a column has one label for each sample, rather than one for each of its boxes."""
    labels = column(batch, label)
    return isinstance(labels, Tensor) or all(not one.dim() for one in labels or ())


def _read_step(
    trainer: Trainer, pl_module: LightningModule, batch: Any, step: str, module: str | None
) -> tuple[StepRecord, tuple[Reading, Reading] | Exception]:
    """Observe a step on a copy; return what it said, as the step calls it and as the module is called, or an error."""
    record = StepRecord(batch)
    try:
        with fork_rng(0, {pl_module.device}), torch.inference_mode(False), torch.enable_grad():
            copied: Any = uncompiled_(copy_network(pl_module))
            copied.train(step == "train")
            parts = parts_with_weights(copied)
            if module is not None:
                parts = {module: parts[module]} if module in parts else parts
            record = _observed(trainer, copied, batch, step, parts)
            called = read(record)
            if module is not None:
                return record, (called, called)
            record, called, parts = _opened(trainer, copied, record, called, step, parts)
            return record, (called, _by_own_forward(copied, record, called, parts))
    except (UnwatchableError, AmbiguousError) as error:
        return record, type(error)(_in_words(pl_module, step, module, error))
    except ValueError as error:  # a module that cannot be copied says so itself
        return record, error


def _samples(loader: Any) -> int:
    """Return a number of samples that makes a batch as the step knows it."""
    while isinstance(loader, (list, tuple, dict)) and loader and not isinstance(loader, Tensor):
        inside = next(iter(loader.values() if isinstance(loader, dict) else loader))
        if not isinstance(inside, DataLoader):
            break
        loader = inside
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None or _joins(loader):
        return 2**20  # what yields whole batches: one of them as it is
    return min(MOST, loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or MOST)


def _joins(loader: DataLoader[Any]) -> bool:
    """Return whether a loader reads from others, such that its own batch size tells nothing."""
    return not (isinstance(loader.dataset, IterableDataset) or hasattr(loader.dataset, "__getitem__"))


def _observed(trainer: Trainer, copied: Any, batch: Any, step: str, parts: dict[str, nn.Module]) -> StepRecord:
    with standing_in(trainer, copied, step):
        *hooks, of_batch = HOOKS[step]
        for hook in hooks:
            _try(getattr(copied, hook, None))
        _try(getattr(copied, of_batch, None), batch, 0)
    told = Told()
    with standing_in(trainer, copied, step, told):
        record = observe(copied, batch, lambda own: run_step(copied, own, step, told), parts, told)
        if step == "train":  # averages of weights are often brought up to date here
            given = ({"loss": told.losses[-1].detach()} if told.losses else None, batch, 0)
            with observed_writing(copied, record):
                _try(getattr(copied, "on_before_zero_grad", None), None)
                _try(getattr(copied, "on_train_batch_end", None), *given)
        return record


def _try(hook: Callable[..., Any] | None, *args: Any) -> None:
    if hook is not None:
        try:
            hook(*args)
        except Exception:  # a hook that needs what a stand-in has not
            return


def _by_own_forward(copied: nn.Module, record: StepRecord, reading: Reading, parts: dict[str, nn.Module]) -> Reading:
    """Return the reading with the module itself as the network, if its forward does what its step does.

    A module's forward is how its users call it, and names of layers then begin at the module.
    """
    if "" in reading.parts or "" not in parts:
        return reading
    calls = [call for call in record.calls if call.name in reading.parts]
    inside = {name: part for name, part in parts.items() if name}
    try:
        with torch.no_grad(), until(inside, len(calls) + 1) as made:
            result = copied(*calls[0].args, **calls[0].kwargs)
    except Exception:  # it takes something else, or its users never call it
        return reading
    if [name for name, *_ in made] != list(dict.fromkeys(call.name for call in calls)):
        return reading
    first = dict(leaves((made[0][1], made[0][2])))
    if any(not _same(first.get(path), tensor) for path, tensor in leaves((calls[0].args, calls[0].kwargs))):
        return reading
    ends = [made[place][3] for place in reading.ends if place < len(made)]
    given = [tensor for end in ends for _, tensor in leaves(end)]
    # What comes after the last part (a softmax) makes another output of it.
    same = [path for path, tensor in leaves(result) if any(_same(tensor, one) for one in given)]
    if not same:
        return reading
    logits = same[0] if len(same) == 1 or reading.logits not in same else reading.logits
    return replace(reading, parts=("",), ends=(0,), logits=logits, outputs=tuple(same))


def _same(one: Any, other: Any) -> bool:
    return (
        isinstance(one, Tensor)
        and isinstance(other, Tensor)
        and one.shape == other.shape
        and one.dtype == other.dtype
        and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    )


def _network(
    trainer: Trainer, pl_module: LightningModule, loader: str, record: StepRecord, reading: Reading
) -> tuple[Network, str]:
    """Return the network of a reading, and its inputs in words."""
    output = None if reading.logits is None else LogitsAt(reading.logits)
    run = partial(_run_alone, trainer, loader, reading.written)
    if reading.is_step:
        step = StepCall(run, reading.parts, reading.ends, reading.data)
        found = columns(record.batch)
        data = found[""] if reading.data == ("",) else {path: found[path] for path in reading.data}
        return Network(None, InputsOfStep(step), output, step), describe(data)
    (name,) = reading.parts
    # The module itself is called as its first part is.
    call = next((call for call in record.calls if call.name == (name or call.name)), None)
    if call is None:  # the step ended early in this process alone
        reason = f"{type(record.error).__name__}: {record.error}" if record.error else "it was not called"
        raise ValueError(f"{type(pl_module).__name__}.{STEPS[loader]} expected to call {name!r}, but {reason}.")
    inputs: Any = ComputedInputs(ref(pl_module), run, call.name, reading.unused)
    template = call.without(reading.unused)
    if reading.inputs is not None:
        inputs = InputsInBatch(replaced(template, _emptied(template)), reading.inputs)
    return Network(name or None, inputs, output), describe(inputs_of_call(*template))


def _emptied(template: Any) -> dict[str, Tensor]:
    # Only its shape is needed: the tensors of a batch would stay for the whole run.
    return {path: tensor.detach()[:0].clone() if tensor.dim() else tensor.detach() for path, tensor in leaves(template)}


def _run_alone(trainer: Trainer, loader: str, written: tuple[str, ...], pl_module: nn.Module, batch: Any) -> None:
    # An agent's environment, a counter: the module may be the one that is trained.
    with kept_state(pl_module), standing_in(trainer, pl_module, loader), _kept(pl_module, written):
        run_step(pl_module, batch, loader, Told())


@contextlib.contextmanager
def _kept(pl_module: nn.Module, written: tuple[str, ...]) -> Iterator[None]:
    """Put back the values of parameters that a step writes to."""
    named = {plain_name(name): parameter for name, parameter in pl_module.named_parameters()} if written else {}
    # A step may write to the values, or put others in their place.
    kept = [(named[name], named[name].data, named[name].detach().clone()) for name in written if name in named]
    try:
        yield
    finally:
        for parameter, data, values in kept:
            data.copy_(values)
            parameter.data = data


def _in_words(pl_module: LightningModule, loader: str, module: str | None, error: Exception) -> str:
    named = "" if module is None else f" module={module!r} was given."
    return (
        f"{type(pl_module).__name__}.{STEPS[loader]} was watched to find the network, but {error}.{named} Name the"
        " network that takes the inputs and gives the logits with module=, one of"
        f" {list(weighted_parts(pl_module))}, and its inputs in a batch with batch_to_inputs=."
    )


def _say(run: _Run, pl_module: nn.Module, watched: Watched) -> None:
    sentence = summary(watched, pl_module)
    if sentence not in run.told:  # the evaluation step most often does what the training step does
        step = f" In {STEPS[watched.step]}:" if run.told else ""
        run.told.add(sentence)
        rank_zero_info(f"lit_xai:{step} {sentence}")


def summary(watched: Watched, pl_module: nn.Module) -> str:
    """Return in one sentence what was found.

    Args:
        watched: the answer.
        pl_module: the LightningModule.
    """
    reading = watched.reading
    name = ", ".join(f"`{part}`" if part else f"`{type(pl_module).__name__}`" for part in reading.parts)
    what = f"the whole {STEPS[watched.step]}, which calls {name}" if reading.is_step else name
    logits = f"logits: {watched.network.output or 'its output'}"
    label = f"labels: {describe_paths([reading.label])}" if reading.label is not None else "no labels found"
    if reading.candidates:
        label = f"labels: none, as {describe_paths(reading.candidates)} may be (name one with batch_to_target=)"
    return f"the network is {what}, called with {watched.inputs}; {logits}; {label}."
