"""The origins of tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_xai.network.tracking import Tracking


def tracked(work, **leaves):
    layer = nn.Linear(4, 3)
    with Tracking(leaves, layer.parameters()) as tracking:
        result = work(layer, **leaves)
    return tracking, tracking.origin(result)


SAME = {
    "cast": lambda y: y.float(),
    "view": lambda y: y.view(2, 4).T,
    "selection": lambda y: y[torch.tensor([3, 1, 1])],
    "mask": lambda y: y[y > 1],
    "one_hot": lambda y: F.one_hot(y, 5),
    "stack": lambda y: torch.stack([y[:4], y[4:]]),
    "in place": lambda y: torch.zeros(8, dtype=torch.long).copy_(y),
    "scatter": lambda y: torch.zeros(8, 5).scatter_(1, y[:, None], 1.0),
    "unit": lambda y: (y.float() - 2.5) / 10,
    "ignored": lambda y: torch.where(y > 2, torch.full_like(y, -100), y),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_cast_viewed_or_selected_is_still_the_leaf(name):
    _, origin = tracked(lambda layer, y: SAME[name](y), y=torch.arange(8) % 5)
    assert origin.leaves == {"y"}
    assert (origin.leaf == "y") == (name != "ignored")  # a choice between a constant and the leaf is computed


OTHER = {
    "mixed": lambda y, z: 0.3 * y + 0.7 * z,
    "mixed with itself": lambda y, z: 0.3 * y + 0.7 * y.flip(0),
    "squared": lambda y, z: y * y,
    "function": lambda y, z: y.sin(),
    "joined": lambda y, z: torch.cat([y, z]),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_computed_is_no_leaf_any_more(name):
    _, origin = tracked(lambda layer, y, z: OTHER[name](y, z), y=torch.randn(8), z=torch.randn(8))
    assert origin.leaf is None
    assert origin.leaves


def test_an_answer_meets_a_leaf_in_losses_and_metrics():
    def work(layer, x, y, weight):
        scores = layer(x)
        _ = (scores.argmax(1) == y).float().mean()
        return (F.cross_entropy(scores, y, reduction="none") * weight).mean()

    leaves = {"x": torch.randn(5, 4), "y": torch.arange(5) % 3, "weight": torch.rand(5)}
    tracking, loss = tracked(work, **leaves)
    assert [contact.leaf for contact in tracking.contacts] == ["y", "y", "weight"]
    metric, own, weight = tracking.contacts
    assert not metric.answer.contacts
    assert not own.answer.contacts
    assert weight.answer.contacts == {1}
    assert loss.contacts == {1, 2}
    assert own.is_integer
    assert not weight.is_integer


def test_a_mask_inside_of_a_network_is_told_from_labels():
    second = nn.Linear(3, 3)

    def work(layer, x, mask):
        return second(layer(x) * mask)

    leaves = {"x": torch.randn(5, 4), "mask": torch.ones(5, 3)}
    layer = nn.Linear(4, 3)
    with Tracking(leaves, [*layer.parameters(), *second.parameters()]) as tracking:
        work(layer, **leaves)
    assert [contact.leaf for contact in tracking.contacts] == ["mask"]
    assert tracking.inner == {0}


def test_constants_and_parameters_come_from_no_leaf():
    _, origin = tracked(lambda layer, x: torch.arange(3) * 2, x=torch.randn(2))
    assert not origin.leaves
    assert not origin.is_weighted
    _, origin = tracked(lambda layer, x: layer.weight.square().sum(), x=torch.randn(2))
    assert origin.is_parameter
    assert not origin.is_answer


def test_memory_that_is_used_again_is_not_mistaken():
    def work(layer, x):
        for _ in range(50):
            _ = (x * 2).sum()
        return torch.zeros(4)

    _, origin = tracked(work, x=torch.randn(4))
    assert not origin.leaves
