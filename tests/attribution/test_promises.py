"""Each method keeps what promises.py says of it, over generated networks, or a warning tells that it does not."""

import contextlib
import re
import warnings
from pathlib import Path

import captum.attr
import pytest
import torch
from captum_methods import METHODS, options
from chains import LINEAR, RAMP, IfLarge, baselines, bounded, chains, linear_pieces, pieces, samples
from hypothesis import given
from hypothesis import strategies as st
from networks import mlp
from torch import nn

from lit_xai.attribution.methods import attribute_parameters, explains_layer
from lit_xai.attribution.promises import BOUNDS, gap_warning, promises, should_add_up
from lit_xai.functional import attribute

PROMISES = {name: promises(getattr(captum.attr, name)) for name in METHODS}
TARGETS = st.sampled_from([0, 1, 2])


def call(name, network, x, target, baseline=None, **more):
    """Attribute with what the method needs, a distribution of baselines drawn from one."""
    method = getattr(captum.attr, name)
    takes = attribute_parameters(method)
    found = options(name) | {"target": target if "target" in takes else None}
    found.pop("baselines", None)
    if baseline is not None and "baselines" in takes:
        found["baselines"] = baseline
    return attribute(network, x, **(found | more))


def sums_of(found):
    return found.flatten(1).sum(1)


def change(network, x, baseline, target):
    with torch.no_grad():
        return (network(x) - network(torch.zeros_like(x[:1]) if baseline is None else baseline))[:, target]


def assert_close(found, expected, scale, tolerance=1e-8):
    assert (found - expected).abs().max() <= tolerance * max(float(scale), 1e-6)


@bounded(40)
@given(chains(), samples(), baselines(), TARGETS)
def test_deeplift_adds_up_exactly(network, x, baseline, target):
    found = call("DeepLift", network, x, target, baseline)
    assert_close(sums_of(found), change(network, x, baseline, target), found.abs().flatten(1).sum(1).max())


@bounded(8)
@given(chains(), samples(most=3), TARGETS)
def test_deeplift_shap_adds_up_over_its_baselines(network, x, target):
    several = torch.linspace(-1, 1, 3, dtype=torch.float64).reshape(3, 1, 1, 1) * torch.ones_like(x[:1])
    found = call("DeepLiftShap", network, x, target, several)
    expected = torch.stack([change(network, x, several[i : i + 1], target) for i in range(3)]).mean(0)
    assert_close(sums_of(found), expected, found.abs().flatten(1).sum(1).max())


OF_LRP = [nn.ReLU, nn.ReLU, nn.Tanh, nn.Dropout, nn.Identity, nn.Dropout2d, lambda: nn.Conv2d(4, 4, 3, padding=1)]
OF_LRP += [lambda: IfLarge(nn.MaxPool2d(2)), lambda: IfLarge(nn.AvgPool2d(3, 2))]


@bounded(10)
@given(chains(st.sampled_from(OF_LRP).map(lambda kind: kind()), bias=False), samples(most=3), TARGETS)
def test_lrp_adds_up_to_the_output_where_there_are_no_biases(network, x, target):
    found = call("LRP", network, x, target)
    with torch.no_grad():
        expected = network(x)[:, target]
    assert_close(sums_of(found), expected, found.abs().flatten(1).sum(1).max(), 1e-4)


@bounded(8)
@given(chains(), samples(most=3), baselines(), TARGETS, st.sampled_from(["ShapleyValues", "ShapleyValueSampling"]))
def test_shapley_values_add_up_exactly(network, x, baseline, target, name):
    mask = torch.arange(72).reshape(1, 2, 6, 6) // 24
    own = {"feature_mask": mask} | ({"n_samples": 3} if name == "ShapleyValueSampling" else {})
    found = call(name, network, x, target, baseline, attribute_args=own)
    # A group's value stands at each of its 24 members.
    # Captum sums in float32.
    assert_close(sums_of(found) / 24, change(network, x, baseline, target), found.abs().max() * 3, 1e-5)


@bounded(10)
@given(chains(), samples(most=3), baselines(), TARGETS, st.sampled_from([4, 16, 64]))
def test_integrated_gradients_add_up_or_say_so(network, x, baseline, target, n_steps):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call("IntegratedGradients", network, x, target, baseline, attribute_args={"n_steps": n_steps})
    gap = (sums_of(found) - change(network, x, baseline, target)).abs().sum() / found.abs().sum()
    assert bool(caught) == bool(gap > BOUNDS["with steps"])
    assert all("raise n_steps" in str(each.message) for each in caught)


