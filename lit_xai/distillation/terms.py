"""What a student is taught beyond its own loss: the terms, and what they add up to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.differentiable import explanation_loss
from lit_xai.distillation.adapters import Adapters
from lit_xai.distillation.explanation_matching import ExplanationMatching
from lit_xai.distillation.losses import attention_transfer, check_logits, takes
from lit_xai.distillation.teacher import Teacher
from lit_xai.network.calling import OutputSpec, find_labels, find_logits
from lit_xai.network.describing import describe
from lit_xai.network.import_path import load_object
from lit_xai.network.recording import Call

ANY_WIDTH = (attention_transfer,)
"""Losses on features that compare layers of different width as they are."""


@dataclass(frozen=True)
class Terms:
    """The terms of the loss, in functions.

    Args:
        loss: on logits, of student and teacher.
        loss_args: for it.
        features: the student's layers, each with the teacher's.
        feature_loss: on their outputs.
        feature_weight: of their mean.
        explanation: what of the teacher's reasons is matched.
        output: where the student's logits are.
        batch_to_target: where the labels are in a batch.
    """

    loss: Callable[..., Tensor]
    loss_args: Mapping[str, Any]
    features: Mapping[str, str]
    feature_loss: Callable[..., Tensor]
    feature_weight: float
    explanation: ExplanationMatching | None
    output: OutputSpec
    batch_to_target: Any

    @property
    def is_feature(self) -> bool:
        """Whether features count at all."""
        return bool(self.features) and self.feature_weight > 0

    @property
    def is_explained(self) -> bool:
        """Whether explanations count at all."""
        return self.explanation is not None and self.explanation.weight > 0

    @property
    def is_teacher_always_asked(self) -> bool:
        """Whether the teacher runs in every step, whatever its logits are known to be."""
        return self.is_feature or self.is_explained_at(1)

    def is_explained_at(self, step: int) -> bool:
        """Whether explanations count in a step."""
        return self.explanation is not None and self.is_explained and step % self.explanation.every_n_steps == 0

    def student_layers(self, explained: bool) -> list[str]:
        """Return the layers whose outputs are needed."""
        layers = list(self.features) if self.is_feature else []
        return [*layers, *(self.explanation.student_layers if explained and self.explanation else ())]

    def teacher_layers(self) -> list[str]:
        """Return the teacher's layers whose outputs are ever needed."""
        layers = list(self.features.values()) if self.is_feature else []
        return [*layers, *(self.explanation.teacher_layers if self.is_explained and self.explanation else ())]

    def scale(self, temperature: float) -> float:
        """Return what keeps the gradients of a loss with a temperature at one size: its square."""
        return temperature**2 if takes(self.loss, "temperature") else 1.0

    def total(
        self,
        own: Tensor,
        calls: Sequence[Call],
        batch: Any,
        teacher: Teacher,
        adapters: Adapters,
        alpha: float,
        temperature: float,
        explained: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to learn from, and its parts; each term is the mean over the network's calls.

        Args:
            own: the loss of the module's own step.
            calls: of the student's network in that step.
            batch: of the step.
            teacher: who is asked the same.
            adapters: of features.
            alpha: the share of the teacher's logits.
            temperature: of the logits.
            explained: whether explanations count in this step.

        Raises:
            ValueError: outputs of student and teacher do not fit each other; one sentence.
        """
        parts: dict[str, Tensor] = {}
        for call in calls:
            for name, value in self._of_call(call, batch, teacher, adapters, alpha, temperature, explained).items():
                parts[name] = parts.get(name, 0) + value / len(calls)
        total = (1 - alpha) * own
        if "logits" in parts:
            total = total + alpha * self.scale(temperature) * parts["logits"]
        if "features" in parts:
            total = total + self.feature_weight * parts["features"]
        if "explanation" in parts and self.explanation is not None:
            total = total + self.explanation.weight * parts["explanation"]
        return total, {"task": own.detach(), **{name: value.detach() for name, value in parts.items()}}

    def _of_call(
        self,
        call: Call,
        batch: Any,
        teacher: Teacher,
        adapters: Adapters,
        alpha: float,
        temperature: float,
        explained: bool,
    ) -> dict[str, Tensor]:
        parts = {}
        student = find_logits(call.result, self.output)
        layers = list(self.features.values()) if self.is_feature else []
        if explained and self.explanation is not None:
            said = teacher.explain(call, self.explanation, layers)
        else:
            said = teacher.say(call, layers)
        check_logits(student, said.logits)
        if alpha > 0:
            parts["logits"] = self._on_logits(student, said.logits, batch, temperature)
        if layers:
            found = [
                self._on_features(ours, theirs, call, said.layers, adapters) for ours, theirs in self.features.items()
            ]
            parts["features"] = torch.stack(found).mean()
        if explained and self.explanation is not None and said.top is not None:
            ours = self.explanation.attribute(
                student, call, self.explanation.student_layers, said.top, create_graph=True
            )
            parts["explanation"] = explanation_loss(ours, said.attribution)
        return parts

    def _on_logits(self, student: Tensor, teacher: Tensor, batch: Any, temperature: float) -> Tensor:
        options: dict[str, Any] = dict(self.loss_args)
        if takes(self.loss, "temperature"):
            options["temperature"] = temperature
        if takes(self.loss, "target") and "target" not in options:
            options["target"] = self._target(batch)
        return _one_number(self.loss(student, teacher, **options), "loss")

    def _target(self, batch: Any) -> Tensor:
        target = find_target(batch, self.batch_to_target)
        if target is None:
            raise ValueError(
                "KnowledgeDistillation found no labels in the batch, which its loss needs: name them with"
                " batch_to_target=, as a key, an index, or a function."
            )
        return target

    def _on_features(self, ours: str, theirs: str, call: Call, said: Mapping[str, Any], adapters: Adapters) -> Tensor:
        pair = (call.layers.get(ours), said.get(theirs))
        for value, name, whose in zip(pair, (ours, theirs), ("student", "teacher"), strict=True):
            if not isinstance(value, Tensor):
                raise ValueError(f"features: {name!r} of the {whose} expected to return a tensor in every call.")
        student, teacher = pair[0], pair[1]
        assert student is not None  # looked at just now
        assert teacher is not None  # likewise
        if self.feature_loss not in ANY_WIDTH:
            student, teacher = adapters(ours, student, teacher)
        return _one_number(self.feature_loss(student, teacher), "feature_loss")


def _one_number(found: Any, argument: str) -> Tensor:
    if not isinstance(found, Tensor) or found.numel() != 1:
        raise ValueError(
            f"{argument} expected a function that returns one number, but got {describe(found)}: average it."
        )
    return found.reshape(())


def find_target(batch: Any, where: Any, network: nn.Module | None = None) -> Tensor | None:
    """Return the labels in a batch.

    Args:
        batch: of a step.
        where: a key, an index, a function of the batch or its import path; ``None`` where labels usually are.
        network: asked how many arguments it requires, where labels are looked for.
    """
    if where is None:
        return find_labels(batch, network)
    function = load_object(where, "batch_to_target") if isinstance(where, str) and "." in where else where
    try:
        found = function(batch) if callable(function) else batch[where]
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"batch_to_target={where!r} is not in a batch of {describe(batch)} ({type(error).__name__}: {error})."
        ) from None
    return found if isinstance(found, Tensor) else None
