"""Knowledge distillation in the training of any LightningModule."""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NotRequired

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_xai.attribution.tokens import embedding_instead
from lit_xai.distillation.adapters import ADAPTERS, Adapters
from lit_xai.distillation.comparison import Comparison
from lit_xai.distillation.explanation_matching import ExplanationMatching
from lit_xai.distillation.features import FeatureMatching
from lit_xai.distillation.loss_spec import LossSpec
from lit_xai.distillation.losses import FEATURE_LOSSES, LOSSES
from lit_xai.distillation.means import Means
from lit_xai.distillation.student import Student
from lit_xai.distillation.teacher_source import SOURCE_STATE, TeacherOptions, TeacherSource, make_source
from lit_xai.distillation.terms import StepSettings, Terms
from lit_xai.network.calling import OutputSpec, find_labels
from lit_xai.network.check import Name
from lit_xai.network.reading import UnwatchableError
from lit_xai.network.spec import Network
from lit_xai.structure.attaching import unwrap, wrap
from lit_xai.structure.attachment import attach, detach
from lit_xai.structure.schema import entries
from lit_xai.trainer.access import (
    MisconfigurationException,
    callbacks_of,
    rank_zero_info,
    rank_zero_warn,
    refuse_strategies,
)
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.batches import example_inputs
from lit_xai.trainer.progress import Progress, length_ahead, run_length
from lit_xai.trainer.saved_state import AnyNumber, check_state
from lit_xai.trainer.scheduling import Point, RunLength, check_values, value_at
from lit_xai.trainer.structural_callback import structural_callbacks
from lit_xai.trainer.structure_change import bare_optimizers, refuse_masks
from lit_xai.trainer.watched_callback import WatchedCallback
from lit_xai.trainer.watching import labels_of, watch

STATE = entries({**SOURCE_STATE, "adapters": NotRequired[ADAPTERS], "teacher_metric": NotRequired[AnyNumber | None]})
"""What a checkpoint holds of a distillation."""


