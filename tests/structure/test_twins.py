import copy

import pytest
import torch
from torch import nn

from lit_xai.structure.twins import Twins


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def cut(part):
    kept = [[f"{part}.0.weight", 0, 6, [0, 2]], [f"{part}.0.bias", 0, 6, [0, 2]], [f"{part}.2.weight", 1, 6, [0, 2]]]
    return {"kind": "prune", "kept": kept, "attributes": [[f"{part}.0", "out_features", 6, 2]]}


def cut_parts(step):
    return {name.partition(".")[0] for name, *_ in step["kept"]}, {
        name.partition(".")[0] for name, *_ in step["attributes"]
    }


def watched(trained=("net",), seen=None, **parts):
    module = nn.ModuleDict(parts)
    optimizer = torch.optim.SGD([p for name in trained for p in module[name].parameters()], 0.1)
    return module, optimizer, Twins(module, lambda: [optimizer], lambda step: None, **(seen or {}))


def move(part):
    for parameter in part.parameters():
        parameter.data.add_(0.01)


def test_what_moves_without_an_optimizer_is_cut_too():
    net = network()
    parts = {"target": copy.deepcopy(net), "teacher": copy.deepcopy(net), "other": network()}
    module, _, twins = watched(net=net, **parts)
    move(module["target"]), move(module["other"])
    assert cut_parts(twins.in_step(cut("net"))) == ({"net", "target"}, {"net", "target"})
    assert "teacher" in twins.resting(cut("net"))
    assert twins.resting(cut("teacher")) == {}


def test_of_two_like_it_the_nearest_is_followed():
    first, second = network(), network()
    module, _, twins = watched(("first", "second"), first=first, second=second, target=copy.deepcopy(second))
    move(module["target"])
    assert cut_parts(twins.in_step(cut("first")))[0] == {"first"}
    assert cut_parts(twins.in_step(cut("second")))[0] == {"second", "target"}


def test_what_an_optimizer_trains_by_now_follows_nothing():
    net = network()
    module, optimizer, twins = watched(net=net, backbone=copy.deepcopy(net))
    optimizer.add_param_group({"params": list(module["backbone"].parameters())})
    move(module["backbone"])
    assert cut_parts(twins.in_step(cut("net")))[0] == {"net"}
    # A part that is among an optimizer's parameters and needs no gradient is not trained by it.
    module["backbone"].requires_grad_(False)
    assert cut_parts(twins.in_step(cut("net")))[0] == {"net", "backbone"}


def test_what_the_step_writes_to_follows_before_it_has_moved():
    parts = {"net": network(), "target": network(), "teacher": network()}
    _, _, twins = watched(seen={"written": ["target.0.weight"]}, **parts)
    assert cut_parts(twins.in_step(cut("net"))) == ({"net", "target"}, {"net", "target"})
    assert list(twins.resting(cut("net"))) == ["teacher"]


def test_what_has_no_gradients_is_not_trained_by_its_optimizer():
    net = network()
    names = [f"target.{name}" for name, _ in net.named_parameters()]
    parts = {"net": net, "target": copy.deepcopy(net)}
    module, optimizer, twins = watched(("net", "target"), {"untaught": names}, **parts)
    move(module["target"])
    assert cut_parts(twins.in_step(cut("net")))[0] == {"net", "target"}
    # A later step may teach it all the same: it has a gradient, or the optimizer a state of it.
    first = next(module["target"].parameters())
    first.grad = torch.zeros_like(first)
    assert cut_parts(twins.in_step(cut("net")))[0] == {"net"}
    first.grad = None
    optimizer.state[first]["momentum_buffer"] = torch.zeros_like(first)
    assert cut_parts(twins.in_step(cut("net")))[0] == {"net"}


def test_what_is_compared_keeps_its_width_unless_a_follower_takes_it():
    parts = {"net": network(), "head": network(), "net_m": network(), "head_m": network(), "other": nn.Linear(2, 2)}
    parts["head"][0], parts["head_m"][0] = nn.Linear(4, 5), nn.Linear(4, 5)
    parts["head"][2], parts["head_m"][2] = nn.Linear(5, 2), nn.Linear(5, 2)
    _, _, twins = watched(("net", "head"), **parts)
    assert twins.compared({"net_m": ("head_m",), "head_m": ()}) == {"head": "head_m"}
    assert twins.compared({"net_m": ("head_m", "other"), "other": ()}) == {"net": "net_m"}
    assert twins.compared({"net_m.2": ()}) == {"net.2": "net_m.2"}
    assert twins.compared({"other": ()}) == {}


def test_a_follower_within_a_part_that_is_none_keeps_the_width_of_its_result():
    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

    _, _, twins = watched(net=network(), teacher=Teacher())
    assert twins.compared({"teacher": ()}) == {"net": "teacher.net"}


def test_other_kinds_of_steps_stay_as_they_are():
    module, _, twins = watched(net=network(), target=network())
    move(module["target"])
    step = {"kind": "quantize", "module": "net", "plan": {}}
    assert twins.in_step(step) is step
    assert twins.resting(step) == {}


@pytest.mark.parametrize("strict", [True, False])
def test_states_of_others_load_as_ever(strict):
    module, _, twins = watched(net=network(), target=network())
    state = {f"more.{name}": value for name, value in module["net"].state_dict().items()}
    if strict:
        with pytest.raises(RuntimeError, match="Unexpected key"):
            module["target"].load_state_dict(state)
    else:
        assert module["target"].load_state_dict(state, strict=False).unexpected_keys == list(state)
    twins.detach()
    assert "load_state_dict" not in vars(module["target"])
