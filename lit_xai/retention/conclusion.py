"""The end of a run: its last evaluation, held against what would mean something, in words and files."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.retention.budget import GRACE, plan_references
from lit_xai.retention.cache import ReferenceCache
from lit_xai.retention.comparison import Comparison
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.in_time import FEWEST_NULLS
from lit_xai.retention.lines import lines
from lit_xai.retention.predictions import PredictionChanges
from lit_xai.retention.record import Reading, as_state, write_json, write_samples
from lit_xai.retention.reference import Compared
from lit_xai.retention.retention import References, Retention, describe_retention, measure_references
from lit_xai.trainer.budget import Budget
from lit_xai.trainer.logging import log_scalars

ERROR = 1.5
"""By which factor the least of untrained networks may take longer than was foreseen."""


@dataclass
class ReferenceLines:
    """Measures what the explanations of a run's reference are held against.

    Args:
        trainer: inside ``fit``.
        nulls: untrained networks.
        ladder: numbers of bits.
        others: return further networks, by name.
        cache: of what was measured in an earlier run.
        budget: the time of the run.
        share: of what is left for what is measured once, which one explainer may take.
        warn: called with what is left out, in words.
    """

    trainer: Any
    nulls: int
    ladder: Sequence[int]
    others: Mapping[str, Callable[[], nn.Module]]
    cache: ReferenceCache
    budget: Budget
    share: float
    warn: Callable[[str], None]

    def measure(self, comparison: Comparison, explainer: Explainer, in_time: bool = True) -> References:
        """Return what an explainer's maps are held against; call it on every process.

        Args:
            comparison: with the reference.
            explainer: of its maps.
            in_time: only as much as the time of the run allows.
        """
        own = comparison.explained[explainer.name].own
        self.cache.load(own)
        nulls, ladder = self._in_time(comparison, own, explainer) if in_time else (self.nulls, self.ladder)
        others = {name: make() for name, make in self.others.items()}
        found = measure_references(own, nulls, ladder, others)
        self.cache.save(own)
        return found

    def _in_time(self, comparison: Comparison, own: Any, explainer: Explainer) -> tuple[int, Sequence[int]]:
        wanted, allowed = own.networks(self.nulls, self.ladder), self.budget.left_once() * self.share
        least = max(GRACE, ERROR * allowed)
        missing, rungs = [name for name in wanted if name not in own.measured], len(self.ladder) + len(self.others)

        def plan(each: float) -> tuple[int, int]:
            known = each * (len(wanted) - len(missing))  # takes no time, and is planned as if it did
            found = plan_references(allowed + known, each, self.nulls, rungs, FEWEST_NULLS, least + known)
            return self.trainer.strategy.broadcast(found)  # the clocks of processes differ

        # The reference's took up to twice as long, to find out how many steps a path needs.
        each = comparison.took[explainer.name] / 2 if missing else 0.0
        nulls, planned = plan(each)
        if missing and (nulls or planned):
            began = time.monotonic()
            own.similarity_of(missing[0], wanted[missing[0]])
            each = time.monotonic() - began
            nulls, planned = plan(each)
        if (nulls, planned) != (self.nulls, rungs):
            self.warn(
                f"{explainer.name} is held against {nulls or 'no'} untrained networks and no network of fewer bits, as"
                f" {'more' if nulls else f'{FEWEST_NULLS} of them, about {each:.0f} s each,'} would take over"
                f" {self.budget.allowed_once():.0f} s: raise time_budget for all of it."
            )
        return nulls, self.ladder if planned else ()


@dataclass
class Conclusion:
    """What a run found, by explainer.

    Args:
        label: the reference, in words.
        whose: its explanations, in words.
        guard: the report of a guard, if there is one.
        predictions: what became of them.
    """

    label: str
    whose: str
    guard: dict[str, Any] | None = None
    predictions: PredictionChanges | None = None
    found: dict[str, Retention] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)

    def add(self, comparison: Comparison, explainer: Explainer, compared: Compared, references: References) -> None:
        """Take in what one explainer found; call it on every process."""
        name, own = explainer.name, comparison.explained[explainer.name].own
        self.found[name] = comparison.summarize(explainer, compared, references)
        self.rows[f"similarity {name}"] = comparison.whole(explainer, compared.similarity)
        self.maps[f"maps {name}"] = comparison.whole(explainer, compared.maps)
        self.maps[f"reference maps {name}"] = comparison.whole(explainer, own.maps)

    def paragraphs(self, source: str) -> dict[str, str]:
        """Return a paragraph for each explainer.

        Args:
            source: of the samples: ``"validation"``.
        """
        ending = "" if self.guard is None else " Selected by guard on validation."
        return {
            name: describe_retention(one, f"{source} samples", self.whose, self._predictions_in_words()) + ending
            for name, one in self.found.items()
        }

    def _predictions_in_words(self) -> str:
        changes = self.predictions
        if changes is None or changes.flips is None:
            return ""
        sentence = f"Predictions agree on {1 - changes.flips.value:.0%}"
        if changes.accuracy is not None:
            sentence += f", accuracy {changes.accuracy.reference:.1%} -> {changes.accuracy.candidate:.1%}"
        return f"{sentence} of {changes.n}."

    def log(self, trainer: Any, first: int, last: int) -> None:
        """Log the numbers, and lines from the first evaluation to the last one.

        Args:
            trainer: whose loggers to log to.
            first: place of the first evaluation on the x-axis.
            last: of the last one.
        """
        for name, found in self.found.items():
            numbers = {f"retention/{name}/{key}": value for key, value in _figures(found).items()}
            for part, one in found.parts.items():
                numbers |= {f"retention/{name}/{part}/{key}": value for key, value in _figures(one).items()}
            log_scalars(trainer, numbers, last)
            for step in sorted({first, last}):
                log_scalars(trainer, lines(found), step)

    def write(
        self,
        folder: Path,
        comparison: Comparison,
        logits: Tensor,
        history: Sequence[Reading],
        time: dict[str, float],
        has_maps: bool = True,
    ) -> None:
        """Write ``retention.json``, ``samples.csv`` and ``samples.npz``.

        Args:
            folder: of the files.
            comparison: with the reference.
            logits: of the model now, on all samples.
            history: all evaluations.
            time: shares of the run's.
            has_maps: whether ``samples.npz`` holds them.

        Raises:
            OSError: they cannot be written.
        """
        source = comparison.sample.source
        paragraphs = self.paragraphs(source)
        values = {
            "reference": self.label,
            "samples": source,
            "explainers": {name: {**one.to_dict(), "paragraph": paragraphs[name]} for name, one in self.found.items()},
            "predictions": None if self.predictions is None else self.predictions.to_dict(),
            "history": as_state(history),
            **({} if self.guard is None else {"guard": self.guard}),
            "time": time,
        }
        write_json(folder / "retention.json", values)
        write_samples(folder, {**comparison.columns(logits), **self.rows}, self.maps if has_maps else {})


def against_nothing(comparison: Comparison, explainer: Explainer) -> References:
    """Return no references, for an explainer whose could not be measured."""
    return References(torch.empty(0, comparison.explained[explainer.name].own.n, dtype=torch.float64))


def _figures(found: Retention) -> dict[str, float]:
    values = {"retention": found.retention, "similarity": found.similarity}
    return {key: value for key, value in values.items() if value is not None}
