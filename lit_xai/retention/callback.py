"""The callback that measures, during a run, how much of a reference's explanations the model retains."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NotRequired

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_xai.attribution.attribution import rehearse
from lit_xai.attribution.evaluation import DataInfo, known_about
from lit_xai.attribution.samples import Samples
from lit_xai.distillation.callback import KnowledgeDistillation
from lit_xai.distillation.teacher_source import read_teacher
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec
from lit_xai.network.check import Name, check_choice, refusal
from lit_xai.network.copying import copy_network
from lit_xai.network.probing import Probe
from lit_xai.network.spec import Network
from lit_xai.render.samples import LEFT_OUT, SAMPLES
from lit_xai.retention.cache import ReferenceCache, cache_folder
from lit_xai.retention.comparison import Comparison
from lit_xai.retention.conclusion import Conclusion, ReferenceLines, against_nothing
from lit_xai.retention.explained import network_of, with_known_baseline
from lit_xai.retention.explainer import Explainer, as_explainer
from lit_xai.retention.figures import BothMaps, Figures
from lit_xai.retention.guard import GUARD, Guard, Measured
from lit_xai.retention.in_time import InTime
from lit_xai.retention.lines import charts
from lit_xai.retention.parts import class_number
from lit_xai.retention.pool import Pool, own_loader, read_pool
from lit_xai.retention.predictions import PredictionChanges
from lit_xai.retention.reasons import reasons_changed
from lit_xai.retention.record import Reading, as_state, from_state
from lit_xai.retention.reference import LADDER, NULLS, Compared, predict
from lit_xai.retention.retention import References, Retention
from lit_xai.retention.settings import check_settings
from lit_xai.retention.tokens import explainers_of_tokens
from lit_xai.structure.attachment import attach, detach
from lit_xai.structure.schema import NonNegative, Weights, entries
from lit_xai.trainer.access import (
    MisconfigurationException,
    callbacks_of,
    rank_zero_info,
    rank_zero_warn,
    refuse_strategies,
    require_writable,
    run_folder,
    without_log,
)
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.batches import loader_name
from lit_xai.trainer.budget import Budget
from lit_xai.trainer.dense_model import DenseModel
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.logging import log_scalars, log_text
from lit_xai.trainer.progress import run_length
from lit_xai.trainer.random_states import random_numbers_kept
from lit_xai.trainer.regular import Moment, Regular
from lit_xai.trainer.saved_state import AnyNumber, check_saved_state, check_state, drop_damaged_state
from lit_xai.trainer.scheduling import Epochs, Steps, Times
from lit_xai.trainer.structural_callback import structural_callbacks
from lit_xai.trainer.watching import labels_of, resolved


class RetentionMonitor(AnyCallback):
    """Measure how much of a reference's explanations the model retains, and what became of its predictions.

    Both are explained on the same samples by the reference's predictions. At the end the result is held against
    untrained networks, other samples and the reference's own weights with fewer bits, and told in one paragraph, in the
    console, in the loggers and in ``retention/retention.json`` of the run's folder, next to ``samples.csv`` and
    ``samples.npz`` with a row for each sample. It says how much changed, not whether it got worse. Weights, optimizer,
    random numbers and losses are bit for bit those of a run without it.

    Args:
        reference: ``"dense"``: the model just before the first structural step, such as the first cut of
            StructuredPruning, or where no callback changes the structure, as it is at the start of the run; a
            checkpoint's path, a LightningModule or a bare network; or ``"previous"``: the model at the previous
            evaluation.
        explainer: of both: a method's name, a class, the arguments of an
            :class:`~lit_xai.retention.explainer.Explainer` as a mapping, or such an object. By default
            IntegratedGradients; of integer tokens LayerIntegratedGradients at the embedding that they enter.
        second_explainer: that nobody trains on, at the last evaluation only; ``None`` for none. Occlusion
            takes away tokens one by one, up to 64 of them, and longer texts in as many pieces.
        n: how many samples are explained, in proportion to the classes that the reference predicts. 256 are ample, and
            below 30 there is no interval.
        probe: a loader of one's own, or the name of a method of the data module or the LightningModule that returns
            one; by default the validation loader. The probe must contain what you worry about: explanations of clean
            images say little about a model that has learned a mark in a corner.
        nulls: untrained networks that the result is held against.
        ladder: numbers of bits of the reference's own weights.
        others: further networks by name, such as one of another seed: checkpoints' paths or networks.
        groups: the group of each sample in a batch, by the group's name: a key, an index, a function or its import
            path; predictions are also told for each group, and retention for each of which there are 100 samples; as
            many of each are explained, whatever their share.
        adverse_class: a class that is told apart likewise, by the reference's prediction: its number, or its name among
            the data module's ``class_names``.
        guard: requirements that undo what does not meet them, such as ``{"val_acc": "drop<=0.01", "retention":
            ">=0.4"}``: ``drop<=X`` (below the first reading), ``>=X`` or ``<=X``, of a metric that the run logs in
            validation, ``retention``, ``similarity``, ``flips``, ``negative_flips`` or ``accuracy``; all have to be
            met, by the worse end of the interval. Read before each structural step, after the epochs in which the
            network recovered from the one before, and at the end. Where a line is missed, weights, buffers, structure,
            optimizers and averages are what they were at the last reading that met all, the callback that took the
            steps since then takes no more, and schedules and random numbers go on. Untrained networks and the ladder
            are then measured with the reference, all of them.
        every_n_epochs: an integer, or a fraction of the run; the last epoch is always measured.
        every_n_steps: steps of the first optimizer, instead of epochs.
        time_share: the largest share of the run's time for evaluations; they are left out, but for the last, where it
            would be more.
        time_budget: the share of the run's time for what is measured once: the reference, and at the end the second
            explainer and what the result is held against. A few samples are explained to learn what all would take.
            Where the share does not suffice for all samples and 5 untrained networks, fewer samples are explained, the
            same ones by all networks, down to 30; a second explainer that takes more even so is left out. The ladder
            and further untrained networks come last. One sentence says what is left out, and what it would take.
        module: the network inside the LightningModule, a dotted name; by default found by its call.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several, a function or its import path.
        batch_to_target: the labels in a batch: a key, an index, a function or its import path.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        mean: the mean that normalization subtracted from images; default the data module's, or that of a ``Normalize``
            among the dataset's transforms. The baseline is black where mean and std are known.
        std: the standard deviation that it divided by.
        on_error: ``"warn"`` (skip that evaluation, and training continues) or ``"raise"``.
        cache: keep what the result is held against for further runs with the same reference, samples and explainer,
            a few kB: in ``retention-cache`` beside the run's folder, or in a folder of yours; ``False`` to measure it
            in every run.
        seed: of the samples, the untrained networks, and explainers that draw.
        samples: what figures and files may hold of samples: ``"show"``; ``"maps_only"`` for maps without the inputs;
            ``"none"`` for numbers alone, without figures and maps. Predictions, labels, groups and indices are kept in
            any case, and checkpoints never hold samples.

    Raises:
        ValueError: in the constructor or before the first step, one sentence that names the argument.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lit_xai import StructuredPruning
        >>> trainer = Trainer(callbacks=[StructuredPruning(target_macs=0.5), RetentionMonitor()], logger=False)
        >>> RetentionMonitor(n=1)
        Traceback (most recent call last):
        ...
        ValueError: n expected an integer of at least 2, but got 1.
    """

    def __init__(
        self,
        reference: nn.Module | Name = "dense",
        *,
        # Not a union with Explainer: of a string, LightningCLI would read the file of that name for its arguments.
        explainer: Any = None,
        second_explainer: Any = "Occlusion",
        n: int = 256,
        probe: Any = None,
        nulls: int = NULLS,
        ladder: Sequence[int] = LADDER,
        others: dict[str, Any] | None = None,
        groups: dict[str, BatchToTarget] | None = None,
        adverse_class: int | str | None = None,
        guard: dict[str, str] | None = None,
        every_n_epochs: Epochs = 1,
        every_n_steps: Steps | None = None,
        time_share: float = 0.25,
        time_budget: float = 0.2,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        batch_to_target: BatchToTarget = None,
        output: OutputSpec = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        cache: bool | Name = True,
        seed: int = 0,
        samples: Literal["show", "maps_only", "none"] = "show",
    ) -> None:
        super().__init__()
        self.samples = check_choice("samples", samples, SAMPLES)
        if not isinstance(reference, (str, Path, nn.Module)):
            raise refusal("reference", "'dense', 'previous', a checkpoint's path or a module", reference)
        self._is_named = explainer is not None
        self.explainer = as_explainer(explainer) if self._is_named else Explainer()
        self.second_explainer = None if second_explainer is None else as_explainer(second_explainer, "second_explainer")
        self._given_explainers = self.explainer, self.second_explainer
        if self.second_explainer is not None and self.second_explainer.name == self.explainer.name:
            raise refusal("second_explainer", f"another method than {self.explainer.name}, or None", second_explainer)
        check_settings(
            n, nulls, ladder, {"time_share": time_share, "time_budget": time_budget}, on_error, adverse_class
        )
        self.adverse_class = adverse_class
        self.reference, self.n, self.probe, self.nulls, self.ladder = reference, n, probe, nulls, tuple(ladder)
        self.others, self.groups, self.on_error, self.seed = dict(others or {}), dict(groups or {}), on_error, seed
        self.given, self.batch_to_target, self.cache = Network(module, batch_to_inputs, output), batch_to_target, cache
        self._data_info = DataInfo(mean=mean, std=std)
        self._regular = Regular(Times.given((1,), {"every_n_epochs": every_n_epochs}, {"every_n_steps": every_n_steps}))
        self._budget = Budget(time_share, time_budget)
        self._guard = None if guard is None else Guard(guard)
        if guard is not None and reference == "previous":
            raise refusal("reference", "'dense', a checkpoint's path or a module with a guard", reference)
        self._resumed: dict[str, Any] = {}
        self.result: dict[str, Retention] = {}
        self.predictions: PredictionChanges | None = None
        self._explain_with(*self._given_explainers)
        self._forget()

    def _forget(self) -> None:
        self._is_settled = False
        self._network = self.given
        self._dense = DenseModel("RetentionMonitor", "reference")
        self._comparison: Comparison | None = None
        self._next: nn.Module | None = None
        self._references: dict[str, References] = {}
        self._logits = torch.empty(0)
        self._history: list[Reading] = []
        self._folder = Path()
        self._cache = ReferenceCache(None, self._warn)
        self._trainer: Trainer | None = None
        self._pl_module: Any = None
        self._loader = "val"
        self._warned: set[str] = set()
        self._skipped: Moment | None = None
        self._last: Compared | None = None
        self._figures: Figures | None = None
        self._both: BothMaps | None = None
        self._regular.forget()
        if self._guard is not None:
            self._guard.forget()

    @property
    def label(self) -> str:
        """The reference, in words."""
        if isinstance(self.reference, nn.Module):
            return type(self.reference).__name__
        return str(self.reference)

    def _explain_with(self, explainer: Explainer, second: Explainer | None) -> None:
        self.explainer, self.second_explainer = explainer, second
        self.charts = charts(explainer.name, self.n)

    @property
    def explainers(self) -> list[Explainer]:
        """One or two."""
        return [self.explainer] if self.second_explainer is None else [self.explainer, self.second_explainer]

    # --- hooks of Lightning -------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse settings that are wrong for any batch, and wait for the first structural step."""
        guard(trainer)
        if stage != "fit":
            return
        self._forget()
        self._explain_with(*self._given_explainers)
        self._resumed = {}
        refuse_strategies(
            trainer, "RetentionMonitor", "leave it out and compare consolidated checkpoints with measure_retention"
        )
        if sum(isinstance(one, RetentionMonitor) for one in callbacks_of(trainer)) > 1:
            raise MisconfigurationException("RetentionMonitor expected to be alone in a Trainer: keep one of them.")
        self._refuse_trained_on(trainer)
        self._regular.check(trainer)
        self._folder = run_folder(trainer) / "retention"
        agreed(trainer, "RetentionMonitor", lambda: require_writable(self._folder))
        kept = cache_folder(self.cache, self._folder.parent, Path(trainer.default_root_dir))
        self._cache = ReferenceCache(None if trainer.fast_dev_run else kept, self._warn)  # type: ignore[attr-defined]  # set by its connector
        self._trainer, self._pl_module = trainer, pl_module
        if self.reference == "dense" and structural_callbacks(trainer):
            attach(pl_module, self, before_step=self._before_structural_step)
        if self._guard is not None:
            self._guard.watch(trainer, self._measure)

    def _refuse_trained_on(self, trainer: Trainer) -> None:
        """Refuse to judge explanations by none but methods that the run trains on."""
        matched = {one.matched_method for one in callbacks_of(trainer) if isinstance(one, KnowledgeDistillation)}
        if all(one.name.lower() in {name.replace("_", "") for name in matched if name} for one in self.explainers):
            raise MisconfigurationException(
                f"RetentionMonitor explains with {' and '.join(one.name for one in self.explainers)} alone, which"
                " KnowledgeDistillation trains on: add a method that nobody trains on, such as Occlusion."
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in what a resumed run needs, as plain values and tensors."""
        state = self._state(trainer, self._comparison.pool) if self._comparison is not None else self._resumed
        if state:
            checkpoint.setdefault("callbacks", {})[self.state_key] = state

    @property
    def state_key(self) -> str:
        """The name under which checkpoints hold what a resumed run needs."""
        return "RetentionMonitor"

    def _state(self, trainer: Trainer, pool: Pool) -> dict[str, Any]:
        return {
            "reference": self.label,
            "indices": list(pool.indices),
            "hash": pool.hash,
            "history": as_state(self._history),
            "optimizer_steps": self._regular.steps(trainer),
            **self._settled(),
            **self._budget.state(),
            **self._dense.state(),
            **({} if self._guard is None else {"guard": self._guard.state()}),
        }

    def _settled(self) -> dict[str, Any]:
        """Return how many samples are explained, which was a matter of time, for a resumed run to explain the same."""
        comparison = self._comparison
        if comparison is None or not self._is_settled:
            return {}
        return {"n": comparison.n, "has_parts": comparison.has_parts}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Start afresh, with a warning, instead of from a damaged state; with a guard, refuse it."""
        check = drop_damaged_state if self._guard is None else check_saved_state
        check(self, checkpoint, self._check_state)

    def _check_state(self, state: Any) -> None:
        check_state("RetentionMonitor", state, _STATE if state else dict)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the reference, the samples and the readings of the resumed run."""
        self._check_state(state_dict)
        self._resumed = dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the samples, rehearse explaining them, and load a reference that is there already."""
        if self._pl_module is None:
            return
        resumed, self._resumed = self._resumed, {}
        if resumed.get("reference") != self.label:
            resumed = {}
        self._regular.start(trainer, resumed.get("optimizer_steps"))
        self._history = from_state(resumed.get("history", []))
        self._budget.start(resumed)
        with self._budget.once():
            agreed(trainer, "RetentionMonitor", lambda: self._prepare(trainer, pl_module, resumed))

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, resumed: Mapping[str, Any]) -> None:
        self._loader = loader_name(trainer, Probe(), "fit")
        self._network = resolved(trainer, pl_module, self._loader, self.given)
        pool = self._read(trainer, pl_module, resumed)
        few = pool.rows(range(min(2, len(pool))))
        self._explain_tokens(pl_module, few)
        names = self._data_info.completed_by(getattr(trainer, "datamodule", None)).token_names
        first, *second = (replace(one, token_names=names) for one in self.explainers)
        self._explain_with(first, next(iter(second), None))
        with without_log(pl_module):
            for explainer in self.explainers:
                options = explainer.options(few.inputs)
                options.pop("internal_batch_size")
                rehearse(self._network.of(pl_module), few.inputs, output=self._network.output, **options)
                self._with_baseline(trainer, pl_module, explainer, few)
        if self.samples != "show":
            rank_zero_info(f"RetentionMonitor: {LEFT_OUT[self.samples]}")
        if len(pool) < 2:
            raise ValueError(f"RetentionMonitor expected two samples or more to explain, but got {len(pool)}.")
        self._comparison = Comparison(
            trainer,
            pl_module,
            self._network,
            pool,
            baseline=partial(self._with_baseline, trainer, pl_module),
            n=self.n,
            seed=self.seed,
            adverse=self._find_adverse_class(trainer, pl_module, few),
            warn=self._warn,
        )
        if self._guard is None and {"n", "has_parts"} <= set(resumed):
            self._is_settled = True
            if not resumed["has_parts"]:
                self._comparison.explain_fewer(min(self.n, resumed["n"]))
        if self.reference == "dense":
            self._dense.resume(pl_module, resumed)
            if self._dense.module is None and not structural_callbacks(trainer):
                self._dense.take(pl_module)
            if self._dense.module is not None:
                self._start_from(self._dense.module)
        elif self.reference != "previous":
            self._start_from(self._load(self.reference, pl_module))
        if self._guard is not None and "guard" in resumed:
            self._guard.resume(resumed["guard"], pl_module)

    def _explain_tokens(self, pl_module: LightningModule, few: Pool) -> None:
        """Explain integer tokens at the embedding that they enter, where no method was named."""
        if self._is_named:
            return
        with without_log(pl_module):
            network, output = self._network.of(pl_module), self._network.output
            found = explainers_of_tokens(network, few.inputs, self.second_explainer, output)
        if found is None:
            return
        self._explain_with(*found)
        rank_zero_info(
            "RetentionMonitor: the inputs are integer tokens, which are explained by"
            f" {' and '.join(one.name for one in self.explainers)}, compared with token {self.explainer.baselines}."
        )

    def _find_adverse_class(self, trainer: Trainer, pl_module: LightningModule, few: Pool) -> tuple[str, int] | None:
        """Return the class's name and number."""
        if self.adverse_class is None:
            return None
        with without_log(pl_module):
            logits = predict(self._network.of(pl_module), few.inputs, self._network.output)
        classes = logits.shape[1] if few.has_classes(logits) else None
        names = self._data_info.completed_by(getattr(trainer, "datamodule", None)).class_names
        number = class_number(self.adverse_class, names, classes)
        return str(number if names is None else names[number]), number

    def _read(self, trainer: Trainer, pl_module: LightningModule, resumed: Mapping[str, Any]) -> Pool:
        labels = labels_of(trainer, pl_module, self._loader, self.given, self.batch_to_target)
        own = own_loader(trainer, pl_module, self.probe)

        def read(indices: Sequence[int] | None) -> Pool:
            return read_pool(
                trainer,
                pl_module,
                self._network,
                self._loader,
                self.n,
                own=own,
                groups=self.groups,
                batch_to_target=labels,
                indices=indices,
                seed=self.seed,
            )

        pool = read(resumed.get("indices"))
        if resumed and pool.hash != resumed["hash"]:
            self._warn("the samples differ from those of the resumed run: readings before and after cannot be compared")
        return pool

    def _load(self, given: Any, pl_module: LightningModule) -> nn.Module:
        if isinstance(given, nn.Module):
            return copy_network(given)
        return read_teacher(given, None, pl_module)

    def _before_structural_step(self, pl_module: Any) -> None:
        if self._comparison is None or not self._dense.before_structural_step(pl_module):
            return
        assert self._dense.module is not None  # just copied
        try:
            with self._budget.once():
                self._start_from(self._dense.module)
        except Exception as error:  # an observer never ends a run
            if self.on_error == "raise" or self._guard is not None:
                raise
            self._comparison.reference = None
            self._warn(f"nothing is measured: the reference cannot be explained. {type(error).__name__}: {error}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate the step if it is due."""
        if self._pl_module is not None:
            self._evaluate_at(trainer, pl_module, self._regular.after_batch(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the epoch if it is due."""
        if self._pl_module is not None:
            self._evaluate_at(trainer, pl_module, self._regular.after_epoch(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the guard what was logged."""
        if self._guard is not None and self._pl_module is not None:
            self._guard.validated()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the last epoch or step in any case, and hold it against what would mean something."""
        if self._pl_module is None:
            return
        self._regular.stop()
        moment = self._regular.at_end() or self._skipped
        if self._guard is not None and self._guard.at_end(self):
            moment = self._regular.last  # another model than the one that was evaluated there
        self._evaluate_at(trainer, pl_module, moment, always=True)
        if self._last is not None and self._comparison is not None:
            self._conclude(trainer, self._comparison, self._last)
        elif self.reference == "dense" and self._dense.module is None:
            rank_zero_warn("RetentionMonitor measured nothing, as no structural step was taken: there is no reference.")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release samples and reference, and remove what was put on the module."""
        unguard(trainer)
        self._regular.stop()
        if self._pl_module is not None:
            detach(self._pl_module, self)
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Clean up here as well, because Lightning calls no ``teardown`` after an exception."""
        self.teardown(trainer, pl_module, "exception")

    # --- evaluations --------------------------------------------------------------------------------------------------

    def _with_baseline(self, trainer: Trainer, pl_module: LightningModule, explainer: Explainer, sample: Pool) -> Any:
        return with_known_baseline(trainer, pl_module, self._network, explainer, sample, self._data_info, self._loader)

    def _start_from(self, reference: nn.Module) -> None:
        """Take a reference; it is explained at the next evaluation, when it is known how long the run takes."""
        trainer, comparison = self._trainer, self._comparison
        assert trainer is not None  # hooks of fit call this
        assert comparison is not None
        comparison.start_from(reference)
        if self._guard is not None and self._guard.explains:
            comparison.explain_reference(self.explainer)
            with random_numbers_kept():
                measured = self._reference_lines(trainer, self.explainer).measure(
                    comparison, self.explainer, in_time=False
                )
            self._references[self.explainer.name] = measured

    def _reference_lines(self, trainer: Trainer, explainer: Explainer) -> ReferenceLines:
        others = {name: partial(self._other, one) for name, one in self.others.items()}
        share = self._share(explainer)
        return ReferenceLines(trainer, self.nulls, self.ladder, others, self._cache, self._budget, share, self._warn)

    def _share(self, explainer: Explainer) -> float:
        """Return the share of the time that is left for what is measured once; the last explainer may take the rest."""
        return 1 / len(self.explainers) if explainer is self.explainer else 1.0

    def _other(self, given: Any) -> nn.Module:
        return network_of(self._network, self._load(given, self._pl_module))

    def _measure(self) -> Measured:
        """Return what a guard reads of the model as it is now; call it on every process."""
        comparison = self._comparison
        assert comparison is not None  # hooks of fit call this
        self._before_structural_step(self._pl_module)
        with self._budget.recurring():
            logits, references = comparison.predict(self._pl_module), self._references.get(self.explainer.name)
            changes = comparison.changes(logits)
            if references is None:
                return Measured(None, changes)
            with self._observing("a reading of the guard has no explanations."):
                found = comparison.explain(self.explainer, logits)
                return Measured(comparison.summarize(self.explainer, found, references), changes)
            return Measured(None, changes)

    def _evaluate_at(
        self, trainer: Trainer, pl_module: LightningModule, moment: Moment | None, always: bool = False
    ) -> None:
        """Compare the model with the reference, if there is one and time for it."""
        comparison = self._comparison
        if moment is None or comparison is None:
            return
        if comparison.reference is None:
            if self.reference == "previous":
                with self._budget.recurring():
                    self._start_from(copy_network(pl_module))
            return
        # The clocks of processes differ.
        if not trainer.strategy.broadcast(always or self._budget.allows_another()):
            if self._skipped is None:
                self._warn(
                    "evaluations are left out where they would take more than their share of the run, time_share"
                )
            self._skipped = moment
            return
        self._skipped = None
        if self.explainer.name not in comparison.explained:
            try:
                with self._budget.once():
                    self._explain_reference(trainer, comparison, 1.0 if always else _done(trainer, moment))
            except Exception as error:  # an observer never ends a run
                if self.on_error == "raise":
                    raise
                comparison.reference = None
                self._warn(f"nothing is measured: the reference cannot be explained. {type(error).__name__}: {error}")
                return
        with self._observing("an evaluation is left out, and training continues."):
            self._evaluate(trainer, pl_module, comparison, moment, always)

    def _explain_reference(self, trainer: Trainer, comparison: Comparison, done: float) -> None:
        """Explain the reference, on as many samples as the time of the run allows for.

        Args:
            trainer: inside ``fit``.
            comparison: with the reference.
            done: the share of the run that is over.
        """
        if not self._is_settled and self._guard is None:
            found = InTime.of(comparison, self.explainer, self._budget, self._share(self.explainer), done)
            if not found.is_all:
                n = max(found.n, found.least)
                comparison.explain_fewer(min(n, comparison.n_of_all))
                self._warn(
                    f"{found.explainer} explains {comparison.n} of {found.wanted} samples"
                    f"{'' if found.is_enough else ', which is more than the time allows, as fewer say nothing'};"
                    f" {found.in_words(n if not found.is_enough else found.wanted)}."
                )
        self._is_settled = True
        if self.reference != "previous":
            comparison.explain_reference(self.explainer)

    def _evaluate(
        self, trainer: Trainer, pl_module: LightningModule, comparison: Comparison, moment: Moment, always: bool
    ) -> None:
        with self._budget.recurring():
            if self._next is not None:
                self._start_from(self._next)
                self._next = None
            if self.explainer.name not in comparison.explained:
                comparison.explain_reference(self.explainer)
            logits = comparison.predict(pl_module)
            found = comparison.explain(self.explainer, logits)
            self._last, self._logits = found, logits
            numbers = comparison.numbers(self.explainer, found, logits)
            both = comparison.both_maps(self.explainer, found, logits)
            groups = getattr(getattr(trainer, "datamodule", None), "feature_groups", None)
            changed = None if both is None else reasons_changed(both, groups)
            numbers |= {} if changed is None else {"reasons_changed": changed}
            self._history.append(Reading(str(moment.point), moment.step, numbers))
            log_scalars(trainer, {f"retention/{name}": value for name, value in numbers.items()}, moment.step)
            self._both = None if self.samples == "none" else both
        with self._budget.extra():
            self._draw(trainer, moment, always)
        if self.reference == "previous":
            self._next = copy_network(pl_module)  # explained when it is needed: the end still tells of this comparison

    def _draw(self, trainer: Trainer, moment: Moment | None, always: bool = False) -> None:
        """Draw an evaluation if there is time for it, or without a moment the gallery; nothing here ends a run."""
        both, comparison = self._both, self._comparison
        if both is None or comparison is None or not _writes(trainer):
            return
        try:
            if self._figures is None:
                own = comparison.sample
                samples = Samples(own.inputs, own.labels, own.indices, self._loader, True, own.hash)
                title = f"{self.explainer.name} · reference: {self.label}"
                known = known_about(trainer, self._data_info, samples)
                self._figures = Figures(title, self._folder, known, shows_inputs=self.samples == "show")
            if moment is None:
                self._figures.gallery(trainer, both, self._history[-1].step)
            elif always or self._budget.allows(self._figures.seconds):
                self._figures.evaluation(trainer, both, str(moment.point), moment.step)
        except Exception as error:  # an observer never ends a run
            self._warn(f"a figure is left out, and training continues. {type(error).__name__}: {error}")

    # --- the end ------------------------------------------------------------------------------------------------------

    def _conclude(self, trainer: Trainer, comparison: Comparison, last: Compared) -> None:
        """Hold the last evaluation against what would mean something, and tell it."""
        report = None if self._guard is None else self._guard.report()
        conclusion = Conclusion(self.label, self._whose, report, comparison.changes(self._logits))
        with self._budget.once():
            for explainer in self.explainers:
                with self._observing("an evaluation is left out, and training continues."):
                    found = last if explainer is self.explainer else self._explain_second(comparison, explainer)
                    if found is not None:
                        held_against = self._held_against(trainer, comparison, explainer)
                        conclusion.add(comparison, explainer, found, held_against)
            self._draw(trainer, None)
        self.result, self.predictions = conclusion.found, conclusion.predictions
        if _writes(trainer):
            self._report(trainer, comparison, conclusion)

    def _explain_second(self, comparison: Comparison, explainer: Explainer) -> Compared | None:
        """Explain the reference and the model by the second explainer; ``None`` where there is no time for it."""
        found = InTime.of(comparison, explainer, self._budget, self._share(explainer), done=1.0)
        if not found.is_enough:
            self._warn(
                f"{found.explainer} is left out; {found.in_words(found.wanted)}, and second_explainer names another"
                " method, or none."
            )
            return None
        if not found.is_all:
            self._warn(
                f"{found.explainer} explains {min(found.n, comparison.n_of_all)} of {found.wanted} samples;"
                f" {found.in_words(found.wanted)}."
            )
        comparison.explain_reference(explainer, None if found.is_all else min(found.n, comparison.n_of_all))
        return comparison.explain(explainer, self._logits)

    def _held_against(self, trainer: Trainer, comparison: Comparison, explainer: Explainer) -> References:
        known = self._references.get(explainer.name)
        if known is not None:
            return known
        measure = self._reference_lines(trainer, explainer).measure
        with self._observing(f"{explainer.name} is held against nothing."):
            return agreed(trainer, "RetentionMonitor", lambda: measure(comparison, explainer))
        return against_nothing(comparison, explainer)

    def _report(self, trainer: Trainer, comparison: Comparison, conclusion: Conclusion) -> None:
        paragraphs = conclusion.paragraphs(comparison.sample.source).values()
        first, last = self._history[0].step, self._history[-1].step
        conclusion.log(trainer, first, last)
        log_text(trainer, "retention", "\n\n".join(paragraphs), last)
        try:
            shares, has_maps = self._budget.shares(), self.samples != "none"
            conclusion.write(self._folder, comparison, self._logits, self._history, shares, has_maps)
        except OSError as error:  # a full disk
            self._warn(f"nothing was written to '{self._folder}' ({error})")
        rank_zero_info("\n".join(["RetentionMonitor:", *paragraphs, f"It took {self._budget.sentence()}."]))

    @property
    def _whose(self) -> str:
        """Whose explanations the model's are compared with, in words."""
        words = {"dense": "the dense model's", "previous": "the previous evaluation's"}
        if isinstance(self.reference, nn.Module):
            return "the reference's"
        return words.get(self.label, f"those of {self.label}")

    @contextlib.contextmanager
    def _observing(self, ending: str) -> Iterator[None]:
        """Tell of an error in the body and go on: an observer never ends a run, unless it is asked to."""
        try:
            yield
        except Exception as error:
            if self.on_error == "raise":
                raise
            self._warn(f"{ending} {type(error).__name__}: {error}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:  # the same problem at every evaluation is one warning
            self._warned.add(message)
            rank_zero_warn(f"RetentionMonitor: {message}")


def _done(trainer: Trainer, moment: Moment) -> float:
    """Return the share of the run that is over; 1 where nobody knows its end."""
    count, unit = moment.point.count, moment.point.unit
    whole = run_length(trainer).of(unit)
    return 1.0 if not whole else min(1.0, max(1, count + (unit == "epoch")) / whole)


def _writes(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]  # set by its connector


_STATE = entries(
    {
        "reference": str,
        "indices": list[NonNegative],
        "hash": str,
        "history": list[dict[str, Any]],
        "optimizer_steps": NonNegative,
        "run_seconds": AnyNumber,
        "recurring_seconds": AnyNumber,
        "once_seconds": AnyNumber,
        "n": NotRequired[NonNegative],
        "has_parts": NotRequired[bool],
        "dense": NotRequired[Weights],
        "guard": NotRequired[GUARD],
    }
)
