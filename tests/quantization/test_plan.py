"""The plan of a quantization in a file: one that contradicts itself, or fits no part of the network, is refused."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.quantization.plan import check_plan
from lit_xai.quantization.quantization import plan_quantization
from lit_xai.quantization.steps import quantize_step
from lit_xai.structure.recipe import Recipe


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def plan_of(**options):
    return plan_quantization(network(), torch.zeros(2, 4), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bits": 4, "cpu": "vnni"},
        {"bits": {"0": 3, "*": 8}, "activations": "symmetric"},
        {"bits": {nn.Linear: 5}, "cpu": "arm64"},
        {"ignored_layers": ["3"]},
    ],
    ids=str,
)
def test_what_is_planned_passes(options):
    step = quantize_step(plan_of(**options))
    Recipe.from_dict(Recipe([step]).to_dict()).replay_(network())


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda plan: plan["sites"][1].update(low=-128), "integers of site '0/linear/weight'"),
        (lambda plan: plan["sites"][1].update(low=-8, high=7), "integers of site '0/linear/weight'"),
        (lambda plan: plan["sites"][0].update(low=-128, high=127), "integers of site '0/linear/input'"),
        (lambda plan: plan["sites"][0].update(channels=3), "name of a site"),
        (lambda plan: plan["sites"][1].update(channels=10**9), "no weight of it has the 1000000000 channels"),
        (lambda plan: plan["sites"][1].update(inputs="elsewhere"), "inputs of site '0/linear/weight'"),
        (lambda plan: plan["sites"][1].update(more=1), "no entry 'more'"),
        (lambda plan: plan["sites"].append(plan["sites"][0]), "names that differ"),
        (lambda plan: plan["sites"][0].update(name="a.b/input"), "name of a site"),
        (lambda plan: plan["sites"][0].update(layer="9"), "has no '9'"),
        (lambda plan: plan["float_layers"].append("9"), "has no '9'"),
        (lambda plan: plan.update(norms=[["3", "1"]]), "pairs expected a convolution or linear layer"),
        (lambda plan: plan.update(norms=[["0"]]), "has none"),
        (lambda plan: plan["scheme"].update(bits=9), "bits expected an integer from 2 to 8"),
        (lambda plan: plan["scheme"].update(bits={3: 4}), "layers by name"),
        (lambda plan: plan["scheme"].update(cpu="abacus"), "cpu expected one of"),
        (lambda plan: plan["scheme"].update(activations=[]), "type str"),
    ],
)
def test_what_is_not_is_refused_and_changes_nothing(edit, word):
    step, fresh = quantize_step(plan_of()), network()
    edit(step["plan"])
    before = list(fresh.state_dict())
    with pytest.raises(ValueError, match=word):
        Recipe.from_dict(Recipe([copy.deepcopy(step)]).to_dict()).replay_(fresh)
    assert list(fresh.state_dict()) == before


def test_one_of_0_1_has_no_norms():
    plan = plan_of()
    del plan["norms"]
    check_plan(plan)
