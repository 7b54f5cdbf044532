"""Steps that stand for networks."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.network.calling import call_network
from lit_xai.network.profiling import count_macs
from lit_xai.network.step_view import StepCall, step_view
from lit_xai.runtime.onnx import export_onnx


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.heads = nn.Linear(4, 3), nn.ModuleDict({"one": nn.Linear(3, 2), "two": nn.Linear(3, 1)})
        self.seen = []

    def step(self, batch):
        hidden = self.body(batch["x"] / 2).relu()
        one = self.heads["one"](hidden)
        assert len(one) == len(batch["y"])
        self.seen.append(one.shape)
        two = self.heads["two"](hidden)
        raise RuntimeError(f"too far: {two.shape}")


BATCH = {"x": torch.randn(5, 4), "y": torch.zeros(5), "name": "a"}


def view_of(module, parts=("body", "heads.one"), ends=(1,)):
    step = StepCall(lambda owner, batch: owner.step(batch), parts, ends, ("x",))
    return step_view(module, step), step.inputs(BATCH)


def expected(module, x):
    return module.heads["one"](module.body(x / 2).relu())


def test_a_view_runs_the_step_up_to_its_result():
    module = Parts()
    view, inputs = view_of(module)
    assert torch.equal(call_network(view, inputs), expected(module, BATCH["x"]))
    assert module.seen == []  # it ends with the last call
    view, inputs = view_of(module, ("body", "heads.one", "heads.two"), (1, 2))
    assert list(view(**inputs)) == ["heads.one", "heads.two"]


def test_it_shares_everything_with_its_module():
    module = Parts()
    view, _ = view_of(module)
    assert dict(view.named_parameters()).keys() == dict(module.named_parameters()).keys()
    view.eval()
    assert not module.training
    module.body = nn.Linear(4, 3)
    assert view.body is module.body
    assert not any("_compiled_call_impl" in vars(part) for part in module.modules())
    assert not isinstance(vars(module).get("body"), object.__class__)


def test_a_copy_is_a_view_of_a_copy():
    module = Parts()
    view, inputs = view_of(module)
    copied = copy.deepcopy(view)
    with torch.no_grad():
        copied.body.weight.zero_()
    assert module.body.weight.any()
    assert torch.equal(call_network(view, inputs), expected(module, BATCH["x"]))
    assert torch.equal(call_network(copied, inputs), expected(copied, BATCH["x"]))


def test_more_samples_than_the_batch_has_get_labels_too():
    module = Parts()
    view, inputs = view_of(module)
    many = torch.randn(12, 4)
    assert torch.equal(call_network(view, {**inputs, "x": many}), expected(module, many))


def test_it_is_counted_and_exported_like_a_network(tmp_path):
    class Flat(Parts):
        """Its last part is an attribute, so that an exporter sees the end of its call."""

        def __init__(self):
            super().__init__()
            self.last = self.heads["one"]
            del self.heads

        def step(self, batch):
            self.last(self.body(batch["x"] / 2).relu())
            raise RuntimeError("too far")

    module = Flat().eval()
    view, inputs = view_of(module, ("body", "last"))
    assert count_macs(view, inputs) == 4 * 3 + 3 * 2
    export_onnx(view, inputs, tmp_path / "model.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [given.name for given in session.get_inputs()] == ["x"]
    x = torch.randn(3, 4)
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module.last(module.body(x / 2).relu()))


def test_a_step_that_ends_early_says_so():
    view, inputs = view_of(Parts(), ("body", "heads.one", "heads.two"), (5,))
    with pytest.raises((ValueError, RuntimeError), match=r"too far|expected to call"):
        view(**inputs)
