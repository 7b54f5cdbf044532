"""Sources of a teacher: a checkpoint, a module, the dense model, or a running average of the student's weights.

Each makes its teacher at a different moment of a ``fit``, and stores different state for a resumed run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

import torch
from torch import nn

from lit_xai.distillation.averaging import RunningAverage
from lit_xai.distillation.output_cache import OutputCache
from lit_xai.distillation.teacher import Teacher, first_line
from lit_xai.distillation.terms import Terms
from lit_xai.network.calling import OutputSpec
from lit_xai.network.check import is_number, refusal
from lit_xai.network.copying import copy_network
from lit_xai.network.import_path import load_object
from lit_xai.network.untouched import fork_rng
from lit_xai.structure.checkpoints import read_checkpoint
from lit_xai.structure.class_paths import class_paths_in
from lit_xai.structure.loading import load_known, load_weights_
from lit_xai.structure.recipe import dense_copy, restore_structure_
from lit_xai.structure.schema import Weights
from lit_xai.trainer.access import MisconfigurationException
from lit_xai.trainer.dense_model import DenseModel
from lit_xai.trainer.saved_state import FIX

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

SOURCE_STATE = {"teacher": str, "hash": NotRequired[str], "dense": NotRequired[Weights], "ema": NotRequired[Weights]}
"""The types of what :meth:`TeacherSource.state` returns, by entry."""

KEYWORDS = ("dense", "ema")
"""Teachers that are made in the run itself."""


@dataclass(frozen=True)
class TeacherOptions:
    """The settings of a teacher, wherever it comes from.

    Args:
        terms: of the loss: which layers they need, and how often.
        output: where the logits are in its output; ``None`` for the student's place.
        optimize: fold its BatchNorm and use channels last.
        compiled: compile it.
        cache: ``"memory"``, the path of a file, or ``None``.

    Raises:
        ValueError: the settings contradict each other.
    """

    terms: Terms
    output: OutputSpec = None
    optimize: bool = True
    compiled: bool = False
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cache, (str, Path, type(None))):
            raise refusal("cache", "'memory', a file's path or None", self.cache)
        if self.cache is not None and self.terms.needs_teacher_always:
            raise ValueError(
                "cache expected None with features, or an explanation in every step: the teacher runs for those anyway."
            )
        if self.compiled and self.terms.teacher_layers():
            raise ValueError(
                "compile_teacher expected False with features or an explanation of layers: a compiled teacher hides"
                " their outputs."
            )

    def make(self, root: nn.Module, optimize: bool = True) -> Teacher:
        """Return the teacher in a module, which is modified.

        Args:
            root: a LightningModule or a network.
            optimize: ``False`` for one whose weights will change.
        """
        with torch.inference_mode(False):
            return Teacher(
                root,
                self.terms.output if self.output is None else self.output,
                self.terms.teacher_layers(),
                self.optimize and optimize,
                self.compiled,
            )

    def open_cache(self, teacher: Teacher) -> None:
        """Give a teacher its cache, once.

        Raises:
            ValueError: the file holds the outputs of another teacher, or is damaged.
        """
        if self.cache is not None and teacher.cache is None:
            teacher.cache = OutputCache(teacher.hash, None if self.cache == "memory" else Path(self.cache))


class TeacherSource:
    """The base of all sources: one holds the teacher of one ``fit``, as soon as there is one.

    Args:
        label: of the teacher, in messages and checkpoints.
        options: of the teacher.

    Attributes:
        teacher: ``None`` until it is made.
    """

    def __init__(self, label: str, options: TeacherOptions) -> None:
        self.label = label
        self.teacher: Teacher | None = None
        self._options = options

    @property
    def is_constant(self) -> bool:
        """Whether the teacher stays the same, so that comparing the student with it makes sense."""
        return True

    def load(self, pl_module: "LightningModule") -> None:
        """Make a teacher that does not depend on the run; called in ``on_fit_start``."""

    def start(self, pl_module: "LightningModule", resumed: Mapping[str, Any]) -> None:
        """Get ready for training; called in ``on_train_start``, with the :meth:`state` of the run that is resumed."""
        if self.teacher is not None:
            self.teacher.to_(pl_module)
            self._options.open_cache(self.teacher)

    def before_structural_step(self, pl_module: Any) -> None:
        """React to a change of the student's structure, before it is made."""

    def after_optimizer_step(self, pl_module: "LightningModule", step: int) -> None:
        """React to new weights of the student after so many steps."""

    def copies(self) -> list[nn.Module]:
        """Return the modules whose structure has to follow the student's."""
        return []

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values and tensors."""
        return {"teacher": self.label}

    def refuse_another(self, resumed: Mapping[str, Any]) -> None:
        """Refuse to resume a run with another teacher.

        Args:
            resumed: the :meth:`state` of that run, empty without one.

        Raises:
            MisconfigurationException: names both.
        """
        before, now = resumed.get("hash"), self.state().get("hash")
        label = resumed.get("teacher", self.label)
        # Weights decide if both are known: the file may have been moved.
        is_another = before != now if before is not None and now is not None else label != self.label
        if is_another:
            raise MisconfigurationException(
                f"KnowledgeDistillation: the run that is resumed had another teacher, {label} ({before}), than"
                f" {self.label} ({now}): give that one, or start a new run without ckpt_path."
            )


class FixedTeacher(TeacherSource):
    """A teacher that was trained before: a checkpoint, or a module, which is copied.

    Args:
        teacher: the module, or the path of the checkpoint.
        options: of the teacher.
        teacher_class: of a checkpoint, a class or its import path; ``None`` for the student's.
    """

    def __init__(
        self, teacher: str | Path | nn.Module, options: TeacherOptions, teacher_class: str | type | None = None
    ) -> None:
        super().__init__(type(teacher).__name__ if isinstance(teacher, nn.Module) else str(teacher), options)
        self._given, self._teacher_class = teacher, teacher_class

    def load(self, pl_module: "LightningModule") -> None:
        """Read the checkpoint, or copy the module."""
        if isinstance(self._given, nn.Module):
            # A copy: the teacher is folded and moved, and the user's module stays as it is.
            root = copy_network(self._given)
        else:
            root = read_teacher(self._given, self._teacher_class, pl_module)
        self.teacher = self._options.make(root)

    def state(self) -> dict[str, Any]:
        """Return its label, and the hash of its weights."""
        return super().state() | ({} if self.teacher is None else {"hash": self.teacher.hash})


class DenseTeacher(TeacherSource):
    """The model as it is just before its first structural step; there is no teacher until then.

    Args:
        options: of the teacher.
    """

    def __init__(self, options: TeacherOptions) -> None:
        super().__init__("dense", options)
        self._dense = DenseModel("KnowledgeDistillation", "teacher")

    def start(self, pl_module: "LightningModule", resumed: Mapping[str, Any]) -> None:
        """Rebuild the dense model of a resumed run.

        Raises:
            MisconfigurationException: the model was pruned before this run.
        """
        # The dense weights are part of the callback's state: the model in the checkpoint may be pruned already.
        self._dense.resume(pl_module, resumed)
        if self._dense.module is not None:
            self._take(self._dense.module, pl_module)

    def before_structural_step(self, pl_module: Any) -> None:
        """Copy the model, before the first step."""
        # Only the first step starts from the dense model.
        if self._dense.before_structural_step(pl_module) and self._dense.module is not None:
            self._take(self._dense.module, pl_module)

    def _take(self, dense: nn.Module, pl_module: "LightningModule") -> None:
        # The weights are kept for the checkpoints: making the teacher folds BatchNorm and may change the precision.
        self.teacher = self._options.make(dense)
        self.teacher.to_(pl_module)
        self._options.open_cache(self.teacher)

    def state(self) -> dict[str, Any]:
        """Return its label, and the dense weights."""
        return super().state() | self._dense.state()


class AveragedTeacher(TeacherSource):
    """A running average of the student's weights.

    Args:
        options: of the teacher.
        decay: of the average, in [0, 1).

    Raises:
        ValueError: a cache is given, but the outputs change in every step.
    """

    def __init__(self, options: TeacherOptions, decay: float) -> None:
        if options.cache is not None:
            raise ValueError("cache expected None for teacher='ema', whose outputs change in every step.")
        super().__init__("ema", options)
        self._decay = decay
        self._average: RunningAverage | None = None

    @property
    def is_constant(self) -> bool:
        """Whether the teacher stays the same: it does not."""
        return False

    def start(self, pl_module: "LightningModule", resumed: Mapping[str, Any]) -> None:
        """Copy the student's weights, or take over the average of a resumed run."""
        self._average = RunningAverage(pl_module, self._decay)
        if "ema" in resumed:
            _load_weights_(self._average.module, resumed, "ema")
        # Unoptimized: folded weights would no longer follow the average.
        self.teacher = self._options.make(self._average.module, optimize=False)
        super().start(pl_module, resumed)

    def after_optimizer_step(self, pl_module: "LightningModule", step: int) -> None:
        """Update the average."""
        if self._average is not None:
            self._average.update(pl_module, step)

    def copies(self) -> list[nn.Module]:
        """Return the average, which is pruned along with the student."""
        return [] if self._average is None else [self._average.module]

    def state(self) -> dict[str, Any]:
        """Return its label, and the averaged weights."""
        if self._average is None:
            return super().state()
        weights = {name: value.detach().clone() for name, value in self._average.module.state_dict().items()}
        return super().state() | {"ema": weights}


