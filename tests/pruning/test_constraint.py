"""Limits on weights, against definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_xai.pruning.constraint import as_range, clamp_, limit_norm_, unit_norm_

SHAPES = [(5,), (5, 3), (5, 3, 2), (5, 3, 2, 2)]


def norms(weight, per):
    if per == "tensor":
        return weight.norm()
    return weight.abs() if weight.dim() == 1 else weight.flatten(1).norm(dim=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per", ["unit", "tensor"])
@given(seed=st.integers(0, 999), most=st.floats(0.01, 10))
def test_no_norm_is_larger_and_directions_stay(shape, per, seed, most):
    before = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    after = limit_norm_(before.clone(), most, per)
    assert (norms(after, per) <= most * (1 + 1e-12)).all()
    kept = norms(before, per) <= most
    expected = torch.where(kept, norms(before, per), torch.tensor(most, dtype=torch.float64))
    torch.testing.assert_close(norms(after, per), expected)
    torch.testing.assert_close(unit_norm_(after.clone(), per), unit_norm_(before.clone(), per))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per", ["unit", "tensor"])
def test_unit_norm_is_one_and_zero_stays_zero(shape, per):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norms(unit_norm_(weight, per), per), torch.ones_like(norms(weight, per)))
    assert not unit_norm_(torch.zeros(shape), per).any()


def test_the_same_tensor_is_changed_and_no_graph_is_kept():
    weight = torch.nn.Parameter(torch.full((2, 2), 3.0))
    for change in (lambda w: clamp_(w, -1, 1), unit_norm_, lambda w: limit_norm_(w, 0.5)):
        assert change(weight) is weight
    assert weight.is_leaf
    assert weight.requires_grad


@pytest.mark.parametrize("wrong", [0, -1.0, (1, 1), (2, 1), (1,), (1, 2, 3), "wide", float("nan"), [None, 1]])
def test_ranges_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="clamp expected"):
        as_range(wrong)
