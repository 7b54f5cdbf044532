"""Layers of the student whose outputs are matched with the teacher's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_xai.distillation.adapters import Adapters
from lit_xai.distillation.loss_spec import LossSpec
from lit_xai.distillation.losses import hint
from lit_xai.network.check import is_number, refusal
from lit_xai.network.recording import Call


@dataclass(frozen=True)
class FeatureMatching:
    """The feature term of the loss: the mean over pairs of layers.

    Args:
        layers: names that student and teacher share, or ``{student: teacher}``; ``None`` for no such term.
        loss: on the outputs of a pair.
        weight: of the mean, 0 or more.

    Raises:
        ValueError: the layers are no names, the weight is out of range, or there is a loss but no layer.

    Example:
        >>> from lit_xai.distillation.losses import FEATURE_LOSSES
        >>> hint = LossSpec("hint", "feature_loss", FEATURE_LOSSES)
        >>> matching = FeatureMatching(["layer2"], hint, 0.5)
        >>> matching.pairs, str(matching)
        ({'layer2': 'layer2'}, '0.5 · hint(layer2)')
    """

    layers: Sequence[str] | Mapping[str, str] | None
    loss: LossSpec
    weight: float

    def __post_init__(self) -> None:
        layers: Any = self.layers or ()
        names = [*layers, *layers.values()] if isinstance(layers, dict) else layers
        if not isinstance(layers, (list, tuple, dict)) or not all(isinstance(name, str) for name in names):
            raise refusal("features", "a list of layers' names, or {student: teacher}", self.layers)
        if not is_number(self.weight) or self.weight < 0:
            raise refusal("feature_weight", "a number of at least 0", self.weight)
        # A config spells out the defaults: only another value shows that the term was meant to be there.
        options = {
            "feature_loss": self.loss.function is not hint,
            "feature_loss_args": bool(self.loss.args),
            "feature_weight": self.weight not in (0, 1),
        }
        given = next((name for name, is_given in options.items() if is_given), None)
        if not layers and given is not None:
            fix = "Name them, such as features=['network.layer2']."
            raise refusal("features", f"the layers that {given} is about", self.layers, fix)

    def __str__(self) -> str:
        return f"{self.weight:g} · {self.loss.name}({', '.join(self.pairs)})"

    @property
    def pairs(self) -> dict[str, str]:
        """The teacher's layer for each of the student's."""
        return dict(self.layers) if isinstance(self.layers, Mapping) else {name: name for name in self.layers or ()}

    @property
    def is_on(self) -> bool:
        """Whether the term counts."""
        return bool(self.layers) and self.weight > 0

    @property
    def student_layers(self) -> list[str]:
        """The student's layers whose outputs are needed."""
        return list(self.pairs) if self.is_on else []

    @property
    def teacher_layers(self) -> list[str]:
        """The teacher's layers whose outputs are needed."""
        return list(self.pairs.values()) if self.is_on else []

    def term(self, student: Call, teacher: Mapping[str, Any], adapters: Adapters) -> Tensor:
        """Return the mean loss over the pairs, before the weight; padding of tokens takes no part.

        Args:
            student: its call, with the outputs of its layers.
            teacher: outputs of its layers, by name.
            adapters: for losses that compare equal widths alone.

        Raises:
            ValueError: a layer returned no tensor, or the shapes of a pair do not fit.
        """
        losses = []
        for student_layer, teacher_layer in self.pairs.items():
            pair = _tensor(student.layers, student_layer, "student"), _tensor(teacher, teacher_layer, "teacher")
            options: dict[str, Any] = {}
            if all(map(student.has_tokens_of, pair)):
                pair = self._without_padding(student.attention_mask(), *pair)
                if self.loss.takes("channel_dim") and "channel_dim" not in self.loss.args:
                    options["channel_dim"] = -1
            # A loss that compares any widths works on the features themselves.
            if not self.loss.takes_any_width:
                pair = adapters(student_layer, *pair)
            losses.append(self.loss(*pair, **options))
        # A mean, so that the weight does not depend on how many layers are matched.
        return torch.stack(losses).mean()

    def _without_padding(self, mask: Tensor | None, *pair: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(N, L, C)`` without padding, whose hidden states mean nothing."""
        student, teacher = pair
        if mask is None or any(mask.shape != one.shape[:2] for one in pair):
            return student, teacher
        if self.loss.takes_any_width:  # which compares where the positions of a sample are
            return student * mask.unsqueeze(-1), teacher * mask.unsqueeze(-1)
        return student[mask], teacher[mask]


def _tensor(outputs: Mapping[str, Any], layer: str, network: str) -> Tensor:
    value = outputs.get(layer)
    if not isinstance(value, Tensor):
        raise ValueError(f"features: {layer!r} of the {network} expected to return a tensor in every call.")
    return value
