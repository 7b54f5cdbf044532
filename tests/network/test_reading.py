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


def test_an_input_that_is_handed_on_is_not_the_logits():
    class HandsOn(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return F.pad(x, (0, 0)), self.a(x)

    torch.manual_seed(0)
    module, told, batch = nn.ModuleDict({"net": HandsOn()}), Told(), {"x": torch.randn(5, 4)}

    def run(own):
        given, made = module["net"](own["x"])
        told.losses.append(F.mse_loss(made, given))

    found = read(observe(module, batch, run, parts_with_weights(module), told))
    assert (found.logits, found.outputs) == ("1", ("1",))


def test_parts_beside_the_network_are_named_with_what_takes_their_results():
    def step(m, b):
        with torch.no_grad():
            goal = m.b(m.a(b["z"]))
        return F.mse_loss(m.b(m.a(b["x"])), goal)

    def other(m, b):
        with torch.no_grad():
            goal = m.b(b["z"])
        return F.mse_loss(m.a(b["x"]), goal)

    assert reading(step).others == {"a": ("b",), "b": ()}
    assert reading(other).others == {"b": ()}
    assert set(reading(other).untaught) == {"b.weight", "b.bias", "c.weight", "c.bias"}


class Wrapped(nn.Module):
    """Returns something made of its answer and its input."""

    def __init__(self, result):
        super().__init__()
        self.lin, self.result = nn.Linear(4, 3), result

    def forward(self, x):
        return self.result(self.lin(x), x)


def wrapped(result):
    def step(m, b):
        out = m.a(b["x"])
        out["loss"] = F.cross_entropy(out["scores"], b["y"]) if "scores" in out else out["cost"]
        return out["loss"] + 0 * sum(value.sum() for key, value in out.items() if key != "loss")

    torch.manual_seed(0)
    module, told = Parts(), Told()
    module.a = Wrapped(result)
    batch = {"x": torch.randn(5, 4), "y": torch.arange(5) % 3}
    return observe(module, batch, lambda own: told.losses.append(step(module, own)), parts_with_weights(module), told)


def test_logits_are_what_learns_not_what_was_given_or_chosen():
    record = wrapped(lambda scores, x: {"x": 2 * x, "chosen": x[:, 0] * scores.argmax(1), "scores": scores})
    assert "loss" not in record.calls[0].result  # which the step added later
    assert read(record).logits == "scores"


def test_a_loss_beside_what_was_given_is_refused():
    record = wrapped(lambda scores, x: {"x": 2 * x, "cost": scores.logsumexp(1).mean()})
    with pytest.raises(AmbiguousError, match="what 'a' returns is a loss beside what it was given, without logits"):
        read(record)


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
