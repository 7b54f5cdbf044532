"""Records of a network's calls by other code, compiled or not."""

import copy
import pickle

import pytest
import torch
from networks import cnn, mlp
from torch import nn

from lit_xai.network.recording import Call, recorded, requires_grad

X = torch.randn(4, 5)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def in_place(network):
    network.compile(backend="aot_eager")
    return network


KINDS = {
    "plain": lambda: mlp(),
    "compiled in place": lambda: in_place(mlp()),
    "wrapper": lambda: torch.compile(mlp(), backend="aot_eager"),
}


@pytest.mark.parametrize("kind", ["plain", "compiled in place", "wrapper"])
@pytest.mark.parametrize("warm", [False, True])
def test_every_call_is_seen(kind, warm):
    network = KINDS[kind]()
    expected = mlp()(X)
    if warm:
        network(X)
    before = dict(vars(network))
    with recorded({"it": network}) as calls:
        first = network(X)
        second = network(input=X + 1)
    assert vars(network) == before
    assert [call.name for call in calls] == ["it", "it"]
    assert calls[0].args[0] is X
    assert torch.equal(calls[1].kwargs["input"], X + 1)
    assert calls[0].result is first
    assert calls[1].result is second
    torch.testing.assert_close(first, expected)
    network(X)
    assert len(calls) == 2


def test_a_call_within_another_is_a_part_of_it():
    network = nn.ModuleDict({"body": mlp(), "head": nn.Linear(3, 2)})
    root = nn.Sequential(network["body"], network["head"])
    with recorded({"": root, "body": network["body"], "head": network["head"]}) as calls:
        root(X)
        network["head"](torch.zeros(1, 3))
        network["body"](X)
    assert [call.name for call in calls] == ["", "head", "body"]


def test_hooks_of_the_network_run_as_ever():
    network, seen = mlp(), []
    network.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    network.register_forward_hook(lambda module, args, out: seen.append(1) or out + 1)
    expected = network(X)
    with recorded({"it": network}, {"0": network[0]}) as calls:
        found = network(X)
    assert torch.equal(found, expected)
    assert calls[0].result is found
    assert calls[0].args[0] is X
    assert len(seen) == 2


def test_layers_are_kept_with_the_call_they_belong_to():
    network = mlp()
    with recorded({"it": network}, {"first": network[0], "last": network[2]}) as calls:
        network[0](X)  # outside of any
        network(X[:3])
        network(X[:2])
    assert [(len(call.layers["first"]), len(call.layers["last"])) for call in calls] == [(3, 3), (2, 2)]
    assert calls[1].layers["last"] is calls[1].result


def test_of_a_layer_that_runs_twice_the_last_is_kept():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, x):
            return self.layer(self.layer(x))

    network = Twice()
    with recorded({"": network}, {"layer": network.layer}) as calls:
        found = network(X)
    assert calls[0].layers["layer"] is found


def test_a_network_may_be_its_own_layer():
    network = mlp()
    with recorded({"": network}, {"it": network}) as calls:
        found = network(X)
    assert calls[0].layers["it"] is found


def test_inputs_and_outputs_can_be_exchanged():
    network = mlp()
    with recorded({"": network}, {"0": network[0]}, inputs=requires_grad, outputs=lambda value: value * 0) as calls:
        found = network(X)
    assert calls[0].args[0].requires_grad
    assert not X.requires_grad
    torch.testing.assert_close(found, network[1:](torch.zeros(4, 6)))


def test_only_floating_tensors_are_exchanged_also_inside_containers():
    class Takes(nn.Module):
        def forward(self, batch, *, mask=None, flag=True):
            return batch["x"] * mask

    x, ids = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)
    network = Takes()
    with recorded({"": network}, inputs=lambda value: value + 1) as calls:
        found = network({"x": x, "ids": ids, "name": "a"}, mask=torch.tensor(2.0), flag=None)
    assert torch.equal(found, torch.full((2, 3), 6.0))
    assert calls[0].args[0]["ids"] is ids
    assert calls[0].args[0]["name"] == "a"
    assert [tuple(value.shape) for value in calls[0].tensors()] == [(2, 3), ()]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_stays_after_an_error(error):
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5)
            self.fails = True

        def forward(self, x):
            x = self.layer(x)
            if self.fails:
                raise error("stop")
            return x

    network = Raises()
    before = dict(vars(network)), dict(vars(network.layer))
    with recorded({"": network}, {"layer": network.layer}) as calls:
        with pytest.raises(error):
            network(X)
        network.fails = False
        network(X)
    assert len(calls) == 1
    network.fails = True
    with pytest.raises(error), recorded({"": network}, {"layer": network.layer}):
        network(X)
    assert (dict(vars(network)), dict(vars(network.layer))) == before


def test_copies_and_pickles_made_meanwhile_are_clean():
    network = cnn()
    with recorded({"": network}, {"0": network[0]}) as calls:
        made = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
        for copied in made:
            copied(torch.zeros(1, 2, 6, 6))
    assert calls == []
    assert all("_compiled_call_impl" not in vars(part) for copied in made for part in copied.modules())


def test_two_recordings_at_once():
    network = mlp()
    with recorded({"outer": network}) as outer:
        with recorded({"inner": network}) as inner:
            network(X)
        network(X)
    assert len(outer) == 2
    assert len(inner) == 1
    network(X)
    assert len(outer) == 2


def test_requires_grad_keeps_what_has_one():
    value = torch.zeros(2, requires_grad=True) * 2
    assert requires_grad(value) is value
    plain = torch.zeros(2)
    found = requires_grad(plain)
    assert found.requires_grad
    assert found.is_leaf
    assert not plain.requires_grad
    assert found.data_ptr() == plain.data_ptr()


def test_tensors_of_a_call():
    call = Call("", (torch.zeros(2), [torch.zeros(3), torch.zeros(1, dtype=torch.int64)]), {"mask": torch.ones(4)})
    assert [len(value) for value in call.tensors()] == [2, 3, 4]
