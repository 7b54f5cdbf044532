"""Kinds of steps: registered by anybody, asked by everything, unknown ones refused in one sentence."""

import numpy as np
import pytest
import torch
from reordered import MoveLast
from torch import nn

from lit_xai.structure import kinds
from lit_xai.structure.attachment import take_step_
from lit_xai.structure.kinds import StepKind, apply_step_, kind_named, kind_of, register_kind, undo_step_
from lit_xai.structure.recipe import Recipe, check_reversible, copy_as, dense_copy, recipe_of

MOVE = {"kind": "reordered.move_last", "child": "0", "place": 0}


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(kinds, "_registered", dict(kinds._registered))


class Broken(StepKind):
    """Somebody's kind with a mistake in it."""

    name, label = "elsewhere.broken", "broken"

    def apply_(self, network, step, optimizers=()):
        raise KeyError(step["missing"])

    def undo_(self, network, step):
        raise AssertionError("never applied")


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


def children(module):
    return list(module._modules)


@pytest.mark.parametrize("name", ["prune", "fold", "quantize"])
def test_the_library_s_own_are_found_by_name(name):
    assert kind_named(name).name == name
    assert kind_of({"kind": name}) is kind_named(name)


def test_they_have_an_order_and_end_training_in_float():
    prune, fold, quantize = map(kind_named, ("prune", "fold", "quantize"))
    assert prune.order < fold.order < quantize.order
    assert [kind.stays_float for kind in (prune, fold, quantize)] == [True, False, False]
    assert [kind.once for kind in (prune, fold, quantize)] == [False, False, True]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("unknown_package.svd", ["'unknown_package.svd'", "import unknown_package first", "register_kind"]),
        ("prun", ["'prun'", "Did you mean 'prune'?", "the package that defines it"]),
        (None, ["None", "the package that defines it"]),
        (["prune"], ["['prune']"]),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda step: kind_of(step),
        lambda step: apply_step_(network(), step),
        lambda step: take_step_(network(), step),
        lambda step: Recipe.from_dict({"version": 1, "steps": [step]}),
        lambda step: Recipe([step]).replay_(network()),
    ],
    ids=["kind_of", "apply_step_", "take_step_", "from_dict", "replay_"],
)
def test_an_unknown_kind_is_one_sentence(name, parts, ask):
    with pytest.raises(ValueError, match="A recipe expected steps of a known kind") as caught:
        ask({"kind": name})
    for part in parts:
        assert part in str(caught.value)


def test_registering_the_same_class_again_is_harmless(registry):
    register_kind(MoveLast())
    register_kind(MoveLast())


def test_what_cannot_be_registered(registry):
    class Other(MoveLast):
        pass

    class Nameless(StepKind):
        apply_ = undo_ = None

    class Prune(MoveLast):
        name = "prune"

    with pytest.raises(ValueError, match=r"'reordered.move_last' already; name yours 'package.kind'"):
        register_kind(Other())
    with pytest.raises(ValueError, match="'prune' already"):
        register_kind(Prune())
    Prune.name = "move"
    with pytest.raises(ValueError, match=r"name expected 'package.kind', .* but got 'move'"):
        register_kind(Prune())
    with pytest.raises(TypeError, match="expected an instance of a StepKind with name and label"):
        register_kind(Nameless())
    with pytest.raises(TypeError, match="but got <class"):
        register_kind(MoveLast)


@pytest.mark.parametrize(
    "step",
    [
        {"kind": "prune", "kept": []},
        {"kind": "fold"},
        {"kind": "quantize", "module": "", "plan": None},
        {"kind": "reordered.move_last", "child": 3, "place": 0},
    ],
)
def test_a_malformed_step_of_a_file_is_refused(step):
    with pytest.raises(ValueError, match=f"of a '{step['kind']}' step expected type"):
        Recipe.from_dict({"version": 1, "steps": [step]})