def _load_weights_(module: nn.Module, resumed: Mapping[str, Any], entry: str) -> None:
    """Load weights of a callback's state, or refuse them in one sentence."""
    try:
        load_weights_(module, resumed[entry])
    except ValueError as error:
        raise ValueError(f"The {entry!r} of KnowledgeDistillation's state in the checkpoint: {error} {FIX}") from None


def make_source(
    teacher: str | Path | nn.Module, options: TeacherOptions, teacher_class: str | type | None, ema_decay: float
) -> TeacherSource:
    """Return the source that the arguments of ``KnowledgeDistillation`` stand for.

    Args:
        teacher: ``"dense"``, ``"ema"``, a checkpoint's path or a module.
        options: of the teacher.
        teacher_class: of a checkpoint.
        ema_decay: of ``"ema"``.

    Raises:
        ValueError: names the argument that is wrong.
    """
    if not isinstance(teacher, (str, Path, nn.Module)):
        hint = "Give an instance of it." if isinstance(teacher, type) else ""
        raise refusal("teacher", "'dense', 'ema', a checkpoint's path or a module", teacher, hint)
    if not is_number(ema_decay) or not 0 <= ema_decay < 1:
        raise refusal("ema_decay", "a number in [0, 1)", ema_decay)
    if teacher == "dense":
        return DenseTeacher(options)
    return AveragedTeacher(options, ema_decay) if teacher == "ema" else FixedTeacher(teacher, options, teacher_class)


