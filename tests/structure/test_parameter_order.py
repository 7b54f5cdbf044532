"""Parameters of newly built optimizers in the order of a checkpoint, or left alone."""

import pytest
import torch
from torch import nn

from lit_xai.structure.parameter_order import arrange_parameters_, optimizers_in, parameter_names


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))


def names(*groups):
    return [[list(group) for group in groups]]


FIRST, SECOND = ["0.weight", "0.bias"], ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    "wanted", [names([*SECOND, *FIRST]), names(FIRST, SECOND), names(["1.bias"], [*FIRST, "1.weight"])]
)
def test_any_order_and_grouping_of_the_same_parameters(wanted):
    module = network()
    every = list(module.parameters())
    groups = [{"params": every[: len(group)]} for group in wanted[0][:-1]]
    taken = sum(len(group["params"]) for group in groups)
    optimizer = torch.optim.SGD([*groups, {"params": every[taken:]}], lr=0.1)
    held = [group["params"] for group in optimizer.param_groups]
    arrange_parameters_(module, [optimizer], wanted)
    assert parameter_names(module, [optimizer]) == wanted
    assert all(a is b["params"] for a, b in zip(held, optimizer.param_groups, strict=True))  # schedulers refer to them


@pytest.mark.parametrize(
    "saved",
    [
        names(FIRST),  # fewer parameters
        names(FIRST, SECOND),  # more groups
        names([*FIRST, *SECOND, "2.weight"]),  # one that is not there
        names([*FIRST, "1.weight", "1.gone"]),
        names([*FIRST, *SECOND, ""]),  # one outside the module, which this optimizer does not have
        [],
    ],
)
def test_other_optimizers_are_left_alone(saved):
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    arrange_parameters_(module, [optimizer], saved)
    assert parameter_names(module, [optimizer]) == names([*FIRST, *SECOND])


def test_parameters_outside_the_module_keep_their_order():
    module, one, two = network(), nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([one, *module.parameters(), two], lr=0.1)
    arrange_parameters_(module, [optimizer], names(["", *SECOND, "", *FIRST]))
    params = optimizer.param_groups[0]["params"]
    assert params[0] is one
    assert params[3] is two
    assert parameter_names(module, [optimizer]) == names(["", *SECOND, "", *FIRST])


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # what torch.compile imports
def test_compiled_or_not_the_names_are_the_same():
    module = nn.Sequential(nn.Linear(2, 2))
    compiled = nn.Sequential(nn.Linear(2, 2))
    compiled[0] = torch.compile(compiled[0])
    both = [parameter_names(one, [torch.optim.SGD(one.parameters(), lr=0.1)]) for one in (module, compiled)]
    assert both[0] == both[1] == names(["0.weight", "0.bias"])


def test_every_form_that_lightning_takes():
    sgd, adam = (kind(network().parameters(), lr=0.1) for kind in (torch.optim.SGD, torch.optim.Adam))
    schedule = torch.optim.lr_scheduler.StepLR(sgd, 1)
    assert optimizers_in(sgd) == [sgd]
    assert optimizers_in([sgd, adam]) == [sgd, adam]
    assert optimizers_in(([sgd, adam], [schedule])) == [sgd, adam]
    assert optimizers_in({"optimizer": sgd, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}) == [sgd]
    assert optimizers_in(({"optimizer": adam}, {"optimizer": sgd, "lr_scheduler": schedule})) == [adam, sgd]
    assert optimizers_in(None) == []
