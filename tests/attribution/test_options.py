"""Targets, baselines and masks in every form that users write them in, or refused in one sentence."""

import captum.attr
import numpy as np
import pytest
import torch
from networks import Shared, Tokens, TwoInputs, cnn, mlp
from refusals import refused
from torch import nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.attribution import rehearse
from lit_xai.attribution.methods import resolve_method
from lit_xai.attribution.options import Options, as_target
from lit_xai.functional import attribute

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
PAIR = {"left": X, "right": X[:, :4]}


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (3, ["target expected classes from 0 to 2", "got 3"]),
        (-1, ["target expected classes from 0 to 2", "got -1"]),
        ([0, 1, 2, 0, 1, 7], ["target expected classes from 0 to 2", "got 7"]),
        ([0, 1], ["target expected 6 classes, one per sample", "got 2"]),
        (torch.zeros(1, dtype=torch.int64), ["target expected 6 classes", "got 1"]),
        (torch.zeros(6, 2, dtype=torch.int64), ["target expected an index", "Tensor[6, 2] int64"]),
        (torch.zeros(6), ["target expected a class", "Tensor[6] float32"]),
        (1.0, ["target expected a class", "float"]),
        ("label", ["target expected a class", "'label'"]),
        (None, ["target expected a class from 0 to 2", "None"]),
    ],
)
@pytest.mark.parametrize(
    "method", ["IntegratedGradients", "Occlusion", "DeepLift", "LayerGradCam", "LRP", "KernelShap"]
)
def test_target_refused(target, parts, method):
    given = {"attribute_args": {"sliding_window_shapes": [1]}} if method == "Occlusion" else {}
    given |= {"layer": "0"} if method == "LayerGradCam" else {}
    with refused(*parts):
        attribute(mlp(), X, method=method, target=target, **given)


def test_target_of_a_network_with_one_output():
    one = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))
    with refused("target expected None", "got 0"):
        attribute(one, X, target=0)
    with refused("target expected None", "got tensor([0, 0, 0, 0, 0, 0])"):
        attribute(one, X, target=[0] * 6)
    with refused("target expected classes from 0 to 0", "got 1"):
        attribute(nn.Linear(5, 1), X, target=1)


def test_target_does_not_matter_where_the_method_takes_none():
    given = {"method": "NeuronGradient", "layer": "0", "attribute_args": {"neuron_selector": 0}}
    assert torch.equal(attribute(mlp(), X, **given), attribute(mlp(), X, target=[0] * 6, **given))


@pytest.mark.parametrize("target", [2, np.int64(2), torch.tensor(2), np.array(2)])
def test_as_target_gives_a_plain_integer(target):
    found = as_target(target, torch.device("cpu"))
    assert type(found) is int
    assert found == 2