class KnowledgeDistillation(WatchedCallback):
    r"""Train any LightningModule with a teacher; its ``training_step`` stays as it is.

    The student's outputs are recorded while its step runs, the teacher is called with the same inputs, and the loss
    becomes

    .. math:: (1 - \alpha) \cdot \text{the step's} + \alpha T^2 \cdot \text{loss}(student, teacher)
        + w_f \cdot \text{feature loss} + w_e \cdot \text{explanation}

    (:math:`T^2` for losses with a temperature; Hinton et al. 2015, https://arxiv.org/abs/1503.02531). The teacher is no
    part of the student: not of its weights, its optimizers or its checkpoint's ``state_dict``. What a resumed run
    needs (the dense weights, the average, the adapters) is the state of this callback.

    Args:
        teacher: the path of a checkpoint (also of a pruned model), a LightningModule or a bare network, ``"dense"``:
            the model just before the first structural step, such as the first cut of StructuredPruning, and no teacher
            until then; or ``"ema"``: the running average of the student's weights.
        teacher_class: of a checkpoint, a class or its import path; by default the student's. A checkpoint of ``lit-xai
            fit`` holds the config that builds it, whose class paths have to be those of the student's, of layers of
            torch or of ``lit_xai.models``; another one needs a class that builds its network itself.
        alpha: the weight of the teacher, in [0, 1]; several values are spread evenly over the run, ``[0.9, 0.1]``.
        temperature: of the logits, above 0; one value or several, as for ``alpha``. With 1, the teacher's gradient on a
            logit is bounded as that of labels is, and learning rates that work without a teacher go on working. With
            more it is up to ``temperature`` times as large: a student gains more where labels are few, and may end at
            chance with a high learning rate. Lower the learning rate, or clip gradients, together with it.
        loss: on logits: ``"kl_divergence"``, ``"decoupled_kl_divergence"`` (DKD), ``"l1"``, ``"l2"``, ``"huber"``, or a
            function of student and teacher, or its import path. :mod:`lit_xai.distillation.loss_spec` says what it is
            called with.
        loss_args: keyword arguments for it, such as ``{"nontarget_weight": 2.0}``.
        features: layers whose outputs are matched too: names that student and teacher share, or
            ``{student: teacher}``; relative to the LightningModule, ``"network.layer2"``, or to the network inside it,
            ``"layer2"``.
        feature_loss: ``"hint"`` (FitNets), ``"attention_transfer"``, a function or its import path. Unless it compares
            any widths, as attention transfer does, the larger map is pooled to the smaller spatial size, and layers of
            different widths get an adapter, which is trained with the student and dropped at the end.
        feature_loss_args: keyword arguments for it, such as ``{"channel_dim": -1}``.
        feature_weight: of the mean over the layers, 0 or more.
        adapter_lr: learning rate of the adapters' Adam.
        explanation: the explanations of the teacher that are matched; ``None`` for none.
        optimize_teacher: fold its BatchNorm and use channels last: a cheaper forward, equal up to rounding.
        compile_teacher: use ``torch.compile``, which needs a C++ compiler on CPUs.
        cache: keep the teacher's logits if nothing else of it is needed: ``"memory"``, or the path of a file that
            later runs can use. Samples are found by content: with random augmentation it is correct and useless.
        ema_decay: of ``teacher="ema"``.
        module: the student's network inside the LightningModule, a dotted name; by default it is found by its call.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        teacher_output: the logits in the teacher's output; by default in the same place.
        batch_to_target: the labels in a batch, where a loss needs them: a key, an index, a function or its import path.
        name: of this distillation if there are several: its metrics are then ``distillation/<name>/...``, by default
            named by the teacher. Each takes the result of those before it in the list as the step's loss.

    Raises:
        ValueError: in the constructor, at setup or in the first step; one sentence about the argument that is wrong.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[KnowledgeDistillation("ema", alpha=[0.1, 0.9])], logger=False)
        >>> KnowledgeDistillation("ema", alpha=2)
        Traceback (most recent call last):
        ...
        ValueError: alpha expected numbers in [0, 1], but got 2.
    """

    remedy = (
        "In KnowledgeDistillation, lower alpha or temperature, or let alpha rise from 0 (alpha=[0.0, 0.9]); or lower"
        " the learning rate: the teacher's terms multiply gradients by up to temperature²."
    )

    def __init__(
        self,
        teacher: nn.Module | Name,
        *,
        teacher_class: str | type | None = None,
        alpha: float | list[float] = 0.9,
        temperature: float | list[float] = 1.0,
        loss: str | Callable[..., Any] = "kl_divergence",
        loss_args: dict[str, Any] | None = None,
        features: list[str] | dict[str, str] | None = None,
        feature_loss: str | Callable[..., Any] = "hint",
        feature_loss_args: dict[str, Any] | None = None,
        feature_weight: float = 1.0,
        adapter_lr: float = 1e-3,
        explanation: ExplanationMatching | None = None,
        optimize_teacher: bool = True,
        compile_teacher: bool = False,
        cache: str | None = None,
        ema_decay: float = 0.999,
        module: str | None = None,
        output: OutputSpec = None,
        teacher_output: OutputSpec = None,
        batch_to_target: int | str | Callable[[Any], Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        check_values(alpha, "alpha", "numbers in [0, 1]", lambda value: 0 <= value <= 1)
        check_values(temperature, "temperature", "numbers above 0", lambda value: value > 0)
        self.teacher, self.alpha, self.temperature, self.name = teacher, alpha, temperature, name
        self._terms = Terms(
            LossSpec(loss, "loss", LOSSES, loss_args or {}),
            FeatureMatching(
                features,
                LossSpec(feature_loss, "feature_loss", FEATURE_LOSSES, feature_loss_args or {}),
                feature_weight,
            ),
            explanation,
            output,
            batch_to_target,
        )
        self._options = TeacherOptions(self._terms, teacher_output, optimize_teacher, compile_teacher, cache)
        self._teacher_class, self._ema_decay = teacher_class, ema_decay
        self._adapter_lr, self._module = adapter_lr, module
        self.given, self.batch_to_target, self._given_terms = (
            Network(module, None, output),
            batch_to_target,
            self._terms,
        )
        self._resumed: dict[str, Any] = {}
        self._state_after_fit: dict[str, Any] = {}
        self._reset()

    def _make_source(self) -> TeacherSource:
        return make_source(self.teacher, self._options, self._teacher_class, self._ema_decay)

    def _reset(self) -> None:
        """Drop all that belongs to one ``fit``."""
        self._source = self._make_source()
        self._student = Student(self._module)
        self._network: Network | None = None
        self._terms = self._given_terms
        self._adapters = Adapters(self._adapter_lr)
        self._comparison = Comparison()
        self._means = Means()
        self._now = StepSettings()
        self._run, self._progress = RunLength(), Progress()
        self._calls: list[Any] = []
        self._batch: Any = None
        self._trainer: Trainer | None = None
        self._pl_module: Any = None
        self._last_step = -1
        self._has_begun = False
        self._is_backward_seen = False
        self._tag = "distillation"

    @property
    def state_key(self) -> str:
        """The name under which checkpoints hold what a resumed run needs."""
        return f"KnowledgeDistillation[{self.name or self._source.label}]"

    @property
    def matched_method(self) -> str | None:
        """The method whose explanations the student is trained to share; ``None`` if there is none."""
        explanation = self._given_terms.explanation
        return explanation.method if explanation is not None and self._given_terms.is_explained else None

    @property
    def _is_ever_on(self) -> bool:
        alphas = self.alpha if isinstance(self.alpha, (list, tuple)) else [self.alpha]
        return any(alphas) or self._terms.features.is_on or self._terms.is_explained

    # --- hooks of Lightning -------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse settings that are wrong for any batch, print the formula of the loss, and wrap the module's steps."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._detach()
        self._reset()
        self._resumed, self._state_after_fit = {}, {}
        refuse_strategies(trainer, "KnowledgeDistillation")
        if self.teacher == "ema":
            refuse_masks(trainer, "KnowledgeDistillation with teacher='ema'")
        self._choose_tag(trainer)
        if (run := length_ahead(trainer)) is not None:
            self._settings_at(Point(0), run)  # refuses what can be refused before the data are loaded
        if not self._is_ever_on:
            rank_zero_info("KnowledgeDistillation is off: alpha is 0, and so are the other weights.")
            return
        if self.teacher == "dense" and not structural_callbacks(trainer):
            raise MisconfigurationException(
                "KnowledgeDistillation: teacher='dense' expected a callback that changes the structure, such as"
                " StructuredPruning or QuantizationAwareTraining, but the Trainer has none: give a checkpoint, or"
                " 'ema'."
            )
        self._attach(trainer, pl_module)
        rank_zero_info(
            f"KnowledgeDistillation, teacher {self._source.label}: {self._terms}, alpha {self.alpha},"
            f" temperature {self.temperature}."
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in what a resumed run needs, as plain values and tensors."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        # Not by state_dict: of two callbacks with one state_key Lightning would refuse the Trainer before our setup
        # can say what to do about it.
        state = self._state_after_fit
        if self._pl_module is not None:
            # Tuners save a checkpoint before the run begins, and load it after their trials.
            state = self._state() if self._has_begun else self._resumed
        if state:
            checkpoint.setdefault("callbacks", {})[self.state_key] = state

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the state in a checkpoint, also if the file of the teacher was moved since."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        states = checkpoint.get("callbacks", {})
        of_this_class = [key for key in states if str(key).startswith("KnowledgeDistillation[")]
        is_alone = sum(isinstance(callback, KnowledgeDistillation) for callback in callbacks_of(trainer)) == 1
        # The key holds the teacher's path: if the file has moved, the only state of this class is the right one.
        moved = of_this_class[0] if len(of_this_class) == 1 and is_alone else None
        key = self.state_key if self.state_key in states else moved
        if key is not None:
            check_state("KnowledgeDistillation", states[key], STATE)
        self._resumed = {} if key is None else copy.deepcopy(states[key])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the teacher, and refuse what does not fit the module, which is complete by now."""
        if self._pl_module is None:
            return
        agreed(trainer, "KnowledgeDistillation", lambda: self._load_teacher(pl_module))

    def _load_teacher(self, pl_module: LightningModule) -> None:
        is_explained = self._terms.is_explained
        self._student.check(pl_module, self._terms.student_layers(is_explained), is_explained)
        self._source.load(pl_module)
        self._source.refuse_another(self._resumed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the state of a resumed run, and put the teacher on the student's device."""
        if self._pl_module is None:
            return
        self._adapters.load_state_dict(self._resumed.get("adapters", {}))
        self._comparison.teacher = self._resumed.get("teacher_metric")
        self._last_step = trainer.global_step
        self._run = run_length(trainer)
        self._progress.start(trainer)
        self._follow_schedules(trainer)  # on_train_epoch_start is not called in a run resumed within an epoch
        agreed(trainer, "KnowledgeDistillation", lambda: self._watch_step(trainer, pl_module))
        agreed(trainer, "KnowledgeDistillation", lambda: self._source.start(pl_module, self._resumed))
        self._resumed, self._has_begun = {}, True
        self.say_change("in which it takes part from the first step on", is_teacher=True)

    def _watch_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out what the training step calls; where it does not run by itself, the first real one shows it."""
        try:
            watched = watch(trainer, pl_module, "train", self._module)
        except UnwatchableError:
            return
        network = watched.called
        if watched.reading.has_values and self._terms.loss.takes("temperature") and self._is_ever_on:
            rank_zero_warn(
                f"KnowledgeDistillation compares outputs with {self._terms.loss.name}, as scores of classes, but the"
                f" labels of {type(pl_module).__name__} are values: take loss='l2', 'l1' or 'huber'."
            )
        if network.step is not None and self._terms.is_explained:
            raise MisconfigurationException(
                "KnowledgeDistillation: explanation expected one network in the step of"
                f" {type(pl_module).__name__}, but it calls {' and '.join(map(repr, network.step.parts))} one after the"
                " other: name one with module=, or leave explanation out."
            )
        self._network = network
        self._student.follow(network)
        self._terms = replace(
            self._terms,
            explanation=self._at_tokens(trainer, pl_module, watched.network),
            output=network.output if self.given.output is None else self.given.output,
            batch_to_target=labels_of(trainer, pl_module, "train", self.given, self.batch_to_target),
        )

    def _at_tokens(self, trainer: Trainer, pl_module: LightningModule, network: Network) -> ExplanationMatching | None:
        """Return the explanation to match; of integer inputs at the embedding that they enter."""
        explanation = self._terms.explanation
        if explanation is None or not self._terms.is_explained or not explanation.needs_input_gradient:
            return explanation
        inputs = example_inputs(trainer, pl_module, network)
        found = embedding_instead(network.of(pl_module), inputs, output=network.output)
        return explanation if found is None else replace(explanation, layers=[network.prefix(pl_module) + found.layer])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the values that follow a schedule."""
        if self._pl_module is None:
            return
        self._follow_schedules(trainer)
        self._means = Means()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the values that follow a schedule, where the run is counted in steps."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._pl_module is not None and self._run.unit == "step":
            self._follow_schedules(trainer)

    def _follow_schedules(self, trainer: Trainer) -> None:
        self._now = self._settings_at(self._progress.point(trainer, self._run.unit), self._run)

    def _settings_at(self, now: Point, run: RunLength) -> StepSettings:
        return StepSettings(
            value_at(self.alpha, now, run, "alpha"), value_at(self.temperature, now, run, "temperature")
        )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Step the adapters whenever the student steps."""
        # Lightning unscales the gradients of its own optimizers alone.
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._adapters.step(float(scaler.get_scale()) if scaler is not None else 1.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the source of the teacher that the student has new weights."""
        self._batch, self._calls = None, []
        if trainer.global_step > self._last_step:  # with accumulated gradients, not every batch steps
            self._source.after_optimizer_step(pl_module, trainer.global_step)
        self._last_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the parts of the loss, and write the cache."""
        means = self._means.compute()
        if not means:
            return
        values: dict[str, Any] = {**means, "alpha": self._now.alpha, "temperature": self._now.temperature}
        # Through the module, so that EarlyStopping and ModelCheckpoint can monitor them.
        logged = {f"{self._tag}/{name}": value for name, value in values.items()}
        pl_module.log_dict(logged, on_step=False, on_epoch=True, sync_dist=True)
        teacher = self._source.teacher
        if teacher is not None and teacher.cache is not None and trainer.is_global_zero:
            teacher.cache.save()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start comparing student and teacher."""
        self._comparison.start()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the teacher's metric, and warn if the student's is better."""
        self._comparison.end(trainer, self._tag)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove everything from the module that this callback put there."""
        super().teardown(trainer, pl_module, stage)
        self._progress.stop()
        if self._pl_module is not None:
            self._state_after_fit = self._state()  # a checkpoint may still be saved
        self._detach()
        self._source = self._make_source()
        self._batch, self._calls = None, []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Clean up here as well, because Lightning calls no ``teardown`` after an exception."""
        self.teardown(trainer, pl_module, "exception")

    # --- setup and state ----------------------------------------------------------------------------------------------

    def _choose_tag(self, trainer: Trainer) -> None:
        """Choose the prefix of the metrics, and refuse two distillations that would share one."""
        all_of_them = [callback for callback in callbacks_of(trainer) if isinstance(callback, KnowledgeDistillation)]
        label = self.name or self._source.label
        if sum(callback.state_key == self.state_key for callback in all_of_them) > 1:
            raise MisconfigurationException(
                f"Two KnowledgeDistillations have one {'name' if self.name else 'teacher'}, {label}: keep one, or give"
                " each a name=."
            )
        if self.name or len(all_of_them) > 1:
            self._tag = f"distillation/{self.name or Path(label).stem}"

    def _attach(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trainer, self._pl_module = trainer, pl_module
        # Wrapped on the instance, so that it works with every strategy and without a change of the user's class.
        wrap(pl_module, "training_step", self._training_step)
        wrap(pl_module, "validation_step", self._validation_step)
        if not pl_module.automatic_optimization:
            wrap(pl_module, "manual_backward", self._manual_backward)
        source = self._source
        attach(pl_module, self, source.copies, lambda: bare_optimizers(trainer), source.before_structural_step)

    def _detach(self) -> None:
        if self._pl_module is not None:
            unwrap(self._pl_module, "training_step", self._training_step)
            unwrap(self._pl_module, "validation_step", self._validation_step)
            unwrap(self._pl_module, "manual_backward", self._manual_backward)
            detach(self._pl_module, self)
        self._pl_module = self._trainer = None

    def _state(self) -> dict[str, Any]:
        own = {"adapters": self._adapters.state_dict(), "teacher_metric": self._comparison.teacher}
        return self._source.state() | own

    # --- wrappers of the module's methods -----------------------------------------------------------------------------

    def _training_step(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert self._trainer is not None  # wrapped in setup
        # Called by a validation_step, or in the trial of a tuner, which runs the module without any callback.
        if not self._trainer.training or not any(one is self for one in callbacks_of(self._trainer)):
            return method(*args, **kwargs)
        # Decided once a step: with manual optimization, the step itself moves global_step on.
        explained = self._terms.is_explained_at(self._trainer.global_step)
        self._now = replace(self._now, is_explained=explained)
        # In a step without any teacher term nothing is recorded, and the loss is the step's own object, bit for bit.
        if self._source.teacher is None or not (self._now.alpha or self._terms.features.is_on or explained):
            return method(*args, **kwargs)
        explanation = self._terms.explanation
        by_input = explained and explanation is not None and explanation.needs_input_gradient
        # Kept for the labels: a manual_backward has no batch among its arguments.
        self._batch = args[0] if args else next(iter(kwargs.values()), None)
        layers = self._terms.student_layers(explained)
        with self._student.record(self._pl_module, layers, explained, by_input) as calls:
            self._calls = calls
            result = method(*args, **kwargs)
        if self._pl_module.automatic_optimization:
            return self._with_total(result, calls)
        self._require_manual_backward(calls)
        return result

    def _with_total(self, result: Any, calls: Sequence[Any]) -> Any:
        """Return the result of a training step with the total loss in place of its own."""
        own = result.get("loss") if isinstance(result, dict) else result
        if not isinstance(own, Tensor):  # None skips the batch
            return result
        total = self._total(own, calls)
        return {**result, "loss": total} if isinstance(result, dict) else total

    def _require_manual_backward(self, calls: Sequence[Any]) -> None:
        assert self._trainer is not None  # called within a step
        if calls and not self._is_backward_seen and self._trainer.global_step > self._last_step:
            raise MisconfigurationException(
                "KnowledgeDistillation takes part in self.manual_backward(loss), but training_step never called it:"
                " call it in place of loss.backward()."
            )

    def _manual_backward(self, method: Callable[..., Any], loss: Tensor, *args: Any, **kwargs: Any) -> Any:
        self._is_backward_seen = True
        # The calls since the last backward pass belong to this one.
        if self._calls and self._source.teacher is not None:
            calls = list(self._calls)
            self._calls.clear()
            loss = self._total(loss, calls)
        return method(loss, *args, **kwargs)

    def _validation_step(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert self._trainer is not None  # wrapped in setup
        teacher = self._source.teacher
        is_compared = teacher is not None and self._source.is_constant and not self._comparison.is_over
        # The sanity check sees a few batches only, and its metric would stand for the whole validation set.
        # Nor has a network whose code does something else in evaluation anything to compare there.
        if teacher is None or not is_compared or teacher.has_training_code or self._trainer.sanity_checking:
            return method(*args, **kwargs)
        with self._student.record(self._pl_module) as calls:
            result = method(*args, **kwargs)
        target = None
        with contextlib.suppress(ValueError):  # without labels nothing is compared
            target = find_labels(args[0] if args else None, batch_to_target=self._terms.batch_to_target)
        # With several calls in a step it is not clear which one the labels belong to.
        if self._student.step is not None:
            calls = self._student.own_calls(self._pl_module, calls, args[0]) if calls else []
        calls = [call for call in calls if call.name == self._student.name]
        if target is not None and len(calls) == 1 and self._student.name is not None:
            teacher.select_network_(self._student.name, self._network)
            self._comparison.update(calls, target, self._terms.output, teacher)
        return result

    def _total(self, own: Tensor, calls: Sequence[Any]) -> Tensor:
        teacher = self._source.teacher
        assert teacher is not None  # checked by the callers
        calls = self._student.own_calls(self._pl_module, calls, self._batch)
        teacher.select_network_(self._student.name or "", self._network)
        total, parts = self._terms.total(own, calls, self._batch, teacher, self._adapters, self._now)
        self._means.update({**parts, "total": total.detach()})
        self.say_taught(own, self._distance(parts))
        return total

    def _distance(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        """Return the distance from a constant teacher; a running average is as near to an untrained student."""
        distance = next((parts[name] for name in ("logits", "features", "explanation") if name in parts), None)
        if distance is None or not self._source.is_constant:
            return None
        return distance * self._terms.scale(self._now.temperature) if "logits" in parts else distance
