"""Tests of reason codes."""

import pytest
import torch
from torch import nn

from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.reasons import LogOdds


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_log_odds_are_those_of_the_probability(outputs):
    torch.manual_seed(0)
    network, x = nn.Linear(3, outputs), torch.randn(9, 3)
    chances = network(x).sigmoid()[:, 0] if outputs == 1 else network(x).softmax(1)[:, 1]
    found = LogOdds(network, 1, None, lambda one: one)(x)
    torch.testing.assert_close(found, chances.logit(), rtol=1e-4, atol=1e-4)


def table(networks, **options):
    torch.manual_seed(1)
    x = torch.randn(120, 6)
    data = [(x, (x[:, 0] > 0).long())]
    options = {"explainers": ["IntegratedGradients"], "nulls": 0, "rounds": 0, "corruption": False, **options}
    record = compare_networks(networks, data, CompareOptions(**options), class_names=["paid", "denied"])
    found = [one for one in record.facts["tables"] if one.get("section") == "reasons"]
    return found[0] if found else None


def linear(weights):
    network = nn.Linear(6, 2)
    with torch.no_grad():
        network.weight.copy_(torch.stack([torch.zeros(6), torch.tensor(weights)]))
        network.bias.zero_()
    return network


def test_reasons_of_the_same_network_are_the_same_and_those_of_another_are_not():
    dense = linear([5.0, 4.0, 3.0, 2.0, 0.1, 0.1])
    other = linear([0.1, 0.1, 2.0, 3.0, 4.0, 5.0])
    found = table({"dense": dense, "other": other, "same": dense}, adverse_class="denied")
    rows = {row[0]: row[1:] for row in found["rows"]}
    with torch.no_grad():
        torch.manual_seed(1)
        x = torch.randn(120, 6)
        adverse = [one(x).argmax(1) == 1 for one in (dense, other)]
    assert rows["same"][0] == str(int(adverse[0].sum()))
    assert rows["other"][0] == str(int((adverse[0] & adverse[1]).sum()))
    assert rows["same"][1].startswith("0")
    assert float(rows["other"][1].split()[0]) > 0.2
    assert set(rows) == {"other", "same", "dense with weights of 8 bits", "the explainer run again"}
    assert "reference population" in found["note"]


def test_reasons_take_a_class_and_rows():
    networks = {"a": linear([1.0] * 6), "b": linear([1.0] * 6)}
    assert table(networks) is None
    with pytest.raises(ValueError, match="adverse_class expected the name of a class, but got 'deined'"):
        table(networks, adverse_class="deined")
