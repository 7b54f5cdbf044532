"""Tests of the second axis: curves of linear networks, the null, equal networks, and every form of inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from lit_xai.report.axes import faithful_of
from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.explaining import Explaining, Maps
from lit_xai.report.facts import facts_of
from lit_xai.report.faithful import PLANS, plan, with_faithfulness
from lit_xai.report.limits import limits_of
from lit_xai.report.pictures import Look
from lit_xai.report.record import FAITHFUL, Explained, Record
from lit_xai.report.summary import summary
from lit_xai.report.writing import verify, write
from lit_xai.retention.explainer import Explainer
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.runtime.onnx import export_onnx

QUICK = {"nulls": 0, "rounds": 0, "explainers": ["Occlusion"], "corruption": False, "samples": "none"}


def sharp(*layers, seed=0, by=20.0):
    """Return a network that is sure of its classes, so that most samples count."""
    torch.manual_seed(seed)
    network = nn.Sequential(*(layer() for layer in layers)).eval()
    with torch.no_grad():
        network[-1].weight.mul_(by)
    return network


def of_rows(seed=0, outputs=3):
    return sharp(lambda: nn.Linear(6, 16), nn.ReLU, lambda: nn.Linear(16, outputs), seed=seed)


def rows(n=80, outputs=None, seed=5):
    torch.manual_seed(seed)
    labels = torch.randint(3, (n,)) if outputs is None else torch.randn(n, outputs)
    return [(torch.randn(n, 6), labels)]


def test_curves_of_linear_networks_are_the_closed_form():
    torch.manual_seed(0)
    networks = {name: nn.Linear(6, 1) for name in ("dense", "other")}
    data = [(torch.rand(60, 6) + 0.5, torch.randn(60, 1))]
    for one in networks.values():
        one.weight.data.abs_()
    one = compare_networks(networks, data, CompareOptions(n=60, **QUICK)).explained[0]
    assert set(one.faithful) == {"dense", "other"}
    steps, _ = PLANS[-1]
    taken = np.unique([0, *(step * 6 // steps for step in range(1, steps)), 6])
    for name, network in networks.items():
        shares = (network.weight.detach() * data[0][0][one.samples]).double().numpy()
        found = one.faithful[name]
        np.testing.assert_allclose(found["change"], shares.sum(1), rtol=1e-4)
        ordered = -np.sort(-shares, axis=1) / shares.sum(1, keepdims=True)
        gone = np.concatenate([np.zeros((60, 1)), ordered.cumsum(1)], 1)[:, taken]
        deletion = np.trapezoid(1 - gone, taken / 6, axis=1)
        # Insertion is read backwards from the sample: what is left once the lowest are taken away.
        left = 1 - np.concatenate([np.zeros((60, 1)), ordered[:, ::-1].cumsum(1)], 1)[:, taken]
        insertion = np.trapezoid(left, taken / 6, axis=1)
        np.testing.assert_allclose(found["insertion"] - found["deletion"], insertion - deletion, atol=1e-4)


def test_random_explanations_are_no_better_than_random_orders():
    network, inputs = of_rows(), rows(400)[0][0]
    explained = Explained("Occlusion", np.arange(400), {}, np.zeros((0, 400)))
    maps = Maps("Occlusion", "zero", range(400), inputs, {"dense": {"": torch.randn(400, 6)}}, {})
    explaining = Explaining(
        {"dense": network}, inputs, each_output=False, output=None, baselines=None, data_info=Look(), seed=0
    )
    with torch.no_grad():
        target = network(inputs).argmax(1)
    one = with_faithfulness(explained, maps, explaining, Explainer("Occlusion"), target, lambda outputs: outputs)
    networks = compare_networks({"dense": network, "b": network}, rows(400), CompareOptions(**QUICK)).networks
    (row,) = faithful_of(Record(networks, "classes"), one, [], "similarity")["networks"]
    assert row["n"] > 200
    for numbers in (row, row["deletion"], row["insertion"]):
        margin = (numbers["high"] - numbers["low"]) / 2
        assert abs(numbers["value"]) < 2 * margin  # 3.3 standard errors
        assert margin < 0.1


def test_the_same_network_twice_has_a_difference_of_exactly_zero():
    record = compare_networks({"dense": of_rows(), "same": of_rows()}, rows(), CompareOptions(**QUICK))
    found = summary(record)["explainers"][0]["faithful"]
    first, last = found["networks"]
    assert first["value"] > 0.2
    assert [last["change"][key] for key in ("value", "low", "high")] == [0, 0, 0]
    assert last["change"]["n"] == first["n"] >= 30
    assert "exactly as faithful" in found["reading"]


def test_an_explanation_of_the_reference_is_less_faithful_to_another_network():
    """Two networks that rest on different halves of the inputs, both explained by the first one's maps."""
    halves = {name: nn.Linear(6, 1, bias=False) for name in ("dense", "other")}
    for place, one in enumerate(halves.values()):
        one.weight.data = torch.eye(2).repeat_interleave(3, 1)[place : place + 1] + 0.01
    inputs = torch.rand(50, 6) + 0.5
    map_ = {"": halves["dense"].weight.detach() * inputs}
    explaining = Explaining(halves, inputs, each_output=False, output=None, baselines=None, data_info=Look(), seed=0)
    maps = Maps("Occlusion", "zero", range(50), inputs, dict.fromkeys(halves, map_), {})
    explained = Explained("Occlusion", np.arange(50), {"other": np.ones(50)}, np.zeros((0, 50)))
    one = with_faithfulness(explained, maps, explaining, Explainer("Occlusion"), None, lambda outputs: outputs)
    record = compare_networks(halves, [(inputs, torch.randn(50, 1))], CompareOptions(**QUICK))
    same = [{"name": "other", "similarity": {"value": 1.0, "low": 1.0, "high": 1.0, "n": 50}}]
    found = faithful_of(record, one, same, "similarity")
    assert found["networks"][0]["value"] > 0.4
    assert found["networks"][1]["value"] < -0.4
    assert "surely less faithful" in found["reading"]