@bounded(4)
@given(chains(pieces(jumps=False), most=3), samples(most=3), TARGETS)
def test_steps_close_the_gap_of_integrated_gradients(network, x, target):
    gaps = []
    for n_steps in (8, 256):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*raise n_steps")
            found = call("IntegratedGradients", network, x, target, attribute_args={"n_steps": n_steps})
        gaps.append((sums_of(found) - change(network, x, None, target)).abs().sum() / found.abs().sum())
    assert gaps[1] <= max(gaps[0], 0.02)


ALONE = [name for name in METHODS if PROMISES[name].own_sample and not PROMISES[name].draws]


@pytest.mark.parametrize("name", ALONE)
@bounded(3)
@given(data=st.data(), x=samples(), target=TARGETS, at_most=st.sampled_from([1, 3]))
def test_a_sample_is_explained_as_if_alone(name, data, x, target, at_most):
    """Whatever its neighbors are, and however the passes are cut."""
    baseline = RAMP  # of a constant image a pool's maximum is a matter of rounding
    links = st.sampled_from([nn.ReLU, nn.Dropout, nn.Identity]).map(lambda kind: kind()) if "LRP" in name else None
    network = data.draw(chains(links))
    with ignoring_what_other_tests_are_about():
        together = call(name, network, x, target, baseline)
        others = call(name, network, torch.cat([x[:1], 5 * torch.randn_like(x)]), target, baseline)[:1]
        alone = call(name, network, x[:1], target, baseline)
        cut = call(name, network, x, target, baseline, internal_batch_size=at_most)
    scale = together.abs().max()
    assert_close(together[:1], alone, scale, 1e-6)
    assert_close(others, alone, scale, 1e-6)
    assert_close(cut, together, scale, 1e-6)


@pytest.mark.parametrize(
    "name", ["Occlusion", "FeatureAblation", "ShapleyValues", "ShapleyValueSampling", "KernelShap"]
)
@bounded(3)
@given(network=chains(), x=samples(), target=TARGETS, at_once=st.sampled_from([1, 2, 5]))
def test_perturbations_at_once_change_nothing(name, network, x, target, at_once):
    own = options(name)["attribute_args"]
    own |= {"n_samples": 12} if name == "KernelShap" else {"n_samples": 2} if name == "ShapleyValueSampling" else {}
    whole = call(name, network, x, target, attribute_args=own)
    cut = call(name, network, x, target, attribute_args=own | {"perturbations_per_eval": at_once})
    assert_close(cut, whole, whole.abs().max(), 1e-6)


LINEAR_METHODS = [
    name for name in METHODS if PROMISES[name].weight_x_input and not explains_layer(getattr(captum.attr, name))
]
CHANNELS = torch.arange(72).reshape(1, 2, 6, 6) // 36
SINGLE = {
    "Occlusion": {"sliding_window_shapes": (1, 1, 1)},
    "FeatureAblation": {},
    "ShapleyValues": {"feature_mask": CHANNELS},
    "ShapleyValueSampling": {"feature_mask": CHANNELS, "n_samples": 2},
    "KernelShap": {"feature_mask": CHANNELS, "n_samples": 40},
}


@pytest.mark.parametrize("name", LINEAR_METHODS)
@bounded(3)
@given(data=st.data(), x=samples(most=3), baseline=baselines(), target=TARGETS)
def test_weight_times_input_where_the_network_is_linear(name, data, x, baseline, target):
    of_lrp = name == "LRP"
    # LRP has rules for modules, and biases take a share of the relevance.
    links = st.sampled_from(sorted(set(LINEAR) - {"sum", "permute", "BatchNorm2d"})).map(lambda key: LINEAR[key]())
    network = data.draw(chains(links if of_lrp else linear_pieces(), bias=not of_lrp))
    takes = "baselines" in attribute_parameters(getattr(captum.attr, name))
    more = {"attribute_args": SINGLE[name]} if name in SINGLE else {}
    found = call(name, network, x, target, baseline, **more)
    one = x[:1].clone().requires_grad_()
    (weight,) = torch.autograd.grad(network(one)[0, target], one)
    expected = weight * (x - baseline if takes and baseline is not None else x)
    if "feature_mask" in more.get("attribute_args", {}):  # two groups of 36
        groups = expected.flatten(1).unflatten(1, (2, 36)).sum(2)
        expected = groups.repeat_interleave(36, 1).reshape(x.shape)
    # KernelShap solves a regression, whose weights for "all" and "none" are finite.
    tolerance = {"KernelShap": 1e-2, "LRP": 1e-4}.get(name, 1e-5 if name in SINGLE else 1e-8)  # Captum sums in float32
    assert_close(found, expected, expected.abs().max(), tolerance)


DUMMY_METHODS = [name for name in METHODS if PROMISES[name].ignores_dummies]


class FirstChannel(nn.Module):
    """A network that does not see the second channel."""

    def __init__(self, network):
        super().__init__()
        self.inner = network

    def forward(self, x):
        return self.inner(x * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).to(x))