class Volume(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap, self.head = wrap, nn.Linear(5, 3)

    def forward(self, x):
        return self.wrap(self.head(x))


@pytest.mark.parametrize(
    ("wrap", "parts"),
    [
        (lambda y: y[:, :, None], ["one row of logits per sample", "(60, 3, 1)", "output="]),
        (lambda y: y.sum(), ["one row of logits per sample", "()"]),
        (lambda y: y[:2], ["one row of logits per sample", "(2, 3)"]),
        (lambda y: {"a": y.sum()}, ["No logits", "dict(a: Tensor", "output="]),
        (lambda y: None, ["No logits", "NoneType", "output="]),
        (lambda y: y.argmax(1), ["cannot be differentiated", "FeatureAblation"]),
        (lambda y: y.detach(), ["cannot be differentiated", "FeatureAblation"]),
    ],
)
def test_output_refused(wrap, parts):
    target = None if wrap(torch.zeros(6, 3)) is None or torch.is_tensor(wrap(torch.zeros(6, 3))) else 0
    target = 0 if torch.is_tensor(wrap(torch.zeros(6, 3))) and wrap(torch.zeros(6, 3)).dim() == 2 else target
    with refused(*parts):
        attribute(Volume(wrap), X, target=target)


class TestInputs:
    @pytest.mark.parametrize(
        ("inputs", "parts"),
        [
            (torch.zeros(0, 5), ["one or more samples", "Tensor[0, 5]"]),
            (X.numpy(), ["inputs expected a tensor", "ndarray"]),
            (torch.tensor(1.0), ["inputs expected a tensor", "Tensor[] float32"]),
            ([], ["inputs expected a tensor"]),
            ({}, ["inputs expected a tensor"]),
            (None, ["inputs expected a tensor", "NoneType"]),
            ("abc", ["inputs expected a tensor", "str"]),
            ((X, X[:2]), ["cannot be called with", "Tensor[6, 5]", "Tensor[2, 5]"]),
            (torch.ones(6, 5, dtype=torch.int64), ["IntegratedGradients", "floating", "layer='...'"]),
        ],
    )
    def test_refused(self, inputs, parts):
        with refused(*parts):
            attribute(mlp(), inputs, target=0)

    def test_tokens_name_the_embedding(self):
        with refused("Saliency differentiates", "LayerIntegratedGradients", "layer='embedding'"):
            attribute(Tokens(), torch.ones(2, 3, dtype=torch.int64), method="Saliency", target=0)

    def test_noise_on_tokens(self):
        with refused("FeatureAblation in a noise_tunnel adds noise", "floating"):
            ids = torch.ones(2, 3, dtype=torch.int64)
            attribute(Tokens(), ids, method="FeatureAblation", target=0, noise_tunnel={})

    def test_permutation_of_one_sample(self):
        with refused("FeaturePermutation", "two or more"):
            attribute(mlp(), X[:1], method="FeaturePermutation", target=0)

    @pytest.mark.parametrize("size", [0, -3, 2.5, None, "64"])
    def test_bound_refused(self, size):
        with refused("internal_batch_size expected a positive integer", repr(size)):
            attribute(mlp(), X, target=0, internal_batch_size=size)

    def test_network_without_forward(self):
        for network in (nn.Module(), nn.ModuleList([mlp()])):
            with refused("defines no forward()", "module="):
                attribute(network, X, target=0)

    def test_misspelt_call(self):
        with refused("call='forwrad'", "Did you mean 'forward'"):
            attribute(mlp(), X, target=0, call="forwrad")


class TestBaselines:
    @pytest.mark.parametrize(
        "baseline",
        [1.0, 1, torch.ones(1, 5), torch.ones(6, 5), torch.ones(5), [1.0], (torch.ones(1, 5),), torch.ones(1)],
    )
    @pytest.mark.parametrize("method", ["IntegratedGradients", "DeepLift", "FeatureAblation", "KernelShap"])
    def test_taken_as_people_write_them(self, method, baseline):
        expected = attribute(mlp(), X, method=method, target=0, baselines=torch.ones(6, 5))
        found = attribute(mlp(), X, method=method, target=0, baselines=baseline)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(
            attribute(mlp(), X, method=method, target=0, baselines=baseline, internal_batch_size=4),
            expected,
            atol=1e-4,
            rtol=0,
        )

    @pytest.mark.parametrize("baseline", [np.ones((1, 5)), torch.ones(1, 5).double(), torch.ones(1, 5).half()])
    def test_of_another_type(self, baseline):
        expected = attribute(mlp(), X, target=0, baselines=1)
        assert torch.allclose(attribute(mlp(), X, target=0, baselines=baseline), expected, atol=1e-6)

    def test_one_per_sample_is_cut_with_the_samples(self):
        baselines = X.flip(0)
        whole = attribute(mlp(), X, method="DeepLift", target=0, baselines=baselines)
        pieces = attribute(mlp(), X, method="DeepLift", target=0, baselines=baselines, internal_batch_size=4)
        assert torch.allclose(whole, pieces, atol=1e-6)
        assert not torch.allclose(whole, attribute(mlp(), X, method="DeepLift", target=0), atol=1e-3)

    @pytest.mark.parametrize("method", ["GradientShap", "DeepLiftShap"])
    @pytest.mark.parametrize("baseline", [None, 0, 0.0, torch.zeros(1, 5), torch.zeros(5), torch.zeros(9, 5)])
    def test_one_is_a_distribution_too(self, method, baseline):
        expected = attribute(mlp(), X, method=method, target=0, baselines=torch.zeros(2, 5))
        found = attribute(mlp(), X, method=method, target=0, baselines=baseline)
        assert torch.isfinite(found).all()
        if method == "DeepLiftShap":
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    def test_dict_and_tuple(self):
        network = TwoInputs()
        values = (torch.ones(1, 5), torch.full((1, 4), 2.0))
        expected = captum.attr.IntegratedGradients(network).attribute(tuple(PAIR.values()), values, target=1)
        named = attribute(network, PAIR, target=1, baselines=dict(zip(PAIR, values, strict=True)))
        torch.testing.assert_close(tuple(named.values()), expected, atol=1e-6, rtol=1e-5)
        placed = attribute(network, (*PAIR.values(), torch.zeros(6, dtype=torch.int64)), target=1, baselines=values)
        longer = attribute(
            network, (*PAIR.values(), torch.zeros(6, dtype=torch.int64)), target=1, baselines=(*values, None)
        )
        assert torch.equal(placed[1], longer[1])

    def test_one_number_for_all(self):
        found = attribute(TwoInputs(), PAIR, target=1, baselines=0.0)
        assert torch.equal(found["right"], attribute(TwoInputs(), PAIR, target=1)["right"])

    @pytest.mark.parametrize(
        ("inputs", "baselines", "parts"),
        [
            (X, torch.zeros(2, 5), ["1 or 6 x (5,)", "(2, 5)"]),
            (X, torch.zeros(1, 4), ["x (5,)", "(1, 4)"]),
            (X, torch.zeros(1, 1, 5), ["x (5,)", "(1, 1, 5)"]),
            (X, "zero", ["baselines expected numbers or tensors", "'zero'"]),
            (X, {"x": 0}, ["baselines expected one part for each explained input"]),
            (X, [0, 0], ["baselines expected one part for each explained input"]),
            (PAIR, torch.zeros(1, 5), ["one part for each explained input ('left', 'right')"]),
            (PAIR, {"left": 0}, ["one part for each explained input ('left', 'right')", "left"]),
            (tuple(PAIR.values()), (0, 0, 0), ["one part for each explained input (0, 1)"]),
        ],
    )
    def test_refused(self, inputs, baselines, parts):
        with refused("baselines", *parts):
            attribute(mlp() if inputs is X else TwoInputs(), inputs, target=0, baselines=baselines)

    def test_refused_where_the_method_takes_none(self):
        with refused("baselines expected None", "Saliency takes none", "Tensor[1, 5]"):
            attribute(mlp(), X, method="Saliency", target=0, baselines=torch.zeros(1, 5))

    def test_of_a_layer(self):
        given = {"method": "LayerFeatureAblation", "layer": "0", "target": 0}
        found = attribute(mlp(), X, baselines=torch.ones(1, 6), internal_batch_size=4, **given)
        network = mlp()
        expected = captum.attr.LayerFeatureAblation(network, network[0]).attribute(X, torch.ones(1, 6), target=0)
        assert torch.allclose(found, expected, atol=1e-6)


class TestMasks:
    def test_integer_stands_for_patches(self):
        found = attribute(cnn(), IMAGES, method="FeatureAblation", target=0, attribute_args={"feature_mask": 3})
        patches = found.unfold(2, 3, 3).unfold(3, 3, 3).flatten(4)
        assert (patches == patches[..., :1]).all()
        without = IMAGES.clone()
        without[:, :, :3, 3:] = 0
        with torch.no_grad():
            drop = (cnn()(IMAGES) - cnn()(without))[:, 0]
        torch.testing.assert_close(found[:, 0, 0, 3], drop, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("method", ["FeatureAblation", "KernelShap", "ShapleyValues", "FeaturePermutation"])
    def test_integer_for_several_inputs_never_mixes_them(self, method):
        """A patch of one input is another feature than the patch of that number in the next."""
        found = attribute(TwoInputs(), PAIR, method=method, target=0, attribute_args={"feature_mask": 2})
        masks = (torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[3, 3, 4, 4]]))
        expected = attribute(TwoInputs(), PAIR, method=method, target=0, attribute_args={"feature_mask": masks})
        assert torch.equal(found["left"], expected["left"])
        assert torch.equal(found["right"], expected["right"])
        assert not torch.allclose(found["left"][:, 0], found["right"][:, 0])

    @pytest.mark.parametrize(
        "mask", [torch.tensor([[0, 0, 1, 1, 1]]), [[0, 0, 1, 1, 1]], [torch.tensor([[0, 0, 1, 1, 1]])]]
    )
    def test_tensor_or_list(self, mask):
        found = attribute(mlp(), X, method="FeatureAblation", target=0, attribute_args={"feature_mask": mask})
        assert torch.equal(found[:, 0], found[:, 1])
        assert torch.equal(found[:, 2], found[:, 4])

    def test_one_per_sample_is_cut_with_the_samples(self):
        masks = torch.stack([torch.arange(5).roll(i) // 2 for i in range(6)])
        given = {"method": "FeatureAblation", "target": 0, "attribute_args": {"feature_mask": masks}}
        assert torch.allclose(attribute(mlp(), X, internal_batch_size=4, **given), attribute(mlp(), X, **given))

    def test_dict(self):
        masks = {"left": torch.zeros(1, 5, dtype=torch.int64), "right": torch.arange(1, 5)[None]}
        found = attribute(TwoInputs(), PAIR, method="FeatureAblation", target=0, attribute_args={"feature_mask": masks})
        assert (found["left"] == found["left"][:, :1]).all()

    def test_refused(self):
        for mask, part in (
            (0, "positive"),
            ({"left": 1}, "one part for each"),
            (torch.zeros(1, 5), "one part for each"),
        ):
            with refused("feature_mask", part):
                given = {"method": "FeatureAblation", "attribute_args": {"feature_mask": mask}}
                attribute(TwoInputs(), PAIR, target=0, **given)

    def test_attribution_by_feature(self):
        """return_input_shape=False of Captum's Lime: one column per interpretable feature."""
        given = {"feature_mask": 2, "return_input_shape": False}
        found = attribute(mlp(), X, method="KernelShap", target=0, attribute_args=given, internal_batch_size=4)
        assert found.shape == (6, 3)


VALUES = {
    "too few dimensions": ("Occlusion", {"sliding_window_shapes": [3]}),
    "window too large": ("Occlusion", {"sliding_window_shapes": [2, 9, 9]}),
    "stride too large": ("Occlusion", {"sliding_window_shapes": [2, 3, 3], "strides": [2, 5, 5]}),
    "no number": ("Occlusion", {"sliding_window_shapes": "3x3"}),
    "unknown rule": ("IntegratedGradients", {"method": "simpson"}),
    "not an integer": ("IntegratedGradients", {"n_steps": "many"}),
    "mask of another shape": ("FeatureAblation", {"feature_mask": torch.zeros(1, 7, dtype=torch.int64)}),
    "no such neuron": ("NeuronGradient", {"neuron_selector": (99, 0, 0)}),
    "neuron of another shape": ("NeuronGradient", {"neuron_selector": (0, 0, 0, 0, 0)}),
    "no perturbations": ("FeatureAblation", {"perturbations_per_eval": 0}),
}


@pytest.mark.parametrize("case", VALUES)
def test_value_that_captum_refuses(case):
    """Known to Captum alone; the sentence names the method and the arguments."""
    name, given = VALUES[case]
    layer = {"layer": "0"} if name.startswith("Neuron") else {}
    with refused(name, next(iter(given))):
        attribute(cnn(), IMAGES, method=name, target=0, attribute_args=given, **layer)


@pytest.mark.parametrize(
    "given", [{"nt_type": "smooth"}, {"stdevs": [0.1, 0.2]}, {"stdevs": "small"}, {"nt_samples": 0}]
)
def test_noise_that_captum_refuses(given):
    with refused("noise_tunnel", next(iter(given))):
        attribute(mlp(), X, method="Saliency", target=0, noise_tunnel=given)


def test_errors_of_the_network_are_its_own():
    class Broken(nn.Module):
        def forward(self, x):
            raise AssertionError("mine")

    with pytest.raises(AssertionError, match=r"^mine$"):
        attribute(Broken(), X, target=0)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        attribute(nn.Linear(4, 3), X, target=0)


class Recurrent(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.rnn, self.norm, self.head = nn.LSTM(2, 4, batch_first=batch_first), nn.LayerNorm(4), nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        found = self.norm(self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))[0])
        return self.head(found.mean(1 if self.rnn.batch_first else 0))


@pytest.mark.parametrize(
    "method", ["LayerGradCam", "LayerActivation", "LayerIntegratedGradients", "LayerFeatureAblation"]
)
def test_layers_that_return_something_else(method):
    x = torch.randn(5, 7, 2)
    given = {"method": method, "target": 0}
    for call in (attribute, lambda *args, target, **more: rehearse(*args, **more)):
        with refused("layer='unused' does not run when the network is called"):
            call(Recurrent(True), x, layer="unused", **given)
        with refused("layer='rnn' expected to return one row for each of", "tuple(Tensor[", "after it"):
            call(Recurrent(True), x, layer="rnn", **given)
    with refused("layer='norm' expected to return one row for each of 2 samples", "Tensor[7, 2, 4]"):
        attribute(Recurrent(False), x, layer="norm", **given)
    assert len(attribute(Recurrent(True), x, layer="norm", internal_batch_size=2, **given)) == 5


def test_reused_modules():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.activation = nn.Linear(5, 5), nn.Linear(5, 3), nn.ReLU()

        def forward(self, x):
            return self.last(self.activation(self.first(self.activation(x))))

    network = Twice()
    found = attribute(network, X, method="DeepLift", target=0)
    torch.testing.assert_close(found.sum(1), (network(X) - network(0 * X))[:, 0], atol=1e-5, rtol=1e-4)
    with refused("LRP cannot explain", "'first'"):
        attribute(Shared(), X, method="LRP", target=0)
    assert torch.isfinite(attribute(Twice(), X, method="GuidedBackprop", target=0)).all()


def test_options_of_a_piece():
    arguments = SplitInputs(X)
    found = Options(resolve_method("IntegratedGradients"), arguments, [0, 1, 2, 0, 1, 2], X, {"n_steps": 3}, None, 4)
    piece = found.of(slice(4, 8))
    assert piece["target"].tolist() == [1, 2]
    assert torch.equal(piece["baselines"][0], X[4:])
    assert (piece["n_steps"], piece["internal_batch_size"]) == (3, 4)