CASES = {
    "images": (lambda: nn.Conv2d(1, 4, 3), nn.ReLU, nn.Flatten, lambda: nn.Linear(144, 3)),
    "tokens": (lambda: nn.Embedding(9, 8), nn.Flatten, lambda: nn.Linear(48, 3)),
    "binary": (lambda: nn.Linear(6, 8), nn.ReLU, lambda: nn.Linear(8, 1)),
    "values": (lambda: nn.Linear(6, 8), nn.ReLU, lambda: nn.Linear(8, 2)),
}


@pytest.mark.parametrize("kind", CASES)
def test_every_form_of_inputs_and_outputs(kind, tmp_path):
    networks = {name: sharp(*CASES[kind], seed=seed) for seed, name in enumerate(("dense", "other"))}
    torch.manual_seed(3)
    inputs = {"images": torch.randn(60, 1, 8, 8), "tokens": torch.randint(1, 9, (60, 6))}.get(kind, torch.randn(60, 6))
    labels = {"binary": torch.randint(2, (60,)), "values": torch.randn(60, 2)}.get(kind, torch.randint(3, (60,)))
    record = compare_networks(networks, [(inputs, labels)], CompareOptions(**QUICK))
    one = record.explained[0]
    assert {name: sorted(each) for name, each in one.faithful.items()} == dict.fromkeys(networks, sorted(FAITHFUL))
    first = summary(record)["explainers"][0]["faithful"]["networks"][0]
    assert first["n"] > 30
    assert first["low"] > 0
    write(record, tmp_path)
    assert verify(tmp_path) == []
    loaded = Record.load(tmp_path).explained[0].faithful
    for name in networks:
        for key in FAITHFUL:
            np.testing.assert_array_equal(loaded[name][key], one.faithful[name][key])


