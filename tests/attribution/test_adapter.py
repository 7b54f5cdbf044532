"""The arguments of a call are split and put together again."""

import pytest
import torch
from networks import Tokens, TwoInputs, mlp
from refusals import refused
from torch import nn

from lit_xai.attribution.adapter import Forward, SplitInputs, check_logits

FLOATS, IDS, CONSTANT = torch.randn(6, 5), torch.arange(6), torch.arange(3)


@pytest.mark.parametrize(
    ("inputs", "any_dtype", "explained", "along"),
    [
        (FLOATS, False, [0], []),
        (IDS, False, [], []),
        (IDS, True, [0], []),
        ((IDS, FLOATS), True, [1], [0]),
        ((IDS, IDS), True, [0], [1]),
        ((FLOATS, CONSTANT, IDS), False, [0], [2]),
        ({"ids": IDS, "x": FLOATS, "none": None, "flag": True, "zero": torch.tensor(1.0)}, False, [1], [0]),
        # Places among the tensors.
        ((None, "a", FLOATS, IDS.bool(), 3), False, [0], [1]),
    ],
)
def test_taken_apart(inputs, any_dtype, explained, along):
    found = SplitInputs(inputs, any_dtype)
    assert (found.explained, found.along) == (explained, along)
    assert found.n == (6 if explained else 0)


def test_rows_cut_what_belongs_to_samples():
    inputs = {"x": FLOATS, "ids": IDS, "table": CONSTANT, "scale": torch.tensor(2.0), "mode": "sum"}
    arguments = SplitInputs(inputs)
    rows = arguments.rebuild(arguments.rows(slice(4, 8)))
    assert list(rows) == list(inputs)
    assert [len(rows[key]) for key in ("x", "ids", "table", "mode")] == [2, 2, 3, 3]
    assert torch.equal(rows["ids"], IDS[4:])
    assert rows["scale"] == 2


def test_whole_is_rebuilt_as_it_was():
    for inputs in (FLOATS, (FLOATS, None, IDS), {"a": FLOATS, "b": "c"}):
        arguments = SplitInputs(inputs)
        found = arguments.rebuild(arguments.values)
        assert type(found) is type(inputs)
    with torch.inference_mode():
        made = torch.ones(2, 3)
    copied = SplitInputs(made).values[0]
    assert not copied.is_inference()
    assert copied.data_ptr() != made.data_ptr()


def test_shaped_like_the_inputs():
    maps = (torch.ones(6, 5),)
    assert SplitInputs(FLOATS).shaped(maps) is maps[0]
    assert SplitInputs((IDS, FLOATS)).shaped(maps) == (None, maps[0])
    assert SplitInputs({"ids": IDS, "x": FLOATS}).shaped(maps) == {"x": maps[0]}


def test_like_inputs():
    pair = SplitInputs((FLOATS, IDS, FLOATS))
    assert pair.like_inputs((1, 2, 3), "baselines") == (1, 3)
    assert pair.like_inputs([1, 3], "baselines") == (1, 3)
    assert pair.like_inputs({0: 1, 2: 3}, "baselines") == (1, 3)
    assert pair.like_inputs(7, "baselines") == (7, 7)
    assert pair.like_inputs(None, "baselines") is None
    with refused("feature_mask expected one part for each explained input (0, 2)", "Tensor[6, 5]"):
        pair.like_inputs(FLOATS, "feature_mask")


def test_forward_goes_in_pieces_only_without_gradients():
    network, sizes = mlp(), []
    network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    forward = Forward(network, SplitInputs(FLOATS), at_most=4)
    with torch.no_grad():
        found = forward(FLOATS)
    assert sizes == [4, 2]
    sizes.clear()
    torch.testing.assert_close(forward(FLOATS), found, atol=1e-6, rtol=1e-5)
    assert sizes == [6]


def test_forward_puts_constants_and_what_goes_along_in_place():
    inputs = {"left": FLOATS, "group": IDS, "right": FLOATS[:, :4], "mode": "half"}
    forward = Forward(TwoInputs(), SplitInputs(inputs))
    assert torch.equal(forward(FLOATS, FLOATS[:, :4], IDS), TwoInputs()(**inputs))


def test_forward_without_target_is_flat():
    forward = Forward(nn.Linear(5, 1), SplitInputs(FLOATS), flat=True)
    assert forward(FLOATS).shape == (6,)


def test_forward_checks_once():
    calls = []
    forward = Forward(mlp(), SplitInputs(FLOATS), check=lambda logits, rows: calls.append((tuple(logits.shape), rows)))
    forward(FLOATS)
    forward(FLOATS)
    assert calls == [((6, 3), 6)]


def test_forward_that_cannot_be_differentiated():
    tokens = torch.ones(2, 3, dtype=torch.int64)
    frozen = Tokens().requires_grad_(False)
    forward = Forward(frozen, SplitInputs(tokens, any_dtype=True), differentiated=True)
    with refused("Tokens's output cannot be differentiated", "FeatureAblation"):
        forward(tokens)
    with torch.no_grad():
        assert forward(tokens).shape == (2, 3)


@pytest.mark.parametrize("shape", [(6, 3, 1), (), (5, 3), (5,)])
def test_logits_refused(shape):
    with refused("one row of logits per sample", str(shape), "for 6"):
        check_logits(torch.zeros(shape), 6)
