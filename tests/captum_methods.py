"""Every usable class of captum.attr, with what it needs on networks for ``(N, 2, 6, 6)``, called here and raw."""

import random
import warnings
from typing import Any

import captum.attr
import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from torch import Tensor, nn

from lit_xai.attribution.methods import attribute_parameters, explains_layer, needs_gradients, runs_samples_singly

# They explain through another method, or another kind of model; LayerFeaturePermutation fails for any target.
_OTHERS = ("NoiseTunnel", "DataLoaderAttribution", "LimeBase", "LayerFeaturePermutation")

METHODS = [
    name
    for name, found in vars(captum.attr).items()
    if isinstance(found, type) and hasattr(found, "attribute") and name not in _OTHERS and "LLM" not in name
]
DRAWING = [name for name in METHODS if "GradientShap" in name or "DeepLiftShap" in name]

_PATCHES = torch.arange(72).reshape(1, 2, 6, 6) // 12
_ATTRIBUTE_ARGS: dict[str, dict[str, Any]] = {
    "Occlusion": {"sliding_window_shapes": (2, 3, 3), "strides": (2, 3, 3)},
    "FeatureAblation": {"feature_mask": _PATCHES},
    "NeuronFeatureAblation": {"feature_mask": _PATCHES},
    "FeaturePermutation": {"feature_mask": _PATCHES},
    "ShapleyValueSampling": {"feature_mask": _PATCHES, "n_samples": 10},
    "ShapleyValues": {"feature_mask": _PATCHES // 2},
    "KernelShap": {"feature_mask": _PATCHES},
    "Lime": {"feature_mask": _PATCHES},
}


def options(name: str, layer: str = "0") -> dict[str, Any]:
    """The arguments of `attribute` besides network, inputs and target."""
    method = getattr(captum.attr, name)
    takes = attribute_parameters(method)
    own = dict(_ATTRIBUTE_ARGS.get(name, {}))
    if "neuron_selector" in takes:
        own["neuron_selector"] = (0, 1, 1)
    if "n_steps" in takes:
        own["n_steps"] = 6
    found: dict[str, Any] = {"method": name, "attribute_args": own}
    if explains_layer(method):
        found["layer"] = layer
    if name in DRAWING:
        found["baselines"] = torch.linspace(-1, 1, 3).reshape(3, 1, 1, 1).expand(3, 2, 6, 6)
    if name == "Lime":
        found["init_args"] = {"interpretable_model": SkLearnLinearRegression()}
    return found


def chunking(name: str, n: int) -> dict[str, Any]:
    """The arguments of Captum that `attribute` fills in for up to 64 samples."""
    method = getattr(captum.attr, name)
    takes = attribute_parameters(method)
    found: dict[str, Any] = {}
    if "internal_batch_size" in takes:
        found["internal_batch_size"] = 64
    if "perturbations_per_eval" in takes and name != "LayerFeatureAblation":
        found["perturbations_per_eval"] = 64 // (1 if runs_samples_singly(method) else n)
    return found


def raw(
    name: str, network: nn.Module, x: Tensor, target: Any, given: dict[str, Any], noise: dict[str, Any] | None = None
) -> Any:
    """The same call of Captum itself, on a network in eval mode, seeded as `attribute` is."""
    method = getattr(captum.attr, name)
    takes = attribute_parameters(method)
    placed = [network.get_submodule(given["layer"])] if "layer" in given else []
    explainer = method(network, *placed, **given.get("init_args", {}))
    own = dict(given["attribute_args"])
    own |= {"target": target} if "target" in takes else {}
    own |= {"baselines": given["baselines"]} if "baselines" in given else {}
    if noise is not None:
        explainer = captum.attr.NoiseTunnel(explainer)
        own |= noise
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return explainer.attribute(x.clone().requires_grad_(needs_gradients(method)), **own)
