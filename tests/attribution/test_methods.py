"""Methods are found by name, and options that do not fit are refused by the name of the argument."""

from collections import OrderedDict

import captum.attr
import pytest
import torch
from captum_methods import METHODS, options
from networks import Tokens, cnn, mlp
from refusals import refused
from torch import nn

from lit_xai.attribution.attribution import rehearse
from lit_xai.attribution.methods import (
    attribute_parameters,
    check_options,
    copies_per_sample,
    draws_baselines,
    explains_layer,
    hooks_modules,
    needs_floats,
    needs_gradients,
    patch_mask,
    resolve_method,
    returns_layer,
    runs_samples_singly,
    tuples,
)
from lit_xai.functional import attribute

X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


class Mine(captum.attr.Saliency):
    """Somebody's own method."""


@pytest.mark.parametrize("name", METHODS)
def test_every_method_by_name_path_and_class(name):
    found = getattr(captum.attr, name)
    assert resolve_method(name) is resolve_method(f"captum.attr.{name}") is resolve_method(found) is found


def test_own_method():
    assert resolve_method(Mine) is Mine
    assert torch.equal(attribute(mlp(), X, method=Mine, target=0), attribute(mlp(), X, method="Saliency", target=0))
    assert resolve_method("captum.attr._core.saliency.Saliency") is captum.attr.Saliency


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("IntegratedGradient", ["method='IntegratedGradient'", "Did you mean 'IntegratedGradients'"]),
        ("captum.attr.Salience", ["method='captum.attr.Salience'", "'Saliency'"]),
        ("gradcam", ["'LayerGradCam'"]),
        ("", ["method=''"]),
        ("no.such.Method", ["method", "'no.such.Method'", "import path"]),
        ("torch.nn.Linearr", ["torch.nn has no 'Linearr'", "'Linear'"]),
        ("torch.nn.Linear", ["Attribution class", "'torch.nn.Linear'"]),
        (nn.Linear, ["Attribution class", "Linear"]),
        (3, ["Attribution class", "3"]),
        (captum.attr.Saliency(mlp()), ["Attribution class"]),
        ("NoiseTunnel", ["noise_tunnel={'nt_samples': 10}"]),
        ("LayerFeaturePermutation", ["LayerFeatureAblation"]),
        ("LLMAttribution", ["does not explain a network by itself", "IntegratedGradients"]),
        ("DataLoaderAttribution", ["does not explain a network by itself"]),
        (captum.attr.Attribution, ["does not explain a network by itself"]),
    ],
)
def test_method_refused(method, parts):
    for call in (attribute, rehearse):
        with refused(*parts):
            call(mlp(), X, method=method)


