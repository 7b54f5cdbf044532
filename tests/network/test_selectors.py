"""Functions that pick inputs, logits and labels."""

from weakref import ref

import pytest
import torch
from torch import nn

from lit_xai.network.selectors import ComputedInputs, InputsInBatch, InputsOfStep, LabelsAt
from lit_xai.network.step_view import StepCall


def batch():
    return {"image": torch.randn(3, 4), "more": (torch.arange(3), "a")}


def test_labels_are_picked_by_path():
    own = batch()
    assert LabelsAt("more.0")(own) is own["more"][0]
    assert LabelsAt("more.9")(own) is None


def test_inputs_take_the_form_of_a_call():
    own = batch()
    one = InputsInBatch(((torch.zeros(0),), {}), {"0.0": "image"})
    assert one(own) is own["image"]
    two = InputsInBatch(((), {"x": torch.zeros(0), "flag": True}), {"1.x": "image"})
    assert two(own) == {"x": own["image"], "flag": True}
    with pytest.raises(ValueError, match=r"a batch expected a tensor at 'image', but it has \['other'\]"):
        one({"other": torch.zeros(1)})


def test_computed_inputs_run_the_step_up_to_the_call():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

        def step(self, own):
            own["image"].mul_(2)
            self.net(own["image"] + 1)
            raise AssertionError("too far")

    module, own = Module(), batch()
    before = own["image"].clone()
    found = ComputedInputs(ref(module), lambda owner, given: owner.step(given), "net")(own)
    torch.testing.assert_close(found, 2 * before + 1)
    assert torch.equal(own["image"], before)
    with pytest.raises(ValueError, match="expected to call 'other', but it does not"):
        ComputedInputs(ref(module), lambda owner, given: None, "other")(own)


def test_inputs_of_a_step_have_keywords_without_dots():
    own = batch()
    step = StepCall(lambda owner, given: None, ("a", "b"), (1,), ("image", "more.0"))
    found = InputsOfStep(step)(own)
    assert list(found) == ["held", "image", "more_0"]
    assert found["more_0"] is own["more"][0]
