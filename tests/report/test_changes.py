"""Tests of the change log of a report."""

import torch
from torch import nn

from lit_xai import StructuredPruning
from lit_xai.functional import prune_step
from lit_xai.network.spec import Network
from lit_xai.recipe import recipe_of, take_step_
from lit_xai.report.changes import changes, protocols


def test_what_a_callback_was_told_stands_at_its_first_step_alone():
    torch.manual_seed(0)
    dense, network = (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)) for _ in range(2))
    inputs = torch.randn(4, 8)
    for _ in range(2):
        take_step_(network, prune_step(network, inputs, pruning_ratio=0.5))
    found = changes(
        dense, recipe_of(network).steps, protocols([StructuredPruning(pruning_ratio=0.5)]), Network(), inputs
    )
    assert [line["what"] for line in found] == ["pruned, step 1", "pruned, step 2"]
    assert [line["protocol"] for line in found] == ["StructuredPruning(pruning_ratio=0.5)", "as step 1"]
    assert found[1]["impact"] == "MACs 80 -> 40, parameters 90 -> 46"
