"""Values of files against types: strict, of any size and depth, and refused in one line."""

import time
from typing import Annotated, Any, NotRequired

import pytest
import torch
from torch import Tensor

from lit_xai.structure.schema import (
    Indices,
    ListOf,
    NonNegative,
    Positive,
    Row,
    TensorOf,
    Weights,
    check_schema,
    entries,
    shown,
)

ROWS = Annotated[list[Any], ListOf(Annotated[Any, Row((str, NonNegative, Positive, Indices))])]
SCHEMA = entries(
    {
        "rows": ROWS,
        "share": NotRequired[float],
        "moment": NotRequired[Annotated[Tensor, TensorOf(torch.float32, (2,), finite=True)]],
        "best": NotRequired[float | None],
        "weights": NotRequired[Weights],
    }
)
GOOD = {"rows": [["a", 0, 4, [0, 3]], ("b", 1, 3, [2])]}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"share": 1},
        {"best": None},
        {"moment": torch.zeros(2)},
        {"weights": {"mask": torch.tensor([-torch.inf, torch.inf]), "n": torch.tensor(3), "none": torch.zeros(0)}},
    ],
)
def test_what_was_written_passes(more):
    check_schema({**GOOD, **more}, SCHEMA, "a file")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "A file expected type dict, but got None."),
        ({}, "A file expected an entry 'rows', but has none."),
        ({**GOOD, "x": 1}, "A file expected no entry 'x', but got 1."),
        ({**GOOD, 3: 4}, "The [3] of a file expected keys of type str, but got 3."),
        ({"rows": (1,)}, "The 'rows' of a file expected type list, but got (1,)."),
        ({"rows": [{"a"}]}, "The 'rows'[0] of a file expected type list, but got {'a'}."),
        ({"rows": [["a", 0, 4]]}, "The 'rows'[0] of a file expected an entry 3, but has none."),
        ({"rows": [["a", 0, 4, [0], 1]]}, "The 'rows'[0] of a file expected at most 4 values, but got"),
        ({"rows": [["a", True, 4, [0]]]}, "The 'rows'[0][1] of a file expected type int, but got True."),
        ({"rows": [["a", 0, 4, [0, 0]]]}, "expected one or more distinct values, but got [0, 0]."),
        ({"rows": [["a", 0, 4, []]]}, "expected one or more distinct values, but got []."),
        ({"rows": [["a", 0, 4, [0, 0.5]]]}, "The 'rows'[0][3][1] of a file expected type int, but got 0.5."),
        ({"rows": [["a", 0, 4, [-1]]]}, "expected a number greater than or equal to 0, but got -1."),
        ({"rows": [["a", 0, 4, [10**6000]]]}, "but got an integer of 19932 bits."),
        ({"rows": nested(50_000)}, "The 'rows'[0][0] of a file expected type str, but got [[[[...]]]]."),
        ({**GOOD, "share": float("nan")}, "The 'share' of a file expected a finite number, but got nan."),
        ({**GOOD, "share": "1"}, "The 'share' of a file expected type float, but got '1'."),
        ({**GOOD, "best": False}, "The 'best' of a file expected type float, but got False."),
        ({**GOOD, "moment": [0.0, 0.0]}, "expected a dense tensor, but got [0.0, 0.0]."),
        ({**GOOD, "moment": torch.zeros(2, dtype=torch.int64)}, "expected a tensor of torch.float32, but got a tensor"),
        ({**GOOD, "moment": torch.zeros(3)}, "expected a tensor of shape (2,), but got a tensor of shape (3,)"),
        ({**GOOD, "moment": torch.full((2,), torch.inf)}, "expected a tensor of finite numbers, but got"),
        ({**GOOD, "moment": torch.zeros(2, device="meta")}, "expected a dense tensor, but got"),
        ({**GOOD, "weights": {"a": torch.eye(2).to_sparse()}}, "The 'weights'['a'] of a file expected a dense tensor"),
        ({**GOOD, "weights": {"a": torch.tensor([1, torch.nan])}}, "expected a tensor without NaN, but got a tensor"),
        ({**GOOD, "share": "x\n" * 500}, "The 'share' of a file expected type float, but got 'x"),
    ],
)
def test_anything_else_is_one_short_line(value, sentence):
    with pytest.raises(ValueError, match="expected") as caught:
        check_schema(value, SCHEMA, "a file", "Take another.")
    message = str(caught.value)
    assert sentence in message
    assert message.endswith(". Take another.")
    assert "\n" not in message
    assert len(message) < 300


def test_a_type_that_is_no_dict():
    check_schema([["a"], []], list[list[str]] | None, "names")
    with pytest.raises(ValueError, match=r"The \[0\]\[0\] of names expected type str, but got 1."):
        check_schema([[1]], list[list[str]], "names")


@pytest.mark.parametrize("value", [[list(range(300_000))], [["x"] * 1_000_000], [1] * 1_000_000])
def test_it_is_cheap_for_many(value):
    """A cut of 60 million parameters holds some 100,000 indices."""
    rows = {"rows": [["a", 0, 10**6, value[0]]] if isinstance(value[0], list) else value}
    start = time.perf_counter()
    try:
        check_schema(rows, SCHEMA, "a file")
    except ValueError:
        assert value[0] != list(range(300_000))
    assert time.perf_counter() - start < 2


def test_values_are_shown_in_short():
    assert shown({"a": [1, 2]}) == "{'a': [1, 2]}"
    assert len(shown({str(i): "y" * 1000 for i in range(1000)})) < 500