def test_values_are_taken_as_they_are_and_not_as_classes():
    torch.manual_seed(0)
    one = nn.Linear(6, 2)
    first = nn.Linear(6, 1)
    first.weight.data, first.bias.data = one.weight.data[:1], one.bias.data[:1]
    options = CompareOptions(n=40, **QUICK)
    x = torch.randn(40, 6)
    several = compare_networks({"a": one, "b": one}, [(x, torch.randn(40, 2))], options).explained[0].faithful["a"]
    single = compare_networks({"a": first, "b": first}, [(x, torch.randn(40, 1))], options).explained[0].faithful["a"]
    for key in FAITHFUL:
        np.testing.assert_allclose(several[key], single[key], rtol=1e-4, atol=1e-4)  # of float32, by the CPU


def test_probabilities_are_those_of_logits_and_a_file_is_its_network(tmp_path):
    dense = of_rows()
    export_onnx(dense, torch.zeros(2, 6), tmp_path / "dense.onnx")
    networks = {"dense": dense, "file": FileNetwork(tmp_path / "dense.onnx")}
    found = compare_networks(networks, rows(), CompareOptions(**QUICK)).explained[0].faithful
    for key in FAITHFUL:
        np.testing.assert_allclose(found["file"][key], found["dense"][key], atol=1e-3)
    soft = nn.Sequential(of_rows(), nn.Softmax(1))
    change = compare_networks({"dense": dense, "soft": soft}, rows(), CompareOptions(**QUICK)).explained[0].faithful
    np.testing.assert_allclose(change["soft"]["change"], change["dense"]["change"], atol=1e-4)


def test_what_cannot_be_measured_is_a_limit():
    networks = {"dense": of_rows(), "other": of_rows(1)}
    layer = Explainer("LayerGradientXActivation", layer="0")
    options = CompareOptions(**{**QUICK, "explainers": [layer, "Occlusion"]})
    record = compare_networks(networks, rows(), options)
    assert record.explained[0].faithful == {}
    assert record.explained[1].faithful
    limits = limits_of(record, facts_of(record), 0)
    assert [one for one in limits if "could not be measured" in one and layer.name in one]
    assert summary(record)["explainers"][0]["faithful"] is None


def test_it_can_be_left_out():
    networks = {"dense": of_rows(), "other": of_rows(1)}
    record = compare_networks(networks, rows(), CompareOptions(**QUICK, faithfulness=False))
    assert record.explained[0].faithful == {}
    assert any("was not measured" in one for one in limits_of(record, facts_of(record), 0))
    with pytest.raises(ValueError, match="faithfulness expected"):
        CompareOptions(faithfulness="yes")


def test_few_samples_do_not_tell():
    record = compare_networks({"dense": of_rows(), "same": of_rows()}, rows(20), CompareOptions(**QUICK))
    assert "too few to read the two" in summary(record)["explainers"][0]["faithful"]["reading"]


@pytest.mark.parametrize(
    ("inputs", "passes"),
    [
        (torch.zeros(1, 3, 28, 28), 49),
        (torch.zeros(1, 3, 224, 224), 49),
        (torch.zeros(1, 1, 8, 8), 16),
        (torch.zeros(1, 2, 70), 7),
        (torch.zeros(1, 30), 30),
        (torch.zeros(1, 200, dtype=torch.int64), 50),
        ((torch.zeros(1, 10), torch.zeros(1, 20)), 30),
    ],
)
def test_it_takes_no_more_passes_than_occlusion(inputs, passes):
    steps, orders = plan(inputs)
    assert (steps, orders) in PLANS
    own = (steps - 1) * (2 + orders)
    assert own <= passes + 2 or (steps, orders) == PLANS[-1]
    assert own <= 12 or own >= 0.6 * passes
