"""How a network is explained, and the settings that make the explanations of two networks comparable."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.baselines import check_baseline
from lit_xai.attribution.explanation import Explanation, explain
from lit_xai.attribution.methods import attribute_parameters, explains_layer, resolve_method
from lit_xai.attribution.words import ByWords, by_words
from lit_xai.network.arguments import Inputs
from lit_xai.network.check import check_integer

STEPS = 16
"""Steps of a path method, to begin with."""

MOST_STEPS = 128

MOST_TOKENS = 64
"""Places at which Occlusion takes away tokens; each is a pass of all samples."""

LARGEST_ERROR = 0.05
"""The median gap between attributions and the change of the output, above which steps double."""


@dataclass(frozen=True)
class Explainer:
    """A method of Captum and its settings.

    Args:
        method: a class of ``captum.attr``, its name, or an import path.
        layer: dotted name of the layer, for the ``Layer*`` methods.
        init_args: for the method's constructor.
        attribute_args: for its ``attribute``. By default path methods take 16 steps, doubled up to 128 until
            attributions add up, and Occlusion moves a window of about a seventh of an image's side.
        noise_tunnel: arguments of Captum's NoiseTunnel, to wrap the method in it.
        baselines: as for :class:`~lit_xai.AttributionMonitor`: a name, a number or a tensor.
        internal_batch_size: most samples in one forward/backward pass.
        token_names: of the ids of text: methods that take inputs away take whole words away.

    Raises:
        ValueError: an unknown method or baseline.

    Example:
        >>> Explainer("IntegratedGradients").name
        'IntegratedGradients'
    """

    method: str | type = "IntegratedGradients"
    layer: str | None = None
    init_args: dict[str, Any] | None = None
    attribute_args: dict[str, Any] | None = None
    noise_tunnel: dict[str, Any] | None = None
    baselines: Any = None
    internal_batch_size: int = 64
    token_names: Sequence[str] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        resolve_method(self.method)
        check_baseline(self.baselines)
        check_integer("internal_batch_size", self.internal_batch_size)

    @property
    def name(self) -> str:
        """The method's name, with layer and NoiseTunnel."""
        parts = [resolve_method(self.method).__name__]
        parts += ["NoiseTunnel"] if self.noise_tunnel else []
        return "-".join([*parts, *([self.layer] if self.layer else [])])

    @property
    def is_layer(self) -> bool:
        """Whether its maps belong to a layer's activations."""
        return explains_layer(resolve_method(self.method))

    @property
    def takes_steps(self) -> bool:
        """Whether the number of steps along a path is for us to choose."""
        return "n_steps" in attribute_parameters(resolve_method(self.method)) and "n_steps" not in (
            self.attribute_args or {}
        )

    def options(self, inputs: Inputs, steps: int | None = None) -> dict[str, Any]:
        """Return keyword arguments for :func:`~lit_xai.attribution.explanation.explain`.

        Args:
            inputs: that are explained.
            steps: along the path, where they are for us to choose.
        """
        given = dict(self.attribute_args or {})
        if self.takes_steps and steps is not None:
            given["n_steps"] = steps
        if (found := self.by_words(inputs)) is not None:
            given = found.attribute_args
        elif resolve_method(self.method).__name__ == "Occlusion" and "sliding_window_shapes" not in given:
            given |= occlusion_window(inputs)
        return {
            "method": self.method if found is None else found.method,
            "layer": self.layer,
            "init_args": self.init_args,
            "attribute_args": given or None,
            "noise_tunnel": self.noise_tunnel,
            "internal_batch_size": self.internal_batch_size,
        }

    def by_words(self, inputs: Inputs) -> ByWords | None:
        """Return how words of texts are hidden; ``None`` where they are not.

        Args:
            inputs: that are explained.
        """
        if self.noise_tunnel is not None:
            return None
        return by_words(self.method, self.attribute_args, inputs, self.token_names, MOST_TOKENS)


