"""Have a teacher take part in the training of any LightningModule."""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_xai.distillation.adapters import Adapters
from lit_xai.distillation.averaging import RunningAverage
from lit_xai.distillation.comparison import Comparison
from lit_xai.distillation.explanation_matching import ExplanationMatching
from lit_xai.distillation.losses import FEATURE_LOSSES, LOSSES, resolve_loss, takes
from lit_xai.distillation.output_cache import OutputCache
from lit_xai.distillation.student import Student
from lit_xai.distillation.teacher import Teacher, read_teacher
from lit_xai.distillation.terms import Terms, find_target
from lit_xai.network.calling import OutputSpec
from lit_xai.network.copying import copy_network
from lit_xai.structure.attaching import unwrap, wrap
from lit_xai.structure.recipe import attach, dense_copy, detach, recipe_of
from lit_xai.trainer.access import callbacks_of, refuse_strategies
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.scheduling import value_at
from lit_xai.trainer.structural_callback import structural_callbacks
from lit_xai.trainer.structure_change import bare_optimizers


class KnowledgeDistillation(AnyCallback):
    r"""Have a teacher take part in the training of any LightningModule, whose ``training_step`` stays as it is.

    The student's outputs are seen while its step runs; the teacher is asked the same, and the loss becomes

    .. math:: (1 - \alpha) \cdot \text{the step's} + \alpha T^2 \cdot \text{loss}(student, teacher)
        + w_f \cdot \text{feature\_loss} + w_e \cdot \text{explanation}

    (:math:`T^2` for losses with a temperature; Hinton et al. 2015, https://arxiv.org/abs/1503.02531). The teacher is no
    part of the student: not of its weights, its optimizers or its checkpoint's ``state_dict``. What a resumed run
    needs (the dense weights, the average, adapters) is this callback's state.

    Args:
        teacher: a checkpoint's path (of a pruned model too), a module, ``"dense"``: the model as it is just before the
            first structural step, such as StructuredPruning's first cut, and nothing until then; or ``"ema"``: the
            running average of the student's own weights.
        teacher_class: of a checkpoint, a class or its import path; default the student's.
        alpha: the teacher's share, in [0, 1]; several values are spread over the run, ``[0.9, 0.1]``.
        temperature: of the logits, above 0, likewise.
        loss: on logits: ``"kl_divergence"``, ``"decoupled_kl_divergence"`` (DKD), ``"l1"``, ``"l2"``, ``"huber"``, or a
            function of student and teacher, or its import path. It is given ``temperature`` and ``target`` (the labels)
            if it takes them.
        loss_args: for it, such as ``{"nontarget_weight": 2.0}``.
        features: layers whose outputs are matched too: names in student and teacher alike, or ``{student: teacher}``.
        feature_loss: ``"hint"`` (FitNets), ``"attention_transfer"``, a function or its import path. For all but
            attention transfer, layers of other widths get an adapter, trained along and dropped at the end.
        feature_weight: of the layers' mean, 0 or more.
        adapter_lr: of the adapters' Adam.
        explanation: what of the teacher's reasons is matched; ``None`` for nothing.
        optimize_teacher: fold its BatchNorm and use channels last: a cheaper forward, equal up to rounding.
        compile_teacher: by ``torch.compile``, which needs a C++ compiler on CPUs.
        cache: keep the teacher's logits, if nothing else is asked of it: ``"memory"``, or a file's path that outlives
            the run. By content, so that it is right for augmented samples too, but then useless.
        ema_decay: of ``teacher="ema"``.
        module: the student's network inside the LightningModule, a dotted name; by default it is found by its call.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        teacher_output: likewise in the teacher's; default as the student's.
        batch_to_target: the labels in a batch, where a loss needs them: a key, an index, a function or its import path.
        name: of this distillation, where there are several: its metrics are then ``distillation/<name>/...``,
            by default the teacher's. Each takes its share of what those before it in the list leave as the step's loss.

    Raises:
        ValueError: in the constructor, at setup or in the first step, one sentence on the argument that is wrong.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[KnowledgeDistillation("ema", alpha=[0.1, 0.9])], logger=False)
        >>> KnowledgeDistillation("ema", alpha=2)
        Traceback (most recent call last):
        ...
        ValueError: alpha expected numbers in [0, 1], but got 2.
    """

    def __init__(
        self,
        teacher: str | nn.Module,
        *,
        teacher_class: str | type | None = None,
        alpha: float | list[float] = 0.9,
        temperature: float | list[float] = 4.0,
        loss: str | Callable[..., Any] = "kl_divergence",
        loss_args: dict[str, Any] | None = None,
        features: list[str] | dict[str, str] | None = None,
        feature_loss: str | Callable[..., Any] = "hint",
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
        if not isinstance(teacher, (str, Path, nn.Module)):
            fix = " Give an instance of it." if isinstance(teacher, type) else ""
            raise ValueError(
                f"teacher expected 'dense', 'ema', a checkpoint's path or a module, but got {teacher!r}.{fix}"
            )
        if not isinstance(features, (list, tuple, dict, type(None))) or not all(
            isinstance(name, str)
            for pair in (features.items() if isinstance(features, dict) else [features or ()])
            for name in pair
        ):
            raise ValueError(
                f"features expected a list of layers' names, or {{student: teacher}}, but got {features!r}."
            )
        if not isinstance(cache, (str, Path, type(None))):
            raise ValueError(f"cache expected 'memory', a file's path or None, but got {cache!r}.")
        _check_numbers("alpha", alpha, lambda value: 0 <= value <= 1, "numbers in [0, 1]")
        _check_numbers("temperature", temperature, lambda value: 0 < value < math.inf, "numbers above 0")
        _check_numbers(
            "feature_weight", [feature_weight], lambda value: 0 <= value < math.inf, "a number of at least 0"
        )
        _check_numbers("adapter_lr", [adapter_lr], lambda value: 0 < value < math.inf, "a number above 0")
        _check_numbers("ema_decay", [ema_decay], lambda value: 0 <= value < 1, "a number in [0, 1)")
        if cache is not None and teacher == "ema":
            raise ValueError("cache expected None for teacher='ema', which is another one in every step.")
        if explanation is not None and not isinstance(explanation, ExplanationMatching):
            raise ValueError(f"explanation expected an ExplanationMatching or None, but got {explanation!r}.")
        self.teacher, self.alpha, self.temperature = teacher, alpha, temperature
        self.name = name
        self._teacher_class, self._cache, self._ema_decay = teacher_class, cache, ema_decay
        self._terms = Terms(
            resolve_loss(loss, "loss", LOSSES),
            loss_args or {},
            features if isinstance(features, dict) else {name: name for name in features or ()},
            resolve_loss(feature_loss, "feature_loss", FEATURE_LOSSES),
            float(feature_weight),
            explanation,
            output,
            batch_to_target,
        )
        unknown = next((name for name in self._terms.loss_args if not takes(self._terms.loss, name)), None)
        if unknown is not None:
            raise ValueError(f"loss_args: {_name(self._terms.loss)} takes no {unknown!r}.")
        if cache is not None and self._terms.is_teacher_always_asked:
            raise ValueError(
                "cache expected None with features, or an explanation in every step: the teacher runs for those anyway."
            )
        if compile_teacher and self._terms.teacher_layers():
            raise ValueError("compile_teacher expected False with layers to look at, which a compiled teacher hides.")
        self._adapter_lr, self._module = adapter_lr, module
        self._how = {
            "output": output if teacher_output is None else teacher_output,
            "layers": self._terms.teacher_layers(),
            "optimize": optimize_teacher and teacher != "ema",  # whose weights move under what was folded
            "compiled": compile_teacher,
        }
        self._resumed: dict[str, Any] = {}
        self._left: dict[str, Any] = {}
        self._forget()

    def _forget(self) -> None:
        self._teacher: Teacher | None = None
        self._student = Student(self._module)
        self._adapters = Adapters(self._adapter_lr)
        self._average: RunningAverage | None = None
        self._dense: dict[str, Tensor] | None = None
        self._comparison = Comparison()
        self._calls: list[Any] = []
        self._batch: Any = None
        self._alpha, self._temperature, self._is_explaining = 0.0, 1.0, False
        self._trainer: Trainer | None = None
        self._pl_module: Any = None
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._stepped = -1
        self._is_backward_seen = False
        self._tag = "distillation"

    @property
    def state_key(self) -> str:
        """The name under which checkpoints hold what a resumed run needs."""
        return f"KnowledgeDistillation[{self.name or self._label}]"

    @property
    def _label(self) -> str:
        return type(self.teacher).__name__ if isinstance(self.teacher, nn.Module) else str(self.teacher)

    @property
    def _is_ever_on(self) -> bool:
        alphas = self.alpha if isinstance(self.alpha, (list, tuple)) else [self.alpha]
        return any(alphas) or self._terms.is_feature or self._terms.is_explained

    # --- what Lightning calls -----------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what is wrong whatever the batch, print the formula, and stand around the module's steps."""
        if stage != "fit":
            return
        self._detach()
        self._forget()
        self._resumed, self._left = {}, {}
        refuse_strategies(trainer, "KnowledgeDistillation")
        twins = [one for one in callbacks_of(trainer) if isinstance(one, KnowledgeDistillation)]
        if sum(one.state_key == self.state_key for one in twins) > 1:
            raise MisconfigurationException(
                f"Two KnowledgeDistillations have one {'name' if self.name else 'teacher'}, {self.name or self._label}:"
                " keep one, or give each a name=."
            )
        if self.name or len(twins) > 1:
            self._tag = f"distillation/{self.name or Path(self._label).stem}"
        for name in ("alpha", "temperature"):
            value_at(getattr(self, name), 0, trainer.max_epochs, name)
        if not self._is_ever_on:
            rank_zero_info("KnowledgeDistillation is off: alpha is 0, and so are the other weights.")
            return
        if self.teacher == "dense":
            self._require_cuts(trainer)
        self._trainer, self._pl_module = trainer, pl_module
        wrap(pl_module, "training_step", self._training_step)
        wrap(pl_module, "validation_step", self._validation_step)
        if not pl_module.automatic_optimization:
            wrap(pl_module, "manual_backward", self._manual_backward)
        attach(pl_module, self, self._copies, lambda: bare_optimizers(trainer), self._before_step)
        rank_zero_info(f"KnowledgeDistillation, teacher {self._label}: {self._formula()}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in what a resumed run has to know, as plain values and tensors.

        With ``state_dict`` instead, Lightning would refuse two of these before we can say what to do.
        """
        state = self._left if self._pl_module is None else self._state()
        if state:
            checkpoint.setdefault("callbacks", {})[self.state_key] = state

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over what a checkpoint holds, of a teacher whose file was moved too."""
        states = checkpoint.get("callbacks", {})
        ours = [key for key in states if str(key).startswith("KnowledgeDistillation[")]
        alone = sum(isinstance(one, KnowledgeDistillation) for one in callbacks_of(trainer)) == 1
        moved = ours[0] if len(ours) == 1 and alone else None
        self._resumed = copy.deepcopy(states.get(self.state_key, states.get(moved, {})))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the teacher, and refuse what does not fit the module, which is whole by now."""
        if self._pl_module is None:
            return
        self._student.check(pl_module, self._terms.student_layers(self._terms.is_explained), self._terms.is_explained)
        if self.teacher not in ("dense", "ema"):
            found = (
                read_teacher(self.teacher, self._teacher_class, pl_module)
                if not isinstance(self.teacher, nn.Module)
                else copy_network(self.teacher)
            )
            self._teacher = self._taught_by(found)
        self._refuse_another_teacher()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the teacher that there is by now, and put it where the student is."""
        if self._pl_module is None:
            return
        self._adapters.load_state_dict(self._resumed.get("adapters", {}))
        self._comparison.teacher = self._resumed.get("teacher_metric")
        self._stepped = trainer.global_step
        self._follow_schedules(trainer)  # a run resumed within an epoch does not start that
        if self.teacher == "ema":
            self._average = RunningAverage(pl_module, self._ema_decay)
            if "ema" in self._resumed:
                self._average.module.load_state_dict(self._resumed["ema"])
            self._teacher = self._taught_by(self._average.module)
        elif self.teacher == "dense" and "dense" in self._resumed:
            copied = dense_copy(pl_module)
            copied.load_state_dict(self._resumed["dense"])
            self._take_dense(copied)
        elif self.teacher == "dense" and recipe_of(pl_module).steps:
            raise MisconfigurationException(
                "KnowledgeDistillation: teacher='dense' expected a model that is still dense, but this one was pruned"
                " before: give the dense model's checkpoint as the teacher."
            )
        if self._teacher is not None:
            self._teacher.to_(pl_module)
            self._open_cache(self._teacher)
        self._resumed = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set what follows a schedule."""
        self._follow_schedules(trainer)
        self._sums, self._counts = {}, {}

    def _follow_schedules(self, trainer: Trainer) -> None:
        self._alpha = value_at(self.alpha, trainer.current_epoch, trainer.max_epochs, "alpha")
        self._temperature = value_at(self.temperature, trainer.current_epoch, trainer.max_epochs, "temperature")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Let the adapters learn whenever the student does."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._adapters.step(float(scaler.get_scale()) if scaler is not None else 1.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the student's new weights into the average."""
        self._batch, self._calls = None, []
        if self._average is not None and trainer.global_step > self._stepped:
            self._average.update(pl_module, trainer.global_step)
        self._stepped = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the parts of the loss, and write the cache."""
        if not self._sums:
            return
        values: dict[str, Any] = {name: value.float() / self._counts[name] for name, value in self._sums.items()}
        values |= {"alpha": self._alpha, "temperature": self._temperature}
        # Through the module, so that EarlyStopping and ModelCheckpoint can watch them.
        logged = {f"{self._tag}/{name}": value for name, value in values.items()}
        pl_module.log_dict(logged, on_step=False, on_epoch=True, sync_dist=True)
        if self._teacher is not None and self._teacher.cache is not None and trainer.is_global_zero:
            self._teacher.cache.save()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to compare student and teacher."""
        self._comparison.start()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how good the teacher is, and if the student is ahead of it."""
        self._comparison.end(trainer, self._tag)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module with nothing of ours."""
        if self._pl_module is not None:
            self._left = self._state()  # a checkpoint may still be saved
        self._detach()
        self._teacher, self._average, self._batch, self._calls = None, None, None, []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module with nothing of ours also where Lightning does not tear down."""
        self.teardown(trainer, pl_module, "exception")

    def _detach(self) -> None:
        if self._pl_module is not None:
            unwrap(self._pl_module, "training_step", self._training_step)
            unwrap(self._pl_module, "validation_step", self._validation_step)
            unwrap(self._pl_module, "manual_backward", self._manual_backward)
            detach(self._pl_module, self)
        self._pl_module = self._trainer = None

    # --- around the module's own methods ------------------------------------------------------------------------------

    def _training_step(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert self._trainer is not None  # wrapped in setup
        if not self._trainer.training:  # called by a validation_step
            return method(*args, **kwargs)
        # Asked once: optimizers that the step itself steps count on.
        explained = self._is_explaining = self._terms.is_explained_at(self._trainer.global_step)
        if self._teacher is None or not (self._alpha or self._terms.is_feature or explained):
            return method(*args, **kwargs)
        layers = self._terms.student_layers(explained)
        explanation = self._terms.explanation
        by_input = explained and explanation is not None and explanation.needs_input_gradient
        self._batch = args[0] if args else next(iter(kwargs.values()), None)
        with self._student.seen(self._pl_module, layers, explained, by_input) as calls:
            self._calls = calls
            found = method(*args, **kwargs)
        if not self._pl_module.automatic_optimization:
            self._require_manual_backward(calls)
        if not self._pl_module.automatic_optimization or found is None:
            return found
        own = found.get("loss") if isinstance(found, dict) else found
        if not isinstance(own, Tensor):
            return found
        total = self._total(own, calls)
        return {**found, "loss": total} if isinstance(found, dict) else total

    def _require_manual_backward(self, calls: Sequence[Any]) -> None:
        assert self._trainer is not None  # called within a step
        if calls and not self._is_backward_seen and self._trainer.global_step > self._stepped:
            raise MisconfigurationException(
                "KnowledgeDistillation takes part in self.manual_backward(loss), but training_step never called it:"
                " call it in place of loss.backward()."
            )

    def _manual_backward(self, method: Callable[..., Any], loss: Tensor, *args: Any, **kwargs: Any) -> Any:
        self._is_backward_seen = True
        # Whatever the student was called with since the last backward pass is taught in this one.
        if self._calls and self._teacher is not None:
            calls = list(self._calls)
            self._calls.clear()
            loss = self._total(loss, calls)
        return method(loss, *args, **kwargs)

    def _validation_step(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert self._trainer is not None  # wrapped in setup
        if (
            self._teacher is None
            or self._average is not None
            or self._trainer.sanity_checking
            or self._comparison.is_over
        ):
            return method(*args, **kwargs)
        with self._student.seen(self._pl_module) as calls:
            found = method(*args, **kwargs)
        target = find_target(args[0] if args else None, self._terms.batch_to_target)
        calls = [call for call in calls if call.name == self._student.name]
        if target is not None and len(calls) == 1 and self._student.name is not None:
            self._teacher.find_(self._student.name)
            self._comparison.update(calls, target, self._terms.output, self._teacher)
        return found

    def _total(self, own: Tensor, calls: Sequence[Any]) -> Tensor:
        assert self._teacher is not None  # asked before
        calls = self._student.calls(self._pl_module, calls)
        self._teacher.find_(self._student.name or "")
        total, parts = self._terms.total(
            own, calls, self._batch, self._teacher, self._adapters, self._alpha, self._temperature, self._is_explaining
        )
        for name, value in (parts | {"total": total.detach()}).items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        return total

    # --- the teacher --------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"teacher": self._label}
        if self._teacher is not None and self.teacher not in ("dense", "ema"):
            state["hash"] = self._teacher.hash
        if self._dense is not None:
            state["dense"] = self._dense
        if self._average is not None:
            state["ema"] = {name: value.detach().clone() for name, value in self._average.module.state_dict().items()}
        return state | {"adapters": self._adapters.state_dict(), "teacher_metric": self._comparison.teacher}

    def _refuse_another_teacher(self) -> None:
        then, now = self._resumed.get("hash"), self._teacher.hash if self._teacher is not None else None
        named = self._resumed.get("teacher", self._label)
        if then != now if then is not None and now is not None else named != self._label:
            raise MisconfigurationException(
                f"KnowledgeDistillation: the run that is resumed had another teacher, {named} ({then}), than"
                f" {self._label} ({now}): give that one, or start anew without ckpt_path."
            )

    def _taught_by(self, root: nn.Module) -> Teacher:
        with torch.inference_mode(False):
            return Teacher(root, **self._how)  # type: ignore[arg-type]  # one dict of arguments of different types

    def _require_cuts(self, trainer: Trainer) -> None:
        if not structural_callbacks(trainer):
            raise MisconfigurationException(
                "KnowledgeDistillation: teacher='dense' expected a callback that changes the structure, such as"
                " StructuredPruning or QuantizationAwareTraining, but the Trainer has none: give a checkpoint, or"
                " 'ema'."
            )

    def _copies(self) -> list[nn.Module]:
        return [] if self._average is None else [self._average.module]

    def _before_step(self, pl_module: Any) -> None:
        if self.teacher == "dense" and self._teacher is None and not recipe_of(pl_module).steps:
            self._take_dense(copy_network(pl_module))
            assert self._trainer is not None  # attached in setup
            trained = "as it was given to fit: cut later if it has not been trained"
            if self._trainer.global_step:
                trained = f"as it is at the start of epoch {self._trainer.current_epoch}"
            rank_zero_info(f"KnowledgeDistillation: the teacher is the dense model, {trained}.")

    def _take_dense(self, dense: nn.Module) -> None:
        self._dense = {name: value.detach().cpu().clone() for name, value in dense.state_dict().items()}
        self._teacher = self._taught_by(dense)
        self._teacher.to_(self._pl_module)
        self._open_cache(self._teacher)

    def _open_cache(self, teacher: Teacher) -> None:
        if self._cache is not None and teacher.cache is None:
            teacher.cache = OutputCache(teacher.hash, None if self._cache == "memory" else Path(self._cache))

    def _formula(self) -> str:
        squared = "temperature² · " if self._terms.scale(2.0) != 1.0 else ""
        terms = [f"(1 - alpha) · the step's loss + alpha · {squared}{_name(self._terms.loss)}(student, teacher)"]
        if self._terms.is_feature:
            named = f"{_name(self._terms.feature_loss)}({', '.join(self._terms.features)})"
            terms.append(f"{self._terms.feature_weight:g} · {named}")
        if self._terms.is_explained and self._terms.explanation is not None:
            every = self._terms.explanation.every_n_steps
            often = f" every {every} steps" if every > 1 else ""
            terms.append(
                f"{self._terms.explanation.weight:g} · (1 - cosine of {self._terms.explanation.method}){often}"
            )
        return f"loss = {' + '.join(terms)}, alpha {self.alpha}, temperature {self.temperature}."


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _check_numbers(name: str, given: Any, is_right: Callable[[float], bool], expected: str) -> None:
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not values or not numbers or not all(map(is_right, values)):
        shown = given[0] if isinstance(given, list) and len(given) == 1 else given
        raise ValueError(f"{name} expected {expected}, but got {shown!r}.")
