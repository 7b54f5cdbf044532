"""The terms of the loss that a student learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from lit_xai.attribution.differentiable import explanation_loss
from lit_xai.distillation.adapters import Adapters
from lit_xai.distillation.explanation_matching import ExplanationMatching
from lit_xai.distillation.features import FeatureMatching
from lit_xai.distillation.loss_spec import LossSpec
from lit_xai.distillation.teacher import Teacher
from lit_xai.network.calling import OutputSpec, find_labels, find_logits
from lit_xai.network.outputs import class_dim
from lit_xai.network.recording import Call


@dataclass(frozen=True)
class StepSettings:
    """The settings of one training step.

    Args:
        alpha: the weight of the teacher's logits; the step's own loss has the rest.
        temperature: of the logits.
        is_explained: whether explanations count.
    """

    alpha: float = 0.0
    temperature: float = 1.0
    is_explained: bool = False


@dataclass(frozen=True)
class Terms:
    """The terms of the loss.

    Args:
        loss: on the logits of student and teacher.
        features: the layers that are matched.
        explanation: the explanations that are matched; ``None`` for none.
        output: where the student's logits are in its output.
        batch_to_target: where the labels are in a batch.

    Raises:
        ValueError: the explanation is of another type.
    """

    loss: LossSpec
    features: FeatureMatching
    explanation: ExplanationMatching | None = None
    output: OutputSpec = None
    batch_to_target: Any = None

    def __post_init__(self) -> None:
        if self.explanation is not None and not isinstance(self.explanation, ExplanationMatching):
            raise ValueError(f"explanation expected an ExplanationMatching or None, but got {self.explanation!r}.")

    def __str__(self) -> str:
        squared = "temperature² · " if self.scale(2.0) != 1.0 else ""
        terms = [f"(1 - alpha) · the step's loss + alpha · {squared}{self.loss.name}(student, teacher)"]
        terms += [str(self.features)] if self.features.is_on else []
        terms += [str(self.explanation)] if self.is_explained else []
        return f"loss = {' + '.join(terms)}"

    @property
    def is_explained(self) -> bool:
        """Whether explanations ever count."""
        return self.explanation is not None and self.explanation.weight > 0

    @property
    def needs_teacher_always(self) -> bool:
        """Whether the teacher runs in every step, even if its logits are cached."""
        return self.features.is_on or self.is_explained_at(1)

    def is_explained_at(self, step: int) -> bool:
        """Return whether explanations count in a step."""
        return self.explanation is not None and self.is_explained and step % self.explanation.every_n_steps == 0

    def student_layers(self, explained: bool) -> dict[str, str]:
        """Return the student's layers whose outputs are needed in a step, and the argument that names each.

        Args:
            explained: whether explanations count in the step.
        """
        explaining = self.explanation.student_layers if explained and self.explanation else ()
        return _by_argument(self.features.student_layers, explaining)

    def teacher_layers(self) -> dict[str, str]:
        """Return the teacher's layers whose outputs are ever needed, and the argument that names each."""
        explaining = self.explanation.teacher_layers if self.is_explained and self.explanation else ()
        return _by_argument(self.features.teacher_layers, explaining)

    def scale(self, temperature: float) -> float:
        """Return the factor that keeps the gradients of a loss with a temperature at one size: its square."""
        return temperature**2 if self.loss.takes("temperature") else 1.0

    def total(
        self, own: Tensor, calls: Sequence[Call], batch: Any, teacher: Teacher, adapters: Adapters, now: StepSettings
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to learn from, and its parts; each term is the mean over the network's calls.

        Args:
            own: the loss of the module's own step.
            calls: of the student's network in that step.
            batch: of the step.
            teacher: called with the same inputs.
            adapters: of the features.
            now: the settings of this step.

        Raises:
            ValueError: the outputs of student and teacher do not fit each other.
        """
        parts: dict[str, Tensor] = {}
        for call in calls:
            for name, value in self._of_call(call, batch, teacher, adapters, now).items():
                # The mean over calls, so that a step that runs the network twice does not weigh the teacher double.
                parts[name] = parts.get(name, 0) + value / len(calls)
        # Hinton et al. 2015, section 2: gradients of softened targets scale with 1 / T^2, hence the factor T^2.
        total = (1 - now.alpha) * own
        if "logits" in parts:
            total = total + now.alpha * self.scale(now.temperature) * parts["logits"]
        if "features" in parts:
            total = total + self.features.weight * parts["features"]
        if "explanation" in parts and self.explanation is not None:
            total = total + self.explanation.weight * parts["explanation"]
        return total, {"task": own.detach(), **{name: value.detach() for name, value in parts.items()}}

    def _of_call(
        self, call: Call, batch: Any, teacher: Teacher, adapters: Adapters, now: StepSettings
    ) -> dict[str, Tensor]:
        """Return the unweighted terms of one call of the student's network."""
        student = find_logits(call.result, self.output)
        layers = self.features.teacher_layers
        explanation = self.explanation if now.is_explained else None
        ask = partial(teacher.outputs, call, layers)
        if explanation is not None:
            ask = partial(teacher.explain, call, explanation, layers)
        # Losses broadcast silently: (N, 1) against (N, C) would train on nonsense.
        output = teacher.suited(call, student, ask)
        parts = {}
        # At alpha = 0, which a schedule may reach, the loss on logits is not computed at all.
        if now.alpha > 0:
            parts["logits"] = self._on_logits(student, output.logits, batch, now.temperature)
        if self.features.is_on:
            parts["features"] = self.features.term(call, output.layers, adapters)
        if explanation is not None and output.top_class is not None:
            # Of the teacher's top class in both, so that the two explain the same output; create_graph, as the loss is
            # differentiated.
            attribution = explanation.attribute(
                student, call, explanation.student_layers, output.top_class, create_graph=True
            )
            parts["explanation"] = explanation_loss(attribution, output.attribution)
        return parts

    def _on_logits(self, student: Tensor, teacher: Tensor, batch: Any, temperature: float) -> Tensor:
        arguments: dict[str, Any] = {}
        if self.loss.takes("temperature"):
            arguments["temperature"] = temperature
        if self.loss.takes("target") and "target" not in self.loss.args:
            arguments["target"] = self._target(batch)
        if student.dim() > 2 and self.loss.takes("class_dim") and "class_dim" not in self.loss.args:
            labels = find_labels(batch, batch_to_target=self.batch_to_target)
            arguments["class_dim"] = class_dim(student, labels if isinstance(labels, Tensor) else None)
        return self.loss(student, teacher, **arguments)

    def _target(self, batch: Any) -> Tensor:
        target = find_labels(batch, batch_to_target=self.batch_to_target)
        if target is None:
            raise ValueError(
                "KnowledgeDistillation found no labels in the batch, which its loss needs: locate them with"
                " batch_to_target=, a key, an index, or a function."
            )
        return target


def _by_argument(features: Sequence[str], explaining: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys(features, "features") | {layer: "explanation" for layer in explaining if layer not in features}