def as_explainer(given: Any, argument: str = "explainer") -> Explainer:
    """Return an explainer from a method's name, a class, a mapping of arguments or an explainer.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> as_explainer("Occlusion").method, as_explainer({"method": "LayerGradCam", "layer": "conv"}).name
        ('Occlusion', 'LayerGradCam-conv')
    """
    if isinstance(given, Explainer):
        return given
    if isinstance(given, Mapping):
        try:
            return Explainer(**given)
        except TypeError as error:
            raise ValueError(
                f"{argument} expected the arguments of Explainer, but got {dict(given)}: {error}."
            ) from None
    if isinstance(given, (str, type)):
        return Explainer(given)
    raise ValueError(f"{argument} expected a method's name, a class or an Explainer, but got {given!r}.")


def occlusion_window(inputs: Inputs) -> dict[str, Any]:
    """Return windows that cover all channels and about a seventh of each side, next to each other.

    Args:
        inputs: of the network; images ``(N, C, H, W)``, series ``(N, C, L)``, features ``(N, F)``, one at a time, or
            tokens ``(N, T)``, one at a time up to 64 of them.

    Example:
        >>> import torch
        >>> occlusion_window(torch.zeros(2, 3, 28, 28))
        {'sliding_window_shapes': (3, 4, 4), 'strides': (3, 4, 4)}
    """
    arguments = SplitInputs(inputs, any_dtype=True)
    windows = []
    for i in arguments.explained:
        shape, are_tokens = arguments.values[i].shape[1:], not arguments.values[i].is_floating_point()
        sides = tuple(max(1, -(-size // 7)) for size in shape[1:])
        if len(shape) > 1:
            windows.append((shape[0], *sides))
        else:
            windows.append(tuple(-(-size // MOST_TOKENS) if are_tokens else 1 for size in shape))
    window = windows[0] if len(windows) == 1 else tuple(windows)
    return {"sliding_window_shapes": window, "strides": window}


def completeness_error(explanation: Explanation) -> float | None:
    """Return the median gap between attributions and the change of the output, as a share of that change.

    Args:
        explanation: by a method that has such a gap.

    Returns:
        ``None`` where the method has none.

    Example:
        >>> import torch
        >>> completeness_error(explain(nn.Linear(4, 2), torch.randn(8, 4), target=0)) < 1e-3
        True
    """
    if explanation.delta is None:
        return None
    maps = explanation.attributions.values()
    total = sum(values.double().reshape(len(explanation.delta), -1).sum(1) for values in maps)
    delta = explanation.delta.double()
    change = total - delta  # f(x) - f(baseline), as delta is the attributions' sum minus it
    return float((delta.abs() / change.abs().clamp(min=1e-12)).median())


def explain_fully(
    network: nn.Module,
    inputs: Inputs,
    explainer: Explainer,
    steps: int | None = None,
    known: Explanation | None = None,
    **given: Any,
) -> tuple[Explanation, int | None]:
    """Explain a network, with as many steps along the path as attributions need to add up.

    Args:
        network: left unchanged.
        inputs: of the samples.
        explainer: of the network.
        steps: of an earlier explanation, which are taken as they are.
        known: an earlier explanation of the same network and inputs, whose logits are not computed again.
        given: further arguments of :func:`~lit_xai.attribution.explanation.explain`.

    Returns:
        The explanation, and its steps, ``None`` for a method without.
    """
    own = explainer.takes_steps and steps is None
    steps = STEPS if own else steps
    with warnings.catch_warnings():
        # The median gap is part of what is reported.
        warnings.filterwarnings("ignore", message=".* does not add up")
        while True:
            explanation = explain(network, inputs, known=known, **{**explainer.options(inputs, steps), **given})
            error = completeness_error(explanation)
            if not own or steps is None or error is None or error <= LARGEST_ERROR or steps >= MOST_STEPS:
                return explanation, steps
            steps, known = 2 * steps, explanation


def of_elements(explanation: Explanation) -> dict[str, Any]:
    """Return the arguments with which another network is explained by the same outputs.

    Args:
        explanation: of the reference.
    """
    if explanation.form is not None:
        return {"elements": explanation.targets}
    return {} if explanation.targets is None else {"labels": explanation.targets, "target": "label"}
