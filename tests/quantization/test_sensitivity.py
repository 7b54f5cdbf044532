"""Each cell against one layer quantized by hand, and that measuring changes nothing."""

import copy

import pytest
import torch
from networks import Shared, mlp
from quantized_networks import make
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import ConfusionMatrix, MulticlassAccuracy
from witness import digest, module_state, rng_state

from lit_xai.functional import quantization_sensitivity, quantize
from lit_xai.quantization.sensitivity import QuantizationSensitivity

BITS = (8, 4, 2)


def data(n=24, **options):
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(n, 5), torch.arange(n) % 3), 8, **options)


def measure(network=None, loader=None, metric=None, bits=BITS, **options):
    metric = metric or MulticlassAccuracy(3, average="micro")
    loader = data() if loader is None else loader
    options = {"progress": False, **options}
    return quantization_sensitivity(mlp() if network is None else network, loader, metric, bits, **options)


def rounded(weight, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = torch.maximum(weight.amin(1) / low, weight.amax(1) / high)[:, None]
    return (weight / scale).round().clamp(low, high) * scale


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_each_cell_is_that_of_one_layer_quantized_by_hand(shift):
    network, x = mlp(), torch.randn(32, 5, generator=torch.Generator().manual_seed(0)) + shift
    with torch.no_grad():
        hidden = network[1](network[0](x))
        expected, outputs = network(x), {}
        for place, inputs in (("0", x), ("2", hidden)):
            least, most = min(inputs.min().item(), 0.0), max(inputs.max().item(), 0.0)
            scale = (most - least) / 255
            zero = round(-least / scale)
            inputs = ((inputs / scale).round() + zero).clamp(0, 255).sub(zero) * scale
            for bits in BITS:
                changed = copy.deepcopy(network[int(place)])
                changed.weight.copy_(rounded(changed.weight, bits))
                outputs[place, bits] = changed(inputs) if place == "2" else network[2](network[1](changed(inputs)))
    found = measure(network, [x], lambda n: (n(x) - expected).norm().item(), higher_is_better=False)
    assert found.layers == (("0",), ("2",))
    assert found.bits == BITS
    assert found.dense == pytest.approx(0, abs=1e-6)
    for i, place in enumerate("02"):
        for j, bits in enumerate(BITS):
            error = (outputs[place, bits] - expected).norm().item()
            assert found.values[i, j].item() == pytest.approx(error, rel=1e-3, abs=1e-5)
    assert (found.drop[:, 0] < found.drop[:, 2]).all()


def test_all_layers_together_are_what_quantize_returns():
    network, x = mlp(), torch.randn(32, 5)
    lone = nn.Sequential(network[0])
    seen = measure(lone, [x], lambda n: n(x).double().sum().item(), (4,), higher_is_better=True)
    assert seen.values.item() == pytest.approx(quantize(lone, [x], bits=4, progress=False)(x).double().sum().item())


@pytest.mark.parametrize("name", ["residual", "attention", "weight norm", "twice"])
def test_one_row_for_each_layer_that_computes_in_integers(name):
    network, x = make(name)
    before = digest([module_state(network), rng_state()])
    expected = network(x).detach()
    found = measure(network, [x], lambda n: (n(x) - expected).norm().item(), higher_is_better=False)
    assert digest([module_state(network), rng_state()]) == before
    assert len(set(found.layers)) == len(found.layers) == {"residual": 5, "attention": 8}.get(name, 3)
    assert (found.values > 1e-6).all()  # every row is rounded somewhere
    assert found.dense == pytest.approx(0, abs=1e-4)


def test_queries_keys_and_values_share_what_they_take():
    network = Shared()
    x = torch.randn(16, 5)
    found = measure(network, [x], lambda n: n(x).double().sum().item(), higher_is_better=True)
    assert found.layers == (("first",), ("head",))


def test_the_network_the_metric_the_loader_and_random_numbers_stay():
    network, metric = mlp().train(), MulticlassAccuracy(3)
    metric.update(torch.eye(3), torch.arange(3))
    loader = data(shuffle=True, generator=torch.Generator().manual_seed(0))
    before = digest([module_state(network), rng_state(), metric.metric_state, loader.generator.get_state()])
    first = measure(network, loader, metric)
    second = measure(network, loader, metric)
    assert digest([module_state(network), rng_state(), metric.metric_state, loader.generator.get_state()]) == before
    assert torch.equal(first.values, second.values)
    assert first.higher_is_better
    assert first.metric == "MulticlassAccuracy"


def test_bits_per_layer_from_a_drop_one_can_afford_are_what_quantize_takes():
    values = torch.tensor([[0.90, 0.89, 0.50], [0.90, 0.80, 0.90], [0.5, 0.5, 0.5]], dtype=torch.float64)
    found = QuantizationSensitivity((("0",), ("2",), ("4",)), BITS, values, 0.90)
    assert found.to_bits(0.02) == {"0": 4, "2": 2, "4": None}
    assert found.to_bits(0.0) == {"0": 8, "2": 2, "4": None}
    assert set(found.to_bits(1.0).values()) == {2}
    with refused("max_drop expected a number of at least 0, but got -1"):
        found.to_bits(-1)
    network = nn.Sequential(*mlp(), nn.ReLU(), nn.Linear(3, 2))
    bits = found.to_bits(0.02)
    kept = {name: n for name, n in bits.items() if n}
    ignored = [name for name, n in bits.items() if n is None]
    quantized = quantize(network, [torch.randn(4, 5)], bits=kept, ignored_layers=ignored, progress=False)
    sites = quantized.fake_quantizers.sites.values()
    assert {site["layer"]: site["high"] for site in sites if site["channels"]} == {"0": 7, "2": 1}


def test_only_the_given_layers():
    assert measure(layers=["2"]).layers == (("2",),)
    assert measure(ignored_layers=["2"]).layers == (("0",),)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"bits": ()}, ["bits expected one or more numbers from 2 to 8, but got none"]),
        ({"bits": (8, 1)}, ["bits expected an integer from 2 to 8, but got 1"]),
        ({"bits": (True,)}, ["bits expected an integer from 2 to 8, but got True"]),
        ({"layers": ["1"]}, ["layers: '1' is no layer that can be quantized"]),
        ({"layers": []}, ["layers expected one or more names"]),
        ({"batches": 0}, ["batches expected a positive integer"]),
        ({"activations": "signed"}, ["activations expected one of"]),
        ({"loader": []}, ["loader expected one or more batches, but got none"]),
        ({"loader": iter(data())}, ["loader expected batches that can be read again", "an iterator"]),
        ({"loader": [torch.zeros(4, 5)]}, ["loader expected labels in each batch"]),
        (
            {"metric": MulticlassAccuracy},
            ["metric expected a torchmetrics.Metric", "MulticlassAccuracy(...)"],
        ),
        ({"metric": "accuracy"}, ["metric expected a torchmetrics.Metric or a function, but got 'accuracy'"]),
        ({"loader": torch.zeros(4, 5)}, ["loader expected batches", "Tensor[4, 5]", "[tensor]"]),
        ({"network": "mlp"}, ["network expected a module, but got str"]),
        ({"loader": [(torch.zeros(4, 6), torch.zeros(4))]}, ["cannot be called with Tensor[4, 6]", "batch_to_inputs="]),
        ({"metric": lambda network: 1.0}, ["higher_is_better expected True or False"]),
        (
            {"metric": lambda network: float("nan"), "higher_is_better": True},
            ["metric expected a finite number for the network in float, but got nan"],
        ),
        (
            {"metric": ConfusionMatrix("multiclass", num_classes=3), "higher_is_better": True},
            ["metric expected one number", "Tensor[3, 3]"],
        ),
        ({"network": nn.Sequential(nn.ReLU())}, ["Sequential calls no convolution or linear layer"]),
    ],
)
def test_bad_input_is_one_sentence(options, parts):
    with refused(*parts):
        measure(**options)


def test_a_progress_bar_counts_to_the_end(capsys):
    measure(progress=True)
    assert "layer sensitivity" in capsys.readouterr().err
    measure()
    assert capsys.readouterr().err == ""