@pytest.mark.parametrize("name", DUMMY_METHODS)
@bounded(2)
@given(data=st.data(), x=samples(most=3), baseline=baselines(), target=TARGETS)
def test_features_that_are_not_used_get_nothing(name, data, x, baseline, target):
    links = st.sampled_from([nn.ReLU, nn.Dropout, nn.Identity]).map(lambda kind: kind()) if "LRP" in name else None
    network = FirstChannel(data.draw(chains(links)))
    more = options(name, layer="inner.0")
    more.pop("baselines", None)
    # A group that holds used and unused features would get something.
    own = {key: CHANNELS if key == "feature_mask" else value for key, value in more["attribute_args"].items()}
    own = SINGLE[name] if name == "Occlusion" else own
    with ignoring_what_other_tests_are_about():
        found = call(name, network, x, target, baseline, **(more | {"attribute_args": own}))
    assert found[:, 1].abs().max() <= (1e-3 if name == "KernelShap" else 1e-9) * max(1e-6, float(found.abs().max()))


@contextlib.contextmanager
def ignoring_what_other_tests_are_about():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(treats these as plain gradients|does not add up)")
        yield


def test_every_method_has_promises():
    """A method that Captum adds has to be looked at."""
    from lit_xai.attribution.promises import _PROMISES

    assert sorted(_PROMISES) == sorted(METHODS)


WORDS = {
    "exactly": "exactly",
    "the better": "with steps",
    "on average": "on average",
    "where no path": "along the layer",
    "to the change of the neuron": "to the neuron",
    "no": "no",
}


def test_the_page_says_the_same():
    page = (Path(__file__).parents[2] / "docs" / "choose.md").read_text().split("### What each promises")[1]
    rows = [line.strip("| ").split(" | ") for line in page.split("\n\n")[1].splitlines()[2:]]
    assert len(rows) > 8
    for methods, adds_up, _, draws in rows:
        expected = next(value for words, value in WORDS.items() if adds_up.startswith(words))
        for name in re.findall(r"`(\w+)`", methods):
            assert (PROMISES[name].adds_up, PROMISES[name].draws) == (expected, draws == "yes"), name


class Mine(captum.attr.DeepLift):
    pass


def test_nothing_is_known_of_own_classes():
    assert promises(Mine).adds_up == "no"
    assert not should_add_up(Mine)


@pytest.mark.parametrize(
    ("given_options", "expected"),
    [
        ({}, True),
        ({"init_args": {"multiply_by_inputs": False}}, False),
        ({"attribute_args": {"custom_attribution_func": len}}, False),
        ({"noise_tunnel": {}}, False),
    ],
)
def test_when_attributions_should_add_up(given_options, expected):
    assert should_add_up(captum.attr.DeepLift, **given_options) is expected


X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3


class Sudden(nn.Module):
    """``x * (x > 0)`` is a function that no rule sees; ten times as steep, steps do not see it either."""

    def forward(self, x):
        return x * (x > 0) + 10 * (x > 1)


def test_gap_is_said_with_its_size_and_its_cause():
    network = nn.Sequential(mlp(), Sudden())
    with pytest.warns(
        UserWarning, match=r"DeepLift does not add up: .* by \d+% of their size .*such as gt; use"
    ) as seen:
        found, delta = attribute(network, X, method="DeepLift", target=1, return_convergence_delta=True)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    share = delta.abs().sum() / found.abs().sum()
    assert f"{float(share):.0%}" in str(seen[0].message)
    with pytest.warns(UserWarning, match=r"IntegratedGradients does not add up: .*raise n_steps in attribute_args"):
        attribute(network, X, target=1)


@pytest.mark.parametrize("name", [name for name in METHODS if PROMISES[name].adds_up not in BOUNDS])
def test_methods_that_need_not_add_up_are_not_warned_of(name):
    network, x = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 3)), torch.ones
    with ignoring_plain_gradients():
        call(name, network.eval(), x(3, 2, 6, 6), 1) if name != "LRP" and name != "LayerLRP" else None


@contextlib.contextmanager
def ignoring_plain_gradients():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*treats these as plain gradients")
        yield


def test_rounding_errors_and_blank_maps_are_no_gap():
    zero = torch.zeros(2, 5)
    deeplift = captum.attr.DeepLift
    assert gap_warning(deeplift, [zero], torch.tensor([1e-6, 0.0]), scale=10.0) is None
    assert gap_warning(deeplift, [zero], torch.zeros(2), scale=0.0) is None
    assert "all of it" in gap_warning(deeplift, [zero], torch.ones(2), scale=1.0)
    assert attribute(nn.Linear(5, 3), zero, method="DeepLift", target=0).abs().max() == 0