OPTIONS = {
    "layer missing": ({"method": "LayerGradCam"}, ["LayerGradCam requires layer=", "'3'"]),
    "layer misspelt": (
        {"method": "LayerGradCam", "layer": "module.con"},
        ["layer='module.con'", "no part of Sequential"],
    ),
    "layer's last name": ({"method": "LayerGradCam", "layer": "module"}, ["layer='module'", "'6.module'"]),
    "layer as a module": ({"method": "LayerGradCam", "layer": nn.Linear(2, 2)}, ["layer=Linear", "no part"]),
    "layer empty": ({"method": "LayerGradCam", "layer": ""}, ["layer=''"]),
    "layer unneeded": ({"method": "Saliency", "layer": "3"}, ["Saliency explains inputs", "LayerGradCam"]),
    "layer's own method": (
        {"method": "DeepLift", "layer": "3"},
        ["DeepLift explains inputs", "LayerDeepLift explains layers"],
    ),
    "layer twice": ({"method": "LayerGradCam", "layer": "3", "init_args": {"layer": "0"}}, ["init_args", "'layer'"]),
    "init_args": ({"init_args": {"multiply_by_input": False}}, ["init_args", "'multiply_by_inputs'"]),
    "init_args, none": ({"method": "Saliency", "init_args": {"x": 1}}, ["Saliency has no option 'x'", "takes none"]),
    "init_args, filled in": ({"init_args": {"forward_func": None}}, ["init_args", "'forward_func'"]),
    "init_args missing": ({"method": "LimeBase"}, ["LimeBase requires 'interpretable_model'", "init_args"]),
    "attribute_args": ({"attribute_args": {"nsteps": 3}}, ["attribute_args", "'nsteps'", "Did you mean 'n_steps'"]),
    "attribute_args, filled in": ({"attribute_args": {"target": 3}}, ["attribute_args", "'target'", "of its own"]),
    "attribute_args, bound": (
        {"attribute_args": {"internal_batch_size": 3}},
        ["attribute_args", "'internal_batch_size'", "of its own"],
    ),
    "attribute_args missing": ({"method": "Occlusion"}, ["Occlusion requires 'sliding_window_shapes'"]),
    "selector missing": ({"method": "NeuronGradient", "layer": "3"}, ["requires 'neuron_selector'"]),
    "noise_tunnel": ({"noise_tunnel": {"n_samples": 3}}, ["noise_tunnel", "'n_samples'", "'nt_samples'"]),
    "noise_tunnel, filled in": ({"noise_tunnel": {"inputs": 3}}, ["noise_tunnel", "'inputs'", "of its own"]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_option_refused(case):
    given, parts = OPTIONS[case]
    network = nn.Sequential(
        *cnn()[:3], nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.ModuleDict({"module": nn.ReLU()})
    )
    for call in (attribute, rehearse):
        with refused(*parts):
            call(network, IMAGES, **given)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["DeepLift", "LRP", "LayerGradCam", "GuidedBackprop"])
def test_scripted_modules_cannot_be_hooked(name):
    with refused(name, "scripted", "IntegratedGradients"):
        attribute(torch.jit.script(cnn()), IMAGES, target=0, **options(name))


KINDS = {
    "IntegratedGradients": "gradients floats",
    "Saliency": "gradients floats",
    "GradientShap": "draws gradients floats",
    "DeepLift": "hooks gradients floats",
    "DeepLiftShap": "draws hooks gradients floats",
    "LRP": "hooks gradients floats",
    "GuidedGradCam": "hooks layer gradients floats",
    "LayerGradCam": "layer returns gradients",
    "LayerDeepLift": "hooks layer returns gradients",
    "LayerDeepLiftShap": "draws hooks layer returns gradients floats",
    "LayerConductance": "layer returns gradients floats",
    "LayerActivation": "layer returns",
    "LayerFeatureAblation": "layer returns",
    "NeuronGradient": "layer gradients floats",
    "NeuronFeatureAblation": "layer",
    "Occlusion": "",
    "KernelShap": "singly",
    "Lime": "singly",
    "ShapleyValues": "",
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    properties = {
        "draws": draws_baselines,
        "hooks": hooks_modules,
        "layer": explains_layer,
        "returns": returns_layer,
        "gradients": needs_gradients,
        "floats": needs_floats,
        "singly": runs_samples_singly,
    }
    found = " ".join(word for word, holds in properties.items() if holds(getattr(captum.attr, name)))
    assert found == KINDS[name]


@pytest.mark.parametrize("name", METHODS)
def test_needs_floats_is_true(name):
    """Each method that needs no floats explains tokens; the others fail on them in Captum."""
    method = getattr(captum.attr, name)
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(0))
    given = options(name, layer="embedding") | {"attribute_args": {}, "target": 1}
    given.pop("baselines", None)
    if "neuron_selector" in attribute_parameters(method):
        given["attribute_args"] = {"neuron_selector": (0, 0)}
    if name == "Occlusion":
        given["attribute_args"] = {"sliding_window_shapes": [2]}
    if name == "ShapleyValues":
        given["attribute_args"] = {"feature_mask": 2}
    if "LRP" in name or "DeepLift" in name:
        parts = {"embedding": nn.Embedding(11, 4), "flatten": nn.Flatten(), "head": nn.Linear(24, 3)}
        network = nn.Sequential(OrderedDict(parts))
    else:
        network = Tokens()
    if needs_floats(method):
        with refused("inputs", name, "LayerIntegratedGradients", "layer='embedding'"):
            attribute(network, tokens, **given)
    elif "LRP" in name:
        with refused("LRP has no rule for 'embedding'"):
            attribute(network, tokens, **given)
    else:
        assert attribute(network, tokens, **given).shape[0] == 3


def test_copies():
    method = {name: resolve_method(name) for name in METHODS}
    assert copies_per_sample(method["LayerGradientShap"], 8, 7) == 7
    assert copies_per_sample(method["GradientShap"], 8, 7) == 1
    assert copies_per_sample(method["NeuronDeepLiftShap"], 8) == 16
    assert copies_per_sample(method["LayerConductance"]) == 2


@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (2, 3, 4, 4), (1, 6, 6), (4, 7), (3, 2, 5, 5, 3)])
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_patch_mask(shape, size):
    """Each patch is a block of at most size x size, numbered without gaps, alike in all channels."""
    mask = patch_mask(shape, size)
    assert mask.shape == (1, *shape[1:])
    assert mask.unique().tolist() == list(range(int(mask.max()) + 1))
    plane = mask.reshape(-1, *shape[-2:])[0] if len(shape) > 2 else mask
    assert (mask.reshape(-1, *plane.shape) == plane).all()
    for number in plane.unique():
        rows, columns = (plane == number).nonzero(as_tuple=True)
        assert (plane == number).sum() == len(rows.unique()) * len(columns.unique())
        assert max(rows.max() - rows.min(), columns.max() - columns.min()) < size


@pytest.mark.parametrize(("shape", "size"), [((2, 4, 4), 0), ((2, 4, 4), -1), ((2,), 2)])
def test_patch_mask_refused(shape, size):
    with refused("feature_mask", str(size)):
        patch_mask(shape, size)


def test_lists_of_yaml_become_tuples():
    assert tuples({"a": [1, [2, 3]], "b": {"c": [4]}, "d": "e"}) == {"a": (1, (2, 3)), "b": {"c": (4,)}, "d": "e"}
    lists = {"sliding_window_shapes": [2, 3, 3], "strides": [2, 3, 3]}
    expected = {key: tuple(value) for key, value in lists.items()}
    found = [attribute(cnn(), IMAGES, method="Occlusion", target=0, attribute_args=a) for a in (lists, expected)]
    assert torch.equal(*found)


def test_check_options_passes_what_is_right():
    check_options(resolve_method("LayerGradCam"), cnn(), "0", None, {"relu_attributions": True}, {"nt_samples": 2})
