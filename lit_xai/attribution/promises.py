"""The properties that each method of Captum promises, and a warning where attributions do not add up as promised."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Sum = Literal["exactly", "with steps", "on average", "along the layer", "to the neuron", "no"]

BOUNDS: dict[Sum, float] = {"exactly": 0.01, "with steps": 0.05}
"""The largest gap that is no cause for a warning, as a share of the attributions' absolute sum."""


class Promises(NamedTuple):
    """The properties of a method.

    Args:
        adds_up: whether a sample's attributions add up to the change of the output between baseline and sample:
            ``"exactly"``; ``"with steps"``, the more ``n_steps`` the better; ``"on average"`` over what is drawn;
            ``"along the layer"``, as long as the network has no path around it; ``"to the neuron"`` instead of the
            output; or not at all.
        weight_x_input: whether they are weight times (input - baseline) where the network is linear.
        ignores_dummies: whether features that the network does not use get zero.
        draws: whether they depend on random numbers.
        own_sample: whether a sample's attributions do not depend on the others of its batch, apart from the draws.
    """

    adds_up: Sum = "no"
    weight_x_input: bool = False
    ignores_dummies: bool = False
    draws: bool = False
    own_sample: bool = True


_PROMISES = {
    "IntegratedGradients": Promises("with steps", weight_x_input=True, ignores_dummies=True),
    "DeepLift": Promises("exactly", weight_x_input=True, ignores_dummies=True),
    "DeepLiftShap": Promises("exactly", weight_x_input=True, ignores_dummies=True),
    "GradientShap": Promises("on average", weight_x_input=True, ignores_dummies=True, draws=True),
    "Saliency": Promises(ignores_dummies=True),
    "InputXGradient": Promises(weight_x_input=True, ignores_dummies=True),
    "GuidedBackprop": Promises(ignores_dummies=True),
    "Deconvolution": Promises(ignores_dummies=True),
    "GuidedGradCam": Promises(ignores_dummies=True),
    "LRP": Promises(weight_x_input=True, ignores_dummies=True),
    "Occlusion": Promises(weight_x_input=True, ignores_dummies=True),
    "FeatureAblation": Promises(weight_x_input=True, ignores_dummies=True),
    "FeaturePermutation": Promises(ignores_dummies=True, draws=True, own_sample=False),
    "ShapleyValues": Promises("exactly", weight_x_input=True, ignores_dummies=True),
    "ShapleyValueSampling": Promises("exactly", weight_x_input=True, ignores_dummies=True, draws=True),
    "KernelShap": Promises("on average", weight_x_input=True, ignores_dummies=True, draws=True),
    "Lime": Promises(draws=True),
    "LayerIntegratedGradients": Promises("along the layer"),
    "LayerConductance": Promises("along the layer"),
    "LayerDeepLift": Promises("along the layer"),
    "LayerDeepLiftShap": Promises("along the layer"),
    "LayerGradientShap": Promises("along the layer", draws=True),
    "LayerActivation": Promises(),
    "LayerFeatureAblation": Promises(),
    "LayerGradCam": Promises(),
    "LayerGradientXActivation": Promises(),
    "LayerLRP": Promises(),
    "InternalInfluence": Promises(),
    "NeuronConductance": Promises(ignores_dummies=True),
    "NeuronDeconvolution": Promises(ignores_dummies=True),
    "NeuronDeepLift": Promises("to the neuron", weight_x_input=True, ignores_dummies=True),
    "NeuronDeepLiftShap": Promises("to the neuron", weight_x_input=True, ignores_dummies=True),
    "NeuronFeatureAblation": Promises(weight_x_input=True, ignores_dummies=True),
    "NeuronGradient": Promises(ignores_dummies=True),
    "NeuronGradientShap": Promises("to the neuron", weight_x_input=True, ignores_dummies=True, draws=True),
    "NeuronGuidedBackprop": Promises(ignores_dummies=True),
    "NeuronIntegratedGradients": Promises("to the neuron", weight_x_input=True, ignores_dummies=True),
}


def promises(method: type) -> Promises:
    """Return the properties of a method; of a class of one's own none are known.

    Args:
        method: the attribution class.

    Example:
        >>> from captum.attr import DeepLift, Saliency
        >>> promises(DeepLift).adds_up, promises(Saliency).adds_up
        ('exactly', 'no')
    """
    import captum.attr

    known = getattr(captum.attr, method.__name__, None) is method
    return _PROMISES.get(method.__name__, Promises()) if known else Promises()


def should_add_up(
    method: type,
    init_args: Mapping[str, Any] | None = None,
    attribute_args: Mapping[str, Any] | None = None,
    noise_tunnel: Mapping[str, Any] | None = None,
) -> bool:
    """Return whether a gap between the attributions' sum and the output's change tells of something wrong.

    Not so where they are multipliers (``multiply_by_inputs=False``), of noisy inputs, or only expected to add up.

    Example:
        >>> from captum.attr import IntegratedGradients
        >>> should_add_up(IntegratedGradients), should_add_up(IntegratedGradients, noise_tunnel={})
        (True, False)
    """
    plain = (init_args or {}).get("multiply_by_inputs", True) and not (attribute_args or {}).get(
        "custom_attribution_func"
    )
    return promises(method).adds_up in BOUNDS and bool(plain) and noise_tunnel is None


def gap_warning(
    method: type, attributions: Iterable[Tensor], delta: Tensor, scale: float, unruled: Iterable[str] = ()
) -> str | None:
    r"""Return a warning if attributions do not add up to the output's change, or ``None``.

    The gap is :math:`\sum_n |\delta_n| / \sum_n \sum_i |a_{ni}|`, over samples :math:`n` and features :math:`i`.

    Args:
        method: the attribution class.
        attributions: ``(N, ...)`` of each input.
        delta: sum of the attributions minus change of the output, ``(N,)``.
        scale: largest absolute logit: differences that are rounding errors of it do not count.
        unruled: functions to name, for which the method has no rule.

    Example:
        >>> from captum.attr import IntegratedGradients
        >>> gap_warning(IntegratedGradients, [torch.tensor([[3.0, -1.0]])], torch.tensor([0.1]), scale=3.0)
        >>> gap_warning(IntegratedGradients, [torch.tensor([[3.0, -1.0]])], torch.tensor([1.0]), scale=3.0)
        'IntegratedGradients does not add up: its attributions miss the change of the output by 25% of their size...
    """
    bound = BOUNDS[promises(method).adds_up]
    sizes = sum(value.detach().abs().double().sum() for value in attributions)
    rounding = 64 * torch.finfo(delta.dtype).eps * scale
    missing = (delta.abs().double() - rounding).clamp(min=0).sum()
    if not missing > bound * sizes:
        return None
    share = f"{float(missing / sizes):.0%} of their size" if sizes > 0 else "all of it"
    why = "raise n_steps in attribute_args"
    if promises(method).adds_up == "exactly":
        named = f" such as {', '.join(unruled)}" if unruled else ""
        why = f"the network holds functions without a rule{named}; use method='IntegratedGradients'"
    return (
        f"{method.__name__} does not add up: its attributions miss the change of the output by {share} (accepted:"
        f" {bound:.0%}): {why}."
    )
