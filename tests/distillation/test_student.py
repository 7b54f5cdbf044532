"""The network of a module that learns, and which of its layers can be recorded."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from refusals import refused
from taught import Conv, Module, data, mlp
from torch import nn

from lit_xai.distillation.student import Student

X, Y = data().tensors


class Parts(Module):
    """Two parts with weights, one without."""

    def __init__(self):
        super().__init__(Conv())
        self.body, self.head, self.loss = mlp(classes=4), nn.Linear(4, 10), nn.CrossEntropyLoss()


def recorded(module, run, name=None, **options):
    student = Student(name)
    with student.record(module, **options) as calls:
        run(module)
    return student, student.own_calls(module, calls)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda module: module(X), ""),  # the module itself, not the network that it calls
        (lambda module: module.network(X), "network"),
        (lambda module: module.loss(module.network(X), Y), "network"),
    ],
    ids=["module", "part", "with a loss"],
)
def test_the_network_that_the_step_calls_learns(run, expected):
    student, calls = recorded(Parts(), run)
    assert student.name == expected
    assert [call.name for call in calls] == [expected]
    assert calls[0].result.shape == (64, 10)


def test_calls_without_gradients_do_not_learn():
    def run(module):
        with torch.no_grad():
            module.body(X)
            module.network(X)
        module.network(X[:8])

    student, calls = recorded(Parts(), run)
    assert student.name == "network"
    assert [len(call.result) for call in calls] == [8]


def test_results_that_are_no_tree_of_tensors_learn():
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            return Output(self.inner(x))

    _, calls = recorded(Module(Odd()), lambda module: module(X))
    assert calls[0].result.logits.shape == (64, 10)


@pytest.mark.parametrize(
    ("run", "name", "words"),
    [
        (lambda module: module.head(module.body(X)), None, r"calls 'body' and 'head': name .* \['network', 'body'"),
        (lambda module: None, None, "does not call a network: name"),
        (lambda module: module.network(X), "body", "does not call 'body': name"),
    ],
    ids=["two", "none", "another"],
)
def test_unclear_ones_are_refused(run, name, words):
    with pytest.raises(MisconfigurationException, match=f"found no outputs .*, as Parts.training_step {words}"):
        recorded(Parts(), run, name)


def test_a_named_part_is_recorded_alone():
    student, calls = recorded(Parts(), lambda module: module.head(module.body(X)), "head")
    assert student.name == "head"
    assert calls[0].args[0].shape == (64, 4)


def test_layers_are_kept_with_the_call():
    def run(module):
        module.network.first(X)  # outside of a call
        module(X[:4])
        module(X[:2])

    _, calls = recorded(Parts(), run, layers=["first", "network.second"])
    assert [len(call.layers["first"]) for call in calls] == [4, 2]
    assert calls[0].layers["network.second"].requires_grad


def test_inputs_can_require_a_gradient():
    _, calls = recorded(Parts(), lambda module: module(X), explained=True, by_input=True)
    assert calls[0].args[0].requires_grad
    assert not X.requires_grad
    assert calls[0].tensors()[0] is calls[0].args[0]


def compiled(where):
    module = Module(Conv())
    if where == "module":
        module.compile(backend="eager")
    elif where == "in place":
        module.network.compile(backend="eager")
    else:
        module.network = torch.compile(module.network, backend="eager")
    return module


@pytest.mark.parametrize("where", ["module", "in place", "wrapper"])
def test_compiled_networks_hide_their_layers(where):
    module = compiled(where)
    Student(None).check(module, {})
    with pytest.raises(MisconfigurationException, match="cannot see the layer 'first' inside the compiled"):
        Student(None).check(module, {"first": "features"})
    with pytest.raises(MisconfigurationException, match=r"cannot differentiate the compiled .* twice"):
        Student(None).check(module, {}, explained=True)


def test_compiled_parts_without_the_layers_do_not_matter():
    module = Module(Conv())
    module.network.head.compile(backend="eager")
    Student(None).check(module, {"first": "features", "network.second": "explanation"})


def test_misspelt_names_are_refused():
    with refused("'frist' names no layer of the student Module", "'first'"):
        Student(None).check(Module(Conv()), {"frist": "features"})
    with refused("module='netwrk'", "'network'"):
        Student("netwrk").check(Module(Conv()), {})
