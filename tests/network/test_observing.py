"""A step that is observed."""

import torch
import torch.nn.functional as F
from torch import nn

from lit_xai.network.observing import Told, by_name, observe, observed_writing, parts_with_weights


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head, self.idle = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2), nn.Dropout()

    def step(self, batch):
        return F.cross_entropy(self.head(self.idle(self.body(batch["x"]))), batch["y"])


def batch():
    return {"x": torch.randn(5, 4), "y": torch.arange(5) % 2}


def observed(module, step, own):
    told = Told()
    return observe(module, own, lambda given: told.losses.append(step(given)), parts_with_weights(module), told)


def test_outermost_calls_are_recorded_with_what_feeds_them():
    module, own = Parts(), batch()
    record = observed(module, module.step, own)
    assert [call.name for call in record.calls] == ["body", "head"]
    body, head = record.calls
    assert not body.feeds
    assert head.feeds == set(body.answers.values())
    assert head.made_of[""] == {"x"}
    assert record.losses[0].answers == {0, 1}
    assert record.error is None


def test_a_batch_that_a_step_writes_to_stays_as_it_is():
    module, own = Parts(), batch()
    before = own["x"].clone()

    def step(given):
        given["x"].zero_()
        return module.step(given)

    observed(module, step, own)
    assert torch.equal(own["x"], before)
    assert not any("_compiled_call_impl" in vars(part) for part in module.modules())


def test_what_comes_before_an_error_is_kept():
    module = Parts()

    def step(given):
        module.body(given["x"])
        raise RuntimeError("on purpose")

    record = observed(module, step, batch())
    assert [call.name for call in record.calls] == ["body"]
    assert str(record.error) == "on purpose"


def test_what_learns_is_what_the_loss_has_a_gradient_for():
    class Chained(Parts):
        def step(self, batch):
            goal = self.head(self.body(batch["x"])).detach()
            return F.mse_loss(self.body(batch["x"])[:, :2], goal)

    module = Chained()
    record = observed(module, module.step, batch())
    assert [(call.name, call.learns) for call in record.calls] == [("body", False), ("head", False), ("body", True)]
    assert record.untaught == ("head.weight", "head.bias")
    ended = observed(module, lambda own: module.body(own["x"]).detach(), batch())
    assert ended.untaught == ()  # nothing is known of a step without a loss


def test_what_is_written_to_after_a_step_is_added():
    module = Parts()
    record = observed(module, module.step, batch())
    assert record.written == ()
    with observed_writing(module, record):
        module.head.bias.data = module.head.bias.data + 1
        module.body[0].weight.data.mul_(0.5)
    assert set(record.written) == {"head.bias", "body.0.weight"}


def test_arguments_get_names_where_there_are_several():
    def function(x, y=None, *, flag=False):
        return x

    assert by_name(function, (1,), {}) == ((1,), {})
    assert by_name(function, (1, 2), {}) == ((), {"x": 1, "y": 2})
    assert by_name(function, (1,), {"flag": True}) == ((), {"x": 1, "flag": True})
    assert by_name(lambda *args: None, (1, 2), {}) == ((1, 2), {})
    assert by_name(function, (1, 2, 3), {}) == ((1, 2, 3), {})  # the call says what is wrong with it


def test_parts_that_cannot_be_called_or_have_no_weights_are_none():
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ReLU(), "c": nn.ModuleList([nn.Linear(2, 2)])})
    assert list(parts_with_weights(module)) == ["a", "c.0"]