def read_teacher(
    path: str | Path, teacher_class: type | str | None, pl_module: "LightningModule", argument: str = "teacher"
) -> nn.Module:
    """Return the module of a checkpoint, in the structure it was saved in.

    Args:
        path: of a Lightning checkpoint, also of a pruned model.
        teacher_class: its class, or the import path of that; ``None`` for the student's.
        pl_module: the student. Without hyperparameters in the checkpoint, a teacher of its class is built as its copy.
        argument: the name of the path, for errors.

    Raises:
        ValueError: there is no such file, it is no checkpoint, or it does not fit the class.
    """
    try:
        checkpoint = read_checkpoint(
            path, trust="load it yourself and give the module", argument=argument, keywords=KEYWORDS
        )
    except (FileNotFoundError, IsADirectoryError) as error:
        kinds = "'dense', 'ema', a module or a checkpoint" if argument == "teacher" else "a checkpoint or a module"
        raise ValueError(f"{argument} expected {kinds}, but {error}") from None
    given = load_object(teacher_class, "teacher_class") if isinstance(teacher_class, str) else teacher_class
    cls = type(pl_module) if given is None else given
    if not hasattr(cls, "load_from_checkpoint"):
        raise refusal("teacher_class", "a LightningModule's class", cls)

    def by_arguments() -> nn.Module:
        # What the user's own config names may be in the teacher's file too.
        return load_known(cls, path, class_paths_in(getattr(pl_module, "hparams", {})), map_location="cpu")

    def by_copy() -> nn.Module:
        copied = dense_copy(pl_module)
        restore_structure_(copied, checkpoint)
        load_weights_(copied, checkpoint["state_dict"])
        return copied

    is_own, has_arguments = cls is type(pl_module), "hyper_parameters" in checkpoint
    # By its hyperparameters first; a copy of the student is the fallback for a checkpoint of the same class without
    # them.
    ways: list[Callable[[], nn.Module]] = [by_arguments] if has_arguments or not is_own else []
    ways += [by_copy] if is_own else []
    reasons = []
    with fork_rng(0, set()):  # the weights that building draws are replaced by the checkpoint's
        for way in ways:
            try:
                return way()
            except Exception as error:  # hyperparameters that were not saved, another class, another size
                reasons.append(first_line(error))
    unsaved = "" if has_arguments else " It holds no arguments of its class (save_hyperparameters)."
    other = " name with teacher_class= another class, such as one that builds its network itself;"
    raise ValueError(
        f"{argument}='{path}' cannot be loaded as {cls.__name__} ({reasons[0]}).{unsaved} Train it with"
        f" lit-xai fit, whose checkpoints hold all arguments;{other if argument == 'teacher' else ''} or, in Python,"
        " give the module itself."
    )
