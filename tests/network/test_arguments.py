"""A call that took place can be repeated from its inputs, whatever its shape."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from torch import Tensor, nn

from lit_xai.network.arguments import Arguments, inputs_of_call, named_leaves
from lit_xai.network.calling import call_network, check_call, find_inputs
from lit_xai.network.describing import describe
from lit_xai.network.trees import leaves, with_tensors

X = torch.arange(6.0).reshape(2, 3)


@dataclass
class Batch:
    image: Any
    mask: Any = None


# Each returns what it was called with.
SIGNATURES = [
    lambda x: (x,),
    lambda x, y=None: (x, y),
    lambda x, y, z=3: (x, y, z),
    lambda *rest: rest,
    lambda x, *rest: (x, rest),
    lambda x, /, y=None: (x, y),
    lambda x, *, mask=None, flag=False: (x, mask, flag),
    lambda x=None, /, **more: (x, more),
    lambda **more: more,
    lambda x=None, *rest, mask=None, **more: (x, rest, mask, more),
    lambda batch: (batch,),
    lambda: (),
]
VALUES = st.sampled_from(
    [X, X + 1, None, "sum", 3, True, {"x": X, "y": X}, [X, X], (X, X, X), Batch(X, X), {"x": X}, {}, []]
)


class Recorder(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        # A signature that belongs to the module: what forward inspects is the user's function.
        self.function, self.seen = function, []
        self.forward = self._recording(function)  # type: ignore[method-assign]  # of any signature

    def _recording(self, function: Any) -> Any:
        import functools

        @functools.wraps(function)
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            self.seen.append(repr(function(*args, **kwargs)))
            return X

        return forward


@given(
    st.sampled_from(SIGNATURES),
    st.lists(VALUES, max_size=3),
    st.dictionaries(st.sampled_from(["x", "y", "z", "mask", "flag", "batch", "other"]), VALUES, max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_a_call_that_took_place_is_repeated(function: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    network = Recorder(function)
    try:
        network(*args, **kwargs)
    except TypeError:
        return  # the function does not take these
    inputs = inputs_of_call(tuple(args), kwargs)
    call_network(network, inputs)
    assert network.seen[0] == network.seen[1]
    # And with other tensors in their places.
    call_network(network, with_tensors(inputs, [tensor for _, tensor in leaves(inputs)]))
    assert network.seen[0] == network.seen[2]
    assert len(dict(named_leaves(inputs))) == network.seen[0].count("tensor(") == len(list(leaves(inputs)))


@pytest.mark.parametrize(
    ("args", "kwargs", "form"),
    [
        ((X,), {}, Tensor),
        ((X, None), {}, tuple),
        (({"x": X},), {}, tuple),
        ((), {"x": X}, dict),
        ((X,), {"flag": True}, Arguments),
        ((None,), {}, tuple),
    ],
)
def test_the_simplest_form(args, kwargs, form):
    assert isinstance(inputs_of_call(args, kwargs), form)


def test_names():
    inputs = Arguments((Batch(X, X.bool()), [X]), {"mask": X, "flag": True, "more": {"a": X}})
    assert [name for name, _ in named_leaves(inputs)] == ["0.image", "0.mask", "1.0", "mask", "more.a"]
    # The order is that of the tree, so that one can be rebuilt from the other.
    pairs = zip(named_leaves(inputs), leaves(inputs), strict=True)
    assert all(a is b for (_, a), (_, b) in pairs)


def test_described_like_a_call():
    assert describe(Arguments((X, None), {"flag": True})) == "(Tensor[2, 3] float32, NoneType, flag: bool)"
    assert describe(Batch(X)) == "Batch(image: Tensor[2, 3] float32)"
    assert describe((Batch(X), 3)) == "tuple(Batch(image: Tensor[2, 3] float32), int)"
    assert describe(Batch(None)) == "Batch"


def test_a_call_that_fails_is_one_sentence():
    with refused("Linear.forward cannot be called with (Tensor[2, 3] float32, flag: bool)", "'flag'"):
        check_call(nn.Linear(3, 2), Arguments((X,), {"flag": True}))


def test_an_object_in_a_batch_is_one_argument():
    batch = {"graph": Batch(X), "label": X}
    (found,) = find_inputs(batch, nn.Linear(3, 2), "graph")
    assert found is batch["graph"]
    made = find_inputs(batch, nn.Linear(3, 2), lambda batch: Arguments((batch["label"],), {"flag": 1}))
    assert made.args[0] is X
    with refused("batch_to_inputs='graph' expected to give tensors, but got Batch"):
        find_inputs({"graph": Batch(None)}, nn.Linear(3, 2), "graph")
