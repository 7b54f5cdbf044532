"""The explanations of a teacher that a student learns to share."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lit_xai.attribution.differentiable import grad_cam, input_x_gradient
from lit_xai.network.check import check_integer, is_number, refusal
from lit_xai.network.describing import describe
from lit_xai.network.recording import Call
from lit_xai.network.spelling import nearest

METHODS = ("input_x_gradient", "grad_cam")


@dataclass(frozen=True)
class ExplanationMatching:
    """Match the student's explanations with the teacher's: 1 - cosine of their attributions is added to the loss.

    Both attributions explain the teacher's top class. The cost is a backward pass through the student's gradient, about
    one more training step, and a backward pass of the teacher. It improves the matched method and often no other: judge
    the result with an explainer that was not trained on.

    Args:
        method: ``"input_x_gradient"`` (Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713) or ``"grad_cam"``
            (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391), which needs ``layers``.
        weight: of the term, 0 or more.
        layers: for ``"grad_cam"``: layers of the student by name, the teacher's of the same name, or pairs
            ``{student: teacher}``. For ``"input_x_gradient"``, where inputs are integer tokens, the embedding that they
            enter: each token has one number, the sum over its channels. By default it is found, and is the teacher's of
            the same name.
        every_n_steps: the steps from one computation to the next; the others have no extra cost.

    Raises:
        ValueError: an argument is out of range, or ``"grad_cam"`` has no layers.

    Example:
        >>> ExplanationMatching("grad_cam", layers=["layer3"]).student_layers
        ('layer3',)
        >>> ExplanationMatching("gradcam")
        Traceback (most recent call last):
        ...
        ValueError: explanation: method expected input_x_gradient or grad_cam, but got 'gradcam'. Did you mean ...
    """

    method: str = "input_x_gradient"
    weight: float = 1.0
    layers: list[str] | dict[str, str] | None = None
    every_n_steps: int = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"explanation: method expected {' or '.join(METHODS)}, but got {self.method!r}."
                f"{nearest(str(self.method), METHODS)}"
            )
        if not is_number(self.weight) or self.weight < 0:
            raise refusal("explanation: weight", "a number of at least 0", self.weight)
        check_integer("explanation: every_n_steps", self.every_n_steps)
        if self.method == "grad_cam" and not self.layers:
            raise ValueError(f"explanation: layers expected at least one layer for grad_cam, but got {self.layers!r}.")

    def __str__(self) -> str:
        often = f" every {self.every_n_steps} steps" if self.every_n_steps > 1 else ""
        return f"{self.weight:g} · (1 - cosine of {self.method}){often}"

    @property
    def student_layers(self) -> tuple[str, ...]:
        """The student's layers that are explained."""
        return tuple(self.layers or ())

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """The teacher's layers that are explained, in the same order."""
        return tuple(self.layers.values()) if isinstance(self.layers, dict) else self.student_layers

    @property
    def needs_input_gradient(self) -> bool:
        """Whether the network's inputs have to require a gradient."""
        return self.method == "input_x_gradient" and not self.layers

    def attribute(
        self, logits: Tensor, call: Call, layers: tuple[str, ...], target: Tensor, create_graph: bool
    ) -> tuple[Tensor, ...]:
        """Return the attributions of a target, one for each input or layer.

        Args:
            logits: of the call.
            call: recorded, its inputs or layers requiring gradients.
            layers: whose outputs are explained; none for the inputs.
            target: classes ``(N,)``.
            create_graph: keep the graph, to learn from them.

        Raises:
            ValueError: the network has no floating inputs, or a layer was not called.
        """
        if self.needs_input_gradient:
            # Integer inputs (tokens) have no gradient.
            inputs = tuple(value for value in call.tensors() if value.requires_grad)
            if not inputs:
                raise ValueError(
                    "explanation: input_x_gradient expected an input in floating point, or tokens that enter one"
                    " embedding, but found neither: name the embedding with layers=."
                )
            return input_x_gradient(logits, inputs, target, create_graph=create_graph)
        maps: list[Any] = []
        for name in layers:
            value = call.layers.get(name)
            if not isinstance(value, Tensor):
                raise ValueError(f"explanation: layers: {name!r} expected to return a tensor in every step.")
            # Several layers share one graph, which the gradient of the first must not free.
            keeps = create_graph or len(layers) > 1
            is_of_tokens = call.has_tokens_of(value)
            if self.method == "grad_cam":
                dim = -1 if is_of_tokens else 1
                maps.append(grad_cam(logits, value, target, create_graph=keeps, channel_dim=dim))
            elif not is_of_tokens:
                raise ValueError(
                    f"explanation: layers expected the embedding of tokens for input_x_gradient, but got {name!r},"
                    f" whose output is {describe(value)}: use grad_cam, or leave layers out."
                )
            else:
                # Over channels, since those of the student may be fewer, as after a cut.
                maps.append(input_x_gradient(logits, value, target, create_graph=keeps).sum(-1))
        # Without a graph these are the teacher's, which the student's loss must not reach.
        return tuple(value if create_graph else value.detach() for value in maps)
