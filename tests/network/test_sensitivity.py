import pytest
import torch
from refusals import refused

from lit_xai.network.sensitivity import SensitivityTable, select_rows

ROWS = {("conv1",): 0, ("conv2", "conv3"): 1, ("fc",): 2}


def table(**options):
    values = torch.tensor([[0.90, 0.88], [0.93, 0.40]], dtype=torch.float64)
    return SensitivityTable((("a",), ("b", "c")), (0.1, 0.5), values, 0.90, **options)


def test_a_drop_is_what_got_worse_whichever_way_is_better():
    assert table().drop.tolist() == [pytest.approx([0.0, 0.02]), pytest.approx([-0.03, 0.5])]
    assert torch.equal(table(higher_is_better=False).drop, -table().drop)


def test_affordable_columns_tolerate_rounding_and_are_those_of_every_coupled_layer():
    assert table().affordable(0.02).tolist() == [[True, True], [True, False]]
    assert dict(table().affordable_columns(0.02)) == {"a": [0.1, 0.5], "b": [0.1], "c": [0.1]}


@pytest.mark.parametrize("wrong", [-0.1, float("nan")])
def test_a_drop_below_zero_is_refused(wrong):
    with refused("max_drop expected a number of at least 0, but got"):
        table().affordable(wrong)


def test_rows_are_selected_by_any_of_their_layers_in_the_order_of_the_network():
    assert select_rows(ROWS, None, "Net", "pruned") == ROWS
    assert list(select_rows(ROWS, ["fc", "conv3"], "Net", "pruned").values()) == [1, 2]


@pytest.mark.parametrize(
    ("rows", "layers", "parts"),
    [
        ({}, None, ["Net has no layer that can be pruned"]),
        (ROWS, [], ["layers expected one or more names of layers, but got none"]),
        (ROWS, ["conv4"], ["layers: 'conv4' is no layer that can be pruned. Did you mean"]),
    ],
)
def test_refusals(rows, layers, parts):
    with refused(*parts):
        select_rows(rows, layers, "Net", "pruned")
