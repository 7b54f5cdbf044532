"""The fewest layers in float: against all sets of layers, on networks with one that integers ruin."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_layers import Multiplied, Normalized, Perceptron, Plain, accuracy, digits, plant_, trained
from torch import nn
from torch.nn import functional as F
from witness import digest, module_state, rng_state

from lit_xai.quantization.float_layers import FloatLayers, accuracy_of, check_max_drop, ignored_line, quantize_within
from lit_xai.quantization.quantization import describe_quantization, quantize

CASES = {
    "a depthwise layer, before a normalization": (Normalized, "deep", "norm", ("deep",)),
    # What lies between two convolutions is in integers as long as one of them is.
    "before a depthwise layer": (Plain, "stem", "deep", ("stem", "deep")),
    "a depthwise layer": (Plain, "deep", "wide", ("deep", "wide")),
    "a convolution": (Plain, "wide", "last", ("wide", "last")),
    # No layer itself: the one that takes it is named, and what it takes is then not rounded.
    "a multiplication": (Multiplied, "gain", "wide", ("wide",)),
    # A linear layer computes in integers whatever becomes of its output.
    "a linear layer": (Perceptron, "first", "second", ("second",)),
}


def planted(name):
    make, layer, following, _ = CASES[name]
    return plant_(trained(make), layer, following)


def int8(network, layers=()):
    return accuracy(quantize(network, digits()[1], ignored_layers=layers, progress=False))


@pytest.mark.parametrize("name", CASES)
def test_the_planted_layer_is_left_in_float_and_nothing_more(name):
    network, (_, layer, _, expected) = planted(name), CASES[name]
    reference = accuracy(network)
    assert reference > 0.8
    assert int8(network) < 0.5 < reference
    result, found = quantize_within(network, digits()[1], 0.02, progress=False)
    assert found.measured[1][0] == (expected[0] if len(expected) == 1 else layer,)
    assert set(found.layers) == set(expected)
    assert accuracy(result) == pytest.approx(found.value, abs=1e-6)
    assert reference - found.value <= 0.02
    # The second witness: all sets of as many layers or fewer.
    names = describe_quantization(quantize(network, digits()[1], progress=False))["integer"]
    sets = [some for n in range(len(expected) + 1) for some in itertools.combinations(names, n)]
    enough = [some for some in sets if reference - int8(network, some) <= 0.02]
    assert [set(some) for some in enough] == [set(expected)]


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_to_be_left_in_float_can_be_given_to_quantize(name):
    network = planted(name)
    result, found = quantize_within(network, digits()[1], 0.02, progress=False)
    expected = quantize(network, digits()[1], ignored_layers=found.layers, progress=False)
    x = digits()[1][0][0]
    with torch.no_grad():
        assert torch.equal(result(x), expected(x))


def test_it_is_deterministic_and_leaves_everything_as_it_is():
    network = planted("a depthwise layer")
    before = digest(module_state(network)), digest(rng_state())
    results = [quantize_within(network, digits()[1], 0.02, progress=False) for _ in range(2)]
    assert (digest(module_state(network)), digest(rng_state())) == before
    assert results[0][1] == results[1][1]
    assert digest(module_state(results[0][0])) == digest(module_state(results[1][0]))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([*CASES]), st.sampled_from([0.0, 0.003, 0.02, 0.2, 1.0, 1e9]))
def test_properties_of_any_limit(name, max_drop):
    network = planted(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is said where it is not reached
        _, found = quantize_within(network, digits()[1], max_drop, progress=False)
    assert found.value >= found.quantized
    assert found.is_reached == (found.drop <= max_drop + 1e-9)
    if max_drop >= 1:
        assert found.layers == ()
    without = dict(found.measured)
    assert without[found.layers] == found.value
    for layer in found.layers:
        fewer = tuple(one for one in found.layers if one != layer)
        assert fewer not in without or not found.is_reached or found.reference - without[fewer] > max_drop


def test_what_cannot_be_reached_is_a_warning_with_the_figure():
    network = trained(Perceptron)
    values = iter([0.9, 0.5, 0.6, 0.55, 0.58])
    said = r"quantize: 1 layer left in float, ignored_layers=\[.*\]: metric 0.6 .*drop of 0.3"
    with pytest.warns(UserWarning, match=said):
        _, found = quantize_within(
            network, digits()[1], 0.01, metric=lambda _: next(values), higher_is_better=True, progress=False
        )
    assert len(found.layers) == 1
    assert not found.is_reached


def test_where_lower_is_better():
    def loss(network):
        x, y = digits()[1][0]
        with torch.no_grad():
            return float(F.cross_entropy(network(x), y))

    network = planted("a depthwise layer")
    _, found = quantize_within(network, digits()[1], 0.1, metric=loss, higher_is_better=False, progress=False)
    assert set(found.layers) == {"deep", "wide"}
    assert found.drop <= 0.1
    assert found.metric == "loss"


def test_quantize_takes_the_limit_and_says_what_it_left(capsys):
    network, x = planted("a linear layer"), digits()[1][0][0]
    expected, found = quantize_within(network, digits()[1], 0.02, progress=False)
    with torch.no_grad():
        assert torch.equal(quantize(network, digits()[1], max_drop=0.02)(x), expected(x))
    assert str(found) in capsys.readouterr().err
    quantize(network, digits()[1], max_drop=0.02, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [-0.1, math.nan, "0.1", True, torch.tensor(0.1)])
def test_a_limit_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="max_drop expected a number of at least 0, or None, but got"):
        check_max_drop(value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"metric": accuracy}, "metric expected None, as nothing is measured without max_drop"),
        ({"max_drop": -1}, "max_drop expected a number of at least 0"),
        ({"max_drop": 0.1, "metric": accuracy}, "higher_is_better expected True or False"),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        quantize(trained(Perceptron), digits()[1], progress=False, **arguments)


@pytest.mark.parametrize("loader", [[torch.randn(4, 8)], [(torch.randn(4, 8), torch.randn(4, 3))]])
def test_without_labels_of_classes_a_metric_is_asked_for(loader):
    with pytest.raises(ValueError, match=r"metric expected a torchmetrics.Metric or a function of the network"):
        quantize(nn.Linear(8, 3), loader, max_drop=0.1, progress=False)
    with pytest.raises(ValueError, match="expected batches that can be read again"):
        quantize(nn.Linear(8, 3), iter(loader), max_drop=0.1, progress=False)


def test_the_accuracy_of_pixels():
    network, batch = nn.Conv2d(1, 3, 1), (torch.randn(2, 1, 4, 4), torch.randint(3, (2, 4, 4)))
    metric = accuracy_of(network, batch)
    with torch.no_grad():
        logits = network(batch[0])
    metric.update(logits, batch[1])
    assert float(metric.compute()) == pytest.approx(float((logits.argmax(1) == batch[1]).float().mean()))


def test_the_line_to_paste_is_python_and_yaml():
    import yaml

    names = ["a.0", 'odd "name"', "größe"]
    line = ignored_line(names)
    assert eval(f"dict({line})") == {"ignored_layers": names}
    assert yaml.safe_load(line.replace("=", ": ", 1)) == {"ignored_layers": names}


def test_in_words():
    one = FloatLayers((), 0.9, 0.9, 0.9, 0.01, "accuracy")
    assert str(one) == "No layer is left in float: accuracy 0.9 (float 0.9, all in integers 0.9)."
    two = FloatLayers(("a", "b"), 0.89, 0.9, 0.5, 0.01, "accuracy")
    assert str(two).startswith('2 layers left in float, ignored_layers=["a", "b"]: accuracy 0.89')
