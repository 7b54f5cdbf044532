"""The guard of a run: cuts are kept while requirements are met in validation, and undone where they are not."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NotRequired

import torch
from torch import distributed

from lit_xai.network.spelling import nearest
from lit_xai.retention.predictions import PredictionChanges
from lit_xai.retention.requirements import MEASURED, Value, read_requirements
from lit_xai.retention.retention import Retention, rounding_level
from lit_xai.structure.schema import ListOf, entries
from lit_xai.trainer.accepted import ACCEPTED, Accepted
from lit_xai.trainer.access import MisconfigurationException, rank_zero_info, rank_zero_warn
from lit_xai.trainer.saved_state import AnyNumber
from lit_xai.trainer.structural_callback import StructuralCallback, structural_callbacks
from lit_xai.trainer.structure_change import put_averages_again

NAME = "RetentionMonitor's guard"


@dataclass(frozen=True)
class Measured:
    """What was measured of a model on the samples.

    Args:
        retention: of the explanations; ``None`` if no line asks for them, or they failed.
        predictions: what became of them; likewise.
    """

    retention: Retention | None = None
    predictions: PredictionChanges | None = None

    def values(self) -> dict[str, Value]:
        """Return the numbers by the names that a guard gives them, where they are known."""
        found: dict[str, Value] = {}
        for name, interval in (("retention", "interval"), ("similarity", "similarity_interval")):
            value = getattr(self.retention, name, None)
            if value is not None:
                found[name] = Value(value, *(getattr(self.retention, interval) or ()))
        for name in ("flips", "negative_flips"):
            share = getattr(self.predictions, name, None)
            if share is not None:
                found[name] = Value(share.value, share.low, share.high)
        accuracy = getattr(self.predictions, "accuracy", None)
        if accuracy is not None:
            # The interval of the change, sample by sample: that of the accuracy itself is far wider.
            ends = (accuracy.change.low, accuracy.change.high)
            found["accuracy"] = Value(
                accuracy.candidate, *(None if end is None else accuracy.reference + end for end in ends)
            )
        return found


@dataclass(frozen=True)
class GuardReading:
    """One decision of a guard.

    Args:
        when: ``"before epoch 3"``.
        numbers: that were read, by name.
        missed: by how much each line that was not met was missed.
        level: which of the reference lines the explanations lie at.
        decision: what was done, in words.
    """

    when: str
    numbers: dict[str, float] = field(default_factory=dict)
    missed: dict[str, float] = field(default_factory=dict)
    level: str | None = None
    decision: str = ""


class Guard:
    """Requirements on a run, read in validation before each structural step and at the end.

    The first reading, before the first step, is the accepted moment, and every later one that meets all lines. Where
    one does not, the run is brought back to the accepted moment, and the callback that took the steps since then takes
    no more.

    Args:
        given: requirements by name, see :mod:`lit_xai.retention.requirements`.

    Raises:
        ValueError: one of them is malformed; one sentence.

    Example:
        >>> guard = Guard({"val_acc": "drop<=0.01", "retention": ">=0.4"})
        >>> guard.metrics, guard.explains
        (['val_acc'], True)
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self.requirements = read_requirements(given)
        names = [one.name for one in self.requirements]
        self.metrics = [name for name in names if name not in MEASURED]
        self.explains = bool({"retention", "similarity"} & set(names))
        self.predicts = any(name in MEASURED for name in names)
        self._measure: Callable[[], Measured] = Measured
        self._trainer: Any = None
        self.forget()

    def forget(self) -> None:
        """Drop what belongs to one ``fit``."""
        for one in structural_callbacks(self._trainer) if self._trainer is not None else ():
            if one.before_step == self.allows:
                one.before_step = None
        self._trainer = None
        self._accepted: Accepted | None = None
        self._accepted_when = ""
        self._first: dict[str, Value] = {}
        self._logged: dict[str, float] = {}
        self._is_due = False
        self._took_steps: list[str] = []
        self.readings: list[GuardReading] = []

    def watch(self, trainer: Any, measure: Callable[[], Measured]) -> None:
        """Ask to be asked before each structural step; call it in ``setup`` of ``fit``.

        Args:
            trainer: its callbacks are asked.
            measure: returns what is measured of the model as it is now; called on every process.

        Raises:
            MisconfigurationException: none of them changes the structure.
        """
        callbacks = structural_callbacks(trainer)
        if not callbacks:
            raise MisconfigurationException(
                f"{NAME} expected a callback whose steps it can undo, such as StructuredPruning or"
                " QuantizationAwareTraining, but there is none: add one, or leave guard out."
            )
        self._trainer, self._measure = trainer, measure
        for one in callbacks:
            one.before_step = self.allows

    # --- readings -----------------------------------------------------------------------------------------------------

    def validated(self) -> None:
        """Store what a validation has logged; call it in ``on_validation_end``, on every process.

        Raises:
            MisconfigurationException: a metric that a line names is not among it.
        """
        trainer = self._trainer
        if trainer is None or trainer.sanity_checking:
            return
        logged = {name: _number(value) for name, value in trainer.callback_metrics.items()}
        known = {name: value for name, value in logged.items() if value is not None}
        self._logged = _averaged({name: known[name] for name in self.metrics if name in known})
        for name in self.metrics:
            if name not in self._logged:
                names = [*known, *MEASURED]
                raise MisconfigurationException(
                    f"guard[{name!r}] expected a metric that the run logs in validation, but no validation has logged"
                    f" it.{nearest(name, names)} There are {', '.join(map(repr, sorted(names)))}."
                )
        self._is_due = True

    def allows(self, callback: StructuralCallback) -> bool:
        """Return whether a structural step may be taken; undo those before it where a line is not met.

        Args:
            callback: that is about to take one.
        """
        when = f"before {callback.now(self._trainer)}"
        if self._accepted is None:
            self._read_first(callback, when)
        elif self._is_due and not self._read(when):
            return False
        self._is_due = False
        if callback.state_key not in self._took_steps:
            self._took_steps.append(callback.state_key)
        return True

    def at_end(self, observer: Any) -> bool:
        """Read at the end of the run, if there is an accepted moment; return whether the run was brought back.

        Args:
            observer: the callback in whose ``on_train_end`` this is.
        """
        if self._accepted is None:
            return False
        if not self._is_due:
            if self._took_steps:
                rank_zero_warn(
                    f"{NAME}: no validation followed the last structural step, so what it led to was not read, and"
                    " stays. Take the last step earlier."
                )
            return False
        if self._read("at the end"):
            return False
        put_averages_again(self._trainer, observer)
        return True

    def _read_first(self, callback: StructuralCallback, when: str) -> None:
        if self.metrics and not self._is_due:
            raise MisconfigurationException(
                f"{NAME} expected a validation before the first structural step, to know {' and '.join(self.metrics)}"
                f" of the model that it may have to return to, but {type(callback).__name__} takes its first step"
                f" {callback.now(self._trainer).place}: start later, such as with start_epoch=1, or validate earlier."
            )
        values, level = self._values()
        missing = [one.name for one in self.requirements if math.isnan(values[one.name].value)]
        if missing:
            why = _WHY.get(missing[0], "it was not logged as one finite number")
            raise MisconfigurationException(
                f"guard[{missing[0]!r}] expected a number before the first step, but {why}."
            )
        self._first = values
        missed = self._missed(values)
        if missed:
            rank_zero_warn(
                f"{NAME}, {when}: the model misses {self._in_words(missed, values, None)} before its first structural"
                " step, so none will be accepted that does not raise it."
            )
        self._accept(when, values, missed, level)

    def _read(self, when: str) -> bool:
        """Read the model as it is now, and accept it or bring the run back; return whether it was accepted."""
        values, level = self._values()
        missed = self._missed(values)
        if not missed:
            self._accept(when, values, missed, level)
            return True
        accepted, trainer = self._accepted, self._trainer
        assert accepted is not None  # a first reading comes before others
        accepted.restore_(trainer, trainer.lightning_module)
        reason = f"{when}: the model misses {self._in_words(missed, values, level)}"
        stopped = [one for one in structural_callbacks(trainer) if one.state_key in self._took_steps]
        for one in stopped:
            one.stop(f"{NAME}, {reason}")
        names = " and ".join(type(one).__name__ for one in stopped)
        ending = f", and {names} takes no further step" if names else ""
        decision = f"returned to the accepted moment {self._accepted_when}{ending}"
        rank_zero_warn(f"{NAME}, {reason}. The run has {decision}.")
        self._keep(when, values, missed, level, decision)
        self._is_due, self._took_steps = False, []
        return False

    def _accept(self, when: str, values: dict[str, Value], missed: dict[str, float], level: str | None) -> None:
        trainer = self._trainer
        self._accepted, self._accepted_when = Accepted.of(trainer, trainer.lightning_module), when
        self._took_steps = []
        numbers = ", ".join(f"{name} {value}" for name, value in values.items())
        rank_zero_info(f"{NAME}, {when}: accepted, with {numbers}.")
        self._keep(when, values, missed, level, "accepted")

    def _keep(
        self, when: str, values: dict[str, Value], missed: dict[str, float], level: str | None, decision: str
    ) -> None:
        numbers = {name: value.value for name, value in values.items()}
        self.readings.append(GuardReading(when, numbers, missed, level, decision))

    def _values(self) -> tuple[dict[str, Value], str | None]:
        """Return the number of each line, the same on every process, and where the explanations lie."""
        found = self._measure() if self.predicts else Measured()
        known = {**found.values(), **{name: Value(value) for name, value in self._logged.items()}}
        values = {one.name: known.get(one.name, Value(math.nan)) for one in self.requirements}
        level = None if found.retention is None else rounding_level(found.retention)
        # Processes compute the same, but for the last bits: the decision has to be one.
        return self._trainer.strategy.broadcast((values, level))

    def _missed(self, values: Mapping[str, Value]) -> dict[str, float]:
        shortfalls = {str(one): one.missed_by(values[one.name], self._first.get(one.name)) for one in self.requirements}
        return {line: short for line, short in shortfalls.items() if short != 0.0}

    def _in_words(self, missed: Mapping[str, float], values: Mapping[str, Value], level: str | None) -> str:
        sentences = []
        for one in self.requirements:
            if str(one) not in missed:
                continue
            value, short = values[one.name], missed[str(one)]
            if math.isnan(short):
                sentences.append(f"{one} cannot be read, as there is no number")
                continue
            first = f", {self._first[one.name].value:.4g} at first" if one.needs_first else ""
            at = f", {level}" if level and one.name in ("retention", "similarity") else ""
            sentences.append(f"{one} by {short:.2g} ({value}{first}{at})")
        return "; ".join(sentences)

    # --- files --------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return plain values for the run's report."""
        return {
            "selected_by": "guard on validation",
            "requirements": [str(one) for one in self.requirements],
            "readings": [asdict(one) for one in self.readings],
            "accepted": self._accepted_when,
        }

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values and tensors."""
        state = {
            "logged": dict(self._logged),
            "is_due": self._is_due,
            "took_steps": list(self._took_steps),
            "readings": [asdict(one) for one in self.readings],
            "first": {name: value.value for name, value in self._first.items()},
            "when": self._accepted_when,
        }
        return state if self._accepted is None else {**state, "accepted": self._accepted.state()}

    def resume(self, state: Mapping[str, Any], pl_module: Any) -> None:
        """Restore the :meth:`state` of a run.

        Args:
            state: it fits :data:`GUARD`.
            pl_module: in its present structure.

        Raises:
            ValueError: the accepted moment is none of this module.
        """
        self._logged, self._is_due = dict(state["logged"]), state["is_due"]
        self._took_steps, self._accepted_when = list(state["took_steps"]), state["when"]
        self._first = {name: Value(value) for name, value in state["first"].items()}
        self.readings = [GuardReading(**one) for one in state["readings"]]
        if "accepted" in state:
            self._accepted = Accepted.from_state(state["accepted"], pl_module, "RetentionMonitor")


_READING = entries(
    {
        "when": str,
        "numbers": dict[str, AnyNumber],
        "missed": dict[str, AnyNumber],
        "level": str | None,
        "decision": str,
    }
)

GUARD = entries(
    {
        "logged": dict[str, AnyNumber],
        "is_due": bool,
        "took_steps": list[str],
        "readings": Annotated[list[Any], ListOf(_READING)],
        "first": dict[str, AnyNumber],
        "when": str,
        "accepted": NotRequired[ACCEPTED],
    }
)
"""The schema of :meth:`Guard.state`."""

_WHY = {
    "retention": (
        "an untrained network may be as similar as the model, so that retention says nothing: use similarity, or"
        " another explainer"
    ),
    "similarity": "explaining the model failed",
    "flips": "there are no classes whose prediction could flip",
    "negative_flips": "that needs classes and labels, and there are none: give batch_to_target",
    "accuracy": "that needs classes and labels, and there are none: give batch_to_target, or name a metric of the run",
}


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor) and value.numel() != 1:  # a metric of each class
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _averaged(values: dict[str, float]) -> dict[str, float]:
    """Return numbers averaged over the processes that have them; call it on all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, values)
    names: Sequence[str] = list(dict.fromkeys(name for one in found for name in one))
    parts = {name: [one[name] for one in found if name in one] for name in names}
    return {name: math.fsum(part) / len(part) for name, part in parts.items()}
