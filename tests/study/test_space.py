"""The values of options, and the cells of a grid."""

import itertools

import pytest

from lit_xai.study.space import Choices, Range, as_grid, cells, read_space


def test_cells_are_the_product_of_all_values():
    search = read_space({"a": [1, 2, 3], "b": ["x", None], "c": [True, 0.5]})
    grid = [tuple(one.values()) for one in cells(search)]
    assert grid == list(itertools.product([1, 2, 3], ["x", None], [True, 0.5]))


def test_values_that_optuna_cannot_hold_come_back():
    values = [["pruning"], [], {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}]
    (one,) = read_space({"a": values}).values()
    assert all(isinstance(stored, str) for stored in one.stored)
    assert [one.value(stored) for stored in one.stored] == values


@pytest.mark.parametrize("stored", [True, 2, "1", 1.0, None, '{"class_path": "os.system"}'])
def test_what_a_storage_holds_is_believed_only_if_it_was_asked_for(stored):
    with pytest.raises(ValueError, match="the storage holds"):
        Choices((1, "a")).value(stored)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"a": []}, "expected a list of values"),
        ({"a": 3}, "expected a list of values"),
        ({"a": [1, 1]}, "expected values that differ"),
        ({"a": [float("nan")]}, "expected finite numbers"),
        ({"a": {"low": 2, "high": 1}}, "the lower number first"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "low above 0"),
        ({"a": {"low": 0, "high": 1, "step": 0}}, "a step above 0"),
        ({"a": {"low": 0, "high": 1, "lgo": True}}, "or 'log'?"),
    ],
)
def test_what_is_no_space(given, sentence):
    with pytest.raises(ValueError, match="search") as error:
        read_space(given)
    assert sentence in str(error.value)


def test_a_grid_of_too_many_cells_is_refused():
    with pytest.raises(ValueError, match="at most 10,000 values"):
        as_grid("a", Range(0, 10**9))
    with pytest.raises(ValueError, match="at most 10,000 cells"):
        cells({name: Choices(tuple(range(200))) for name in "abc"})
