"""The logits in every usual form of output; what is ambiguous is refused with the candidates."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from refusals import refused
from torch import Tensor

from lit_xai.network.outputs import find_logits, locate_logits, place_in_scales

X, OTHER, IDS = torch.rand(4, 5), torch.rand(4, 3), torch.ones(4, 2, dtype=torch.int64)
MAPS = [torch.rand(2, 5, 4, 6), torch.rand(2, 5, 2, 3)]


@dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None


@pytest.mark.parametrize(
    ("result", "output", "parts"),
    [
        ({"scores": X}, "score", ["No logits were found at output='score'", "scores: Tensor[4, 5]"]),
        ((X,), 3, ["at output=3"]),
        ((X,), -2, ["at output=-2"]),
        (((X, X), X), None, ["No logits"]),
        (X, "no.such", ["output", "'no.such'"]),
        ({"logits": None}, None, ["No logits"]),
        (X, lambda found: "a", ["No logits"]),
        # Heads beside what is none, of which each may be the answer.
        ({"a": X, "b": OTHER, "indices": IDS}, None, ["No logits", "one of 'a', 'b'"]),
        ({"a": X, "b": OTHER[:2]}, None, ["one of 'a', 'b'"]),
        ([{"boxes": X, "scores": X[:, 0], "labels": IDS}], None, ["detections", "cannot be differentiated", "module="]),
    ],
)
def test_refused(result, output, parts):
    with refused(*parts):
        find_logits(result, output)


@pytest.mark.parametrize(
    "result",
    [
        X,
        (X, OTHER),
        {"logits": X, "aux": OTHER},
        {"aux": OTHER, "out": X},
        {"pred_logits": X, "pred_boxes": torch.rand(4, 4)},
        {"scores": X},
        {"features": OTHER, "class": X},
        {"loss": torch.ones(()), "answer": X, "last_hidden_state": OTHER},
        Answer(X),
        namedtuple("Pair", "logits other")(X, OTHER),
        namedtuple("Pair", "other pred_logits")(OTHER, X),
    ],
)
def test_found(result):
    assert locate_logits(result) == (X, "", ())


def test_the_first_of_several_heads_is_named():
    found = locate_logits({"age": X, "place": OTHER, "loss": torch.ones(())})
    assert found.logits is X
    assert found.head == "age"
    assert locate_logits({"age": X, "place": OTHER}, "place") == (OTHER, "", ())


def test_places_of_all_scales_are_beside_each_other():
    found = locate_logits(MAPS)
    assert found.logits.shape == (2, 5, 30)
    assert found.scales == ((4, 6), (2, 3))
    assert torch.equal(found.logits[:, :, 9], MAPS[0][:, :, 1, 3])
    assert torch.equal(found.logits[:, :, 28], MAPS[1][:, :, 1, 1])
    assert [place_in_scales(found.scales, place) for place in (9, 28)] == [(0, 9), (1, 4)]
    assert torch.equal(find_logits({"maps": MAPS}, "maps"), found.logits)
    with pytest.raises(IndexError):
        place_in_scales(found.scales, 30)


@pytest.mark.parametrize(
    "features", [[torch.rand(2, 5, 4, 4), torch.rand(2, 8, 2, 2)], [torch.rand(2, 5, 4, 4), torch.rand(2, 5, 4, 4)]]
)
def test_the_first_of_maps_that_are_no_scales_of_one_thing(features):
    assert find_logits(features) is features[0]


def test_transformers_output():
    from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

    assert find_logits(SequenceClassifierOutput(loss=torch.ones(()), logits=X)) is X
    assert find_logits(BaseModelOutput(last_hidden_state=X), "last_hidden_state") is X
    with refused("No logits"):
        find_logits(BaseModelOutput(last_hidden_state=X))
