"""What cannot be cut stays whole and is named; all else is cut, and computes what zeros would."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from partial_networks import PARTIAL, RMSNorm, make
from refusals import refused
from torch import nn
from torch.nn import functional as F

from lit_xai.network.calling import call_network
from lit_xai.network.layers import channels
from lit_xai.network.profiling import count_macs
from lit_xai.pruning.culprits import find_culprits
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import prunable_layers, prune_step, pruned_copy, reach
from lit_xai.structure.kinds import apply_step_

KEEPS = "keeps channels that it cannot lose"


@given(n=st.integers(1, 40), culprits=st.sets(st.integers(0, 39)))
@settings(deadline=None, max_examples=100)
def test_all_culprits_and_no_others_are_found(n, culprits):
    tested = []

    def why_not(some):
        tested.append(some)
        return "bad" if culprits.intersection(some) else None

    found = find_culprits(range(n), why_not)
    assert found == dict.fromkeys(sorted(culprits & set(range(n))), "bad")
    assert len(tested) <= 1 + 2 * len(found) * math.ceil(math.log2(n) + 1)


@given(pairs=st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] != pair[1])))
@settings(deadline=None, max_examples=100)
def test_what_is_left_passes_as_a_whole_where_groups_fail_together_alone(pairs):
    def why_not(some):
        return "together" if any({a, b} <= set(some) for a, b in pairs) else None

    culprits = find_culprits(range(12), why_not)
    left = [i for i in range(12) if i not in culprits]
    assert why_not(left) is None
    assert all(why_not([*left, one]) for one in culprits)  # and none was kept without need


@pytest.fixture
def channelwise(monkeypatch):
    """Normalize by nothing that depends on the number of channels."""

    def affine(self, x, dim=-1):
        shape = [-1] + [1] * (x.dim() - 2) if isinstance(self, nn.GroupNorm) else [-1]
        return x * self.weight.view(shape) + (0 if getattr(self, "bias", None) is None else self.bias.view(shape))

    for norm in (nn.LayerNorm, nn.GroupNorm, RMSNorm):
        monkeypatch.setattr(norm, "forward", affine)
    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **kw: attention(*a, **{**kw, "scale": 0.5}))


def zeroed(network, step):
    """Return a copy with zeros for what a step removes: the independent witness."""
    other = copy.deepcopy(network)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    for name, dim, size, kept in step["kept"]:
        gone = sorted(set(range(size)) - set(kept))
        tensors[name].data.index_fill_(dim, torch.tensor(gone), 0.0)
    return other


def assert_exact(network, inputs, step):
    pruned, masked = copy.deepcopy(network), zeroed(network, step)
    apply_step_(pruned, step)
    torch.testing.assert_close(call_network(pruned, inputs), call_network(masked, inputs))


@pytest.mark.parametrize("name", PARTIAL)
def test_what_is_cut_is_cut_exactly_and_what_is_not_is_named(name, channelwise):
    network, inputs = make(name)
    network = network.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    with pytest.warns(UserWarning, match=KEEPS) as warned:
        step = prune_step(network, inputs, pruning_ratio=0.5)
    assert step["kept"]
    assert_exact(network, inputs, step)
    prunable = Prunable.copy_of(network, inputs, pruning_ratio=0.5)
    assert prunable.take(prunable.due, exact=True)[1] == step
    kept = {layer for one in prunable.kept_whole for layer in one.layers}
    assert kept >= set(PARTIAL[name][2])
    assert all(one.reason for one in prunable.kept_whole)
    assert any(layer in str(warned[0].message) for layer in kept)
    cut = {name.rpartition(".")[0] for name, dim, *_ in step["kept"] if dim == 0}
    assert not cut & kept
    # As if they were in ignored_layers.
    assert prune_step(network, inputs, pruning_ratio=0.5, ignored_layers=sorted(kept)) == step


@pytest.mark.filterwarnings(f"ignore:.*{KEEPS}")
@pytest.mark.parametrize("name", PARTIAL)
def test_a_target_is_met_by_the_rest_or_refused_with_what_can_be_reached(name):
    network, inputs = make(name)
    dense = count_macs(network, inputs)
    prunable = Prunable.copy_of(network, inputs)
    measure = lambda pruned: count_macs(pruned, inputs)  # noqa: E731
    prunable.take(prunable.halved, exact=True)
    with prunable.pruned(prunable.take(lambda: prunable.moves)[0]) as smallest:
        lowest = count_macs(smallest, inputs)
    target = (dense + lowest) / 2
    _, step = prunable.take(lambda: reach(prunable, measure, target)[0])
    apply_step_(network, step)
    assert count_macs(network, inputs) == pytest.approx(target, rel=0.1)
    with refused("is out of reach", "the lowest possible value is"):
        prunable.take(lambda: reach(prunable, measure, 0.5 * lowest)[0])


class Squeezing(nn.Module):
    """Runs at any width but 1."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.second(self.first(x)).relu().mean((2, 3), keepdim=True).squeeze().flatten(1))


def test_a_group_that_fails_at_one_channel_alone_is_still_halved():
    network, x = Squeezing(), torch.randn(2, 3, 2, 2)
    prunable = Prunable.copy_of(network, x)
    moves, _ = prunable.take(lambda: prunable.moves)
    assert prunable.kept_whole == []
    with prunable.pruned(moves) as pruned:
        assert {name: n for name, n in channels(pruned).items() if name != "head"} == {"first": 1, "second": 4}


@pytest.mark.filterwarnings(f"ignore:.*{KEEPS}")
def test_layers_that_can_be_pruned_are_those_that_are_cut():
    network, inputs = make("pixel shuffle")
    assert sorted(map(sorted, prunable_layers(network, inputs))) == [["body", "stem"], ["tail"]]
    assert channels(pruned_copy(network, inputs)) == {"stem": 8, "body": 8, "up": 32, "tail": 6, "head": 10}


@pytest.mark.filterwarnings(f"ignore:.*{KEEPS}")
def test_a_ratio_for_a_layer_that_stays_whole_is_no_mistake_in_spelling():
    network, inputs = make("pixel shuffle")
    step = prune_step(network, inputs, pruning_ratio_dict={"up": 0.25, "tail": 0.25})
    apply_step_(network, step)
    assert channels(network) == {"stem": 8, "body": 8, "up": 32, "tail": 9, "head": 10}


def test_the_test_of_groups_leaves_the_network_as_it_was():
    network, inputs = make("swin")
    prunable = Prunable.copy_of(network, inputs)
    before = {name: value.clone() for name, value in prunable.network.state_dict().items()}
    prunable.take(prunable.halved, exact=True)
    after = prunable.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
