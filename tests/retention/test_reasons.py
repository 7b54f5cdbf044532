"""Reason codes: what counts as another reason, and the share that a run logs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_xai.retention.figures import BothMaps
from lit_xai.retention.reasons import Groups, changed_reasons, reasons_changed

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


def both(before, now, flipped=None, inputs=None):
    n = len(before)
    logits = torch.tensor([[1.0, 0.0]] * n)
    swapped = torch.zeros(n, dtype=torch.bool) if flipped is None else torch.tensor(flipped)
    present = torch.where(swapped[:, None], logits.flip(1), logits)
    inputs = torch.zeros(before.shape) if inputs is None else inputs
    return BothMaps(inputs, {"x": before}, {"x": now}, torch.ones(n), logits, present, torch.zeros(n, dtype=torch.long))


def test_the_share_is_of_samples_with_the_same_prediction():
    before = torch.eye(6)[:3].repeat(1, 1) + torch.arange(6.0, 0, -1) / 100
    now = before.clone()
    now[0, :4] = -1  # its reasons are others now
    assert reasons_changed(both(before, now)) == pytest.approx(1 / 3)
    assert reasons_changed(both(before, now, [True, False, False])) == 0
    assert reasons_changed(both(before, now, [False, True, True])) == 1
    assert reasons_changed(both(before, now, [True, True, True])) is None


def test_columns_of_a_category_are_one_reason():
    before = torch.tensor([[5.0, 4, 3, 2, 1, 0, 0, 0]])
    now = torch.tensor([[5.0, 4, 3, 0, 1, 0, 0, 2]])  # the fourth column's part went to the last
    assert reasons_changed(both(before, now)) == 1
    groups = ["a", "b", "c", "job", "e", "f", "g", "job"]
    assert reasons_changed(both(before, now), groups) == 0
    assert reasons_changed(both(before, now), {"job": [3, 7]}) == 0


@pytest.mark.parametrize(
    "inputs", [torch.zeros(2, 4), torch.zeros(2, 6, dtype=torch.long), torch.zeros(2, 6, 2), torch.zeros(2, 7)]
)
def test_there_is_none_without_a_table_of_more_features_than_reasons(inputs):
    maps = torch.ones(2, min(6, inputs.shape[1]))
    assert reasons_changed(both(maps, maps, inputs=inputs)) is None