def test_a_registered_kind_is_applied_undone_and_recorded():
    module = network()
    take_step_(module, MOVE)
    assert children(module) == ["1", "2", "0"]
    assert recipe_of(module).label == "moved1"
    assert children(dense_copy(module)) == ["0", "1", "2"]
    assert children(copy_as(module, recipe_of(module))) == ["1", "2", "0"]
    undo_step_(module, MOVE)
    assert children(module) == ["0", "1", "2"]


def test_an_error_of_any_class_rolls_back(registry):
    register_kind(Broken())
    module = network()
    with pytest.raises(KeyError):
        Recipe([MOVE, {"kind": "elsewhere.broken"}]).replay_(module)
    assert children(module) == ["0", "1", "2"]
    assert recipe_of(module).steps == []


def test_steps_come_in_order_and_some_once(registry):
    class Early(MoveLast):
        name, label, order, once = "reordered.early", "early", 5, True

    register_kind(Early())
    module, early = network(), {**MOVE, "kind": "reordered.early"}
    take_step_(module, early)
    with pytest.raises(ValueError, match=r"'reordered.early' step is taken once"):
        take_step_(module, early)
    take_step_(module, {**MOVE, "child": "1"})
    with pytest.raises(ValueError, match=r"'reordered.early' step has to come before 'reordered.move_last'"):
        take_step_(module, early)
    assert [step["kind"] for step in recipe_of(module).steps] == ["reordered.early", "reordered.move_last"]


@pytest.mark.parametrize("value", [np.int64(1), np.float64(1), torch.ones(1), object()])
def test_only_plain_values_are_taken(value):
    """They would be written, and not load again."""
    module = network()
    with pytest.raises(ValueError, match=r"a step\['note'\]\[0\] expected plain values .*, but got a "):
        take_step_(module, {**MOVE, "note": [value]})
    assert children(module) == ["0", "1", "2"]


def test_a_malformed_step_is_refused_before_it_is_taken():
    module = network()
    with pytest.raises(ValueError, match=r"The 'place' of a 'reordered.move_last' step expected type int"):
        take_step_(module, {"kind": "reordered.move_last", "child": "0"})
    assert recipe_of(module).steps == []


class Forgetful(StepKind):
    """Somebody's kind that replaces a layer and forgets the optimizers, and what undo_ is for."""

    name, label = "elsewhere.forgetful", "forgetful"

    def apply_(self, network, step, optimizers=()):
        network.set_submodule("0", nn.Linear(2, 3, bias=False))

    def undo_(self, network, step):
        pass


def test_new_parameters_that_nobody_trains_are_reported(registry):
    register_kind(Forgetful())
    module = network()
    frozen = [parameter for name, parameter in module.named_parameters() if name != "2.bias"]
    with pytest.warns(UserWarning, match=r"'elsewhere.forgetful' step left 1 trainable .* \(among 0.weight\)"):
        take_step_(module, {"kind": "elsewhere.forgetful"}, [torch.optim.SGD(frozen, lr=0.1)])


def test_what_was_not_trained_before_is_not_reported():
    from lit_xai.pruning.pruning import prune_step

    module = network()
    optimizer = torch.optim.SGD(module[2].parameters(), lr=0.1)  # the first layer is nobody's
    take_step_(module, prune_step(module, torch.zeros(1, 2), pruning_ratio=0.3, round_to=1), [optimizer])


def test_reversible_or_not(registry):
    register_kind(Forgetful())
    check_reversible(network(), MOVE)
    with pytest.raises(ValueError, match=r"undo_ of 'elsewhere.forgetful' expected .* '0.bias' has shape none rather"):
        check_reversible(network(), {"kind": "elsewhere.forgetful"})


def test_optimizers_keep_their_parameters_when_nothing_replaces_them():
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = [id(p) for p in optimizer.param_groups[0]["params"]]
    take_step_(module, MOVE, [optimizer])
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == before
