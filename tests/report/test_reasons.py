"""Tests of reason codes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.reasons import Groups, LogOdds, changed_reasons

numbers = st.integers(-50, 50)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_without_noise_it_is_the_sets_and_orders_themselves(data):
    features, k = data.draw(st.integers(2, 7)), data.draw(st.integers(1, 4))
    rows = [data.draw(st.lists(numbers, min_size=features, max_size=features, unique=True)) for _ in range(2)]
    tops = [[i for i in sorted(range(features), key=lambda i, r=row: -r[i])[:k] if row[i] > 0] for row in rows]
    in_set, in_order = changed_reasons(*(np.array([row], dtype=float) for row in rows), k=k)
    # A feature at exactly 0 or no reason at all is none.
    assert bool(in_set[0]) == (set(tops[0]) != set(tops[1]))
    shared = [[i for i in top if i in tops[0] and i in tops[1]] for top in tops]
    assert bool(in_order[0]) == (shared[0] != shared[1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8), st.integers(0, 99))
def test_what_moves_by_less_than_half_the_noise_changes_nothing(row, seed):
    before = np.array([row])
    after = before + np.random.default_rng(seed).uniform(-0.049, 0.049, before.shape)
    in_set, in_order = changed_reasons(before, after, noise=0.1)
    assert not in_set[0]
    assert not in_order[0]


def test_a_one_hot_group_is_one_feature():
    groups = Groups.of(5, ["age", "red", "green", "blue", "income"], {"color": ["red", "green", 3]})
    assert groups.names == ("age", "color", "income")
    np.testing.assert_array_equal(groups.sums(np.arange(5.0)[None]), [[0, 6, 4]])
    with pytest.raises(ValueError, match="feature_groups expected each of 5 columns in one group at most, but got 'x'"):
        Groups.of(5, None, {"color": ["x"]})


def test_groups_may_be_the_feature_of_each_column():
    owners = ["age", "color", "color", "color", "income"]
    groups = Groups.of(5, ["age", "red", "green", "blue", "income"], owners)
    assert groups.names == ("age", "color", "income")
    assert groups.member.tolist() == [0, 1, 1, 1, 2]
    with pytest.raises(ValueError, match="feature_groups expected 4 names, the feature of each column, but got 5"):
        Groups.of(4, None, owners)


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
