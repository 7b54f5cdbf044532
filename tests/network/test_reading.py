"""What a record of a step says; tests/trainer/test_watching.py reads the steps of whole modules."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_xai.network.observing import Told, observe, parts_with_weights
from lit_xai.network.reading import AmbiguousError, UnwatchableError, describe_paths, read


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)


def reading(step, manual=0):
    torch.manual_seed(0)
    module, told = Parts(), Told()
    batch = {"x": torch.randn(5, 4), "z": torch.randn(5, 4), "y": torch.arange(5) % 3, "w": torch.arange(5) % 3}

    def run(own):
        losses = step(module, own)
        told.losses.extend(losses if isinstance(losses, list) else [losses])
        told.backward = manual

    return read(observe(module, batch, run, parts_with_weights(module), told))


def test_a_chain_of_parts_is_one_network():
    found = reading(lambda m, b: F.cross_entropy(m.c(m.b(m.a(b["x"]).relu())), b["y"]))
    assert (found.parts, found.ends, found.data, found.label) == (("a", "b", "c"), (2,), ("x",), "y")
    assert found.is_step


def test_a_part_whose_result_is_thrown_away_is_none_of_it():
    def step(m, b):
        m.a(b["x"])
        return F.cross_entropy(m.c(b["x"]), b["y"])

    assert reading(step).parts == ("c",)


def test_heads_of_one_trunk_belong_together():
    def step(m, b):
        hidden = m.a(b["x"])
        return F.cross_entropy(m.c(hidden), b["y"]) + F.mse_loss(m.b(hidden), b["z"])

    found = reading(step)
    assert (found.parts, found.ends) == (("a", "c", "b"), (1, 2))
    assert found.logits == "c"
    assert found.outputs == ("c", "b")


def test_networks_side_by_side_are_named():
    with pytest.raises(AmbiguousError, match="'a' and 'b', which do not continue from each other"):
        reading(lambda m, b: (m.a(b["x"]) * m.b(b["z"])).mean())


def test_of_opponents_the_one_that_takes_the_data_is_meant_or_both_are_named():
    def step(m, b):
        made = m.a(torch.randn(5, 4))
        return [m.b(made).mean(), m.b(b["x"]).mean() - m.b(made.detach()).mean()]

    assert reading(step, manual=2).parts == ("b",)
    with pytest.raises(AmbiguousError, match="trains 'a' and 'b' by 2 losses in turn"):
        reading(lambda m, b: [m.a(b["x"]).mean(), m.b(b["z"]).mean()], manual=2)


def test_two_leaves_that_may_be_labels_are_candidates():
    def step(m, b):
        scores = m.c(b["x"])
        return F.cross_entropy(scores, b["y"]) + F.cross_entropy(scores, b["w"])

    found = reading(step)
    assert found.label is None
    assert found.candidates == ("y", "w")


def test_a_step_that_calls_nothing_says_why():
    def step(m, b):
        raise KeyError("image")

    with pytest.raises(UnwatchableError, match=r"no part with weights. It ended with KeyError: 'image'"):
        reading(step)


def test_paths_in_words():
    assert describe_paths([""]) == "the batch"
