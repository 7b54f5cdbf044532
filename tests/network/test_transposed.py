"""Linear layers with a weight (in, out) are taken for the usual ones, and cut in their own terms."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.network.layers import channels
from lit_xai.network.transposed import in_own_terms, is_transposed, linearize_, own_attributes
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import prune_step, pruned_copy
from lit_xai.quantization.quantization import describe_quantization, quantize
from lit_xai.structure.kinds import apply_step_, undo_step_


class Transposed(nn.Module):
    """As GPT-2's layers."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) / nx**0.5), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, self.nx), self.weight).view(*x.shape[:-1], self.nf)


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(Transposed(8, 4), nn.ReLU(), Transposed(6, 8), nn.ReLU(), nn.Linear(6, 3)).double()


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()


def test_it_computes_the_same():
    network = perceptron()
    network[0].weight.grad = torch.rand_like(network[0].weight)
    other = copy.deepcopy(network)
    other[0].weight.grad = network[0].weight.grad
    assert linearize_(other) == {"0", "2"}
    assert [type(module).__name__ for module in other] == ["AsLinear", "ReLU", "AsLinear", "ReLU", "Linear"]
    torch.testing.assert_close(other(X), network(X))
    assert torch.equal(other[0].weight.grad, network[0].weight.grad.T)
    assert channels(other) == channels(network) == {"0": 8, "2": 6, "4": 3}
    assert not any(is_transposed(module) for module in other.modules())


def test_a_weight_that_two_layers_share_is_left():
    network = nn.Sequential(Transposed(4, 4), Transposed(4, 4), Transposed(4, 4))
    network[1].weight = network[0].weight
    assert linearize_(network) == {"2"}


def test_a_layer_with_two_names_is_replaced_under_both():
    network = nn.Sequential(Transposed(4, 4), nn.ReLU())
    network.add_module("again", network[0])
    assert linearize_(network) == {"0", "again"}
    assert network[0] is network.again


@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_a_cut_is_exact_and_can_be_undone(ratio):
    network = perceptron()
    before = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    step = prune_step(network, X, pruning_ratio=ratio)
    zeroed = copy.deepcopy(network)
    for name, dim, size, kept in step["kept"]:
        gone = sorted(set(range(size)) - set(kept))
        zeroed.get_parameter(name).data.index_fill_(dim, torch.tensor(gone), 0.0)
    pruned = pruned_copy(network, X, pruning_ratio=ratio)
    assert {type(module) for module in pruned} == {Transposed, nn.ReLU, nn.Linear}
    torch.testing.assert_close(pruned(X), zeroed(X))
    apply_step_(network, step)
    assert channels(network) == {"0": round(8 * (1 - ratio)), "2": 6 - round(6 * ratio), "4": 3}
    assert (network[2].nx, network[2].nf) == tuple(network[2].weight.shape)
    torch.testing.assert_close(network(X), zeroed(X))
    undo_step_(network, step)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == before


def test_ratios_of_a_second_cut_count_from_the_dense_network():
    network = perceptron()
    dense = channels(network)
    apply_step_(network, prune_step(network, X, pruning_ratio=0.25, dense_channels=dense))
    assert prune_step(network, X, pruning_ratio=0.25, dense_channels=dense)["kept"] == []


def test_coupled_channels_are_those_of_its_own_weights():
    network = perceptron()
    for members in Prunable.copy_of(network, X).coupled():
        for name, dim, roots in members:
            assert len(roots) == network.get_parameter(name).shape[dim]


def test_a_file_holds_it_in_integers():
    quantized = quantize(perceptron().float(), [X.float()], progress=False)
    assert describe_quantization(quantized)["integer"] == ["0", "2", "4"]


def test_only_its_own_names_are_translated():
    assert in_own_terms([["a.weight", 0, 2, [1]], ["b.weight", 0, 2, [1]]], {"b"})[1][1] == 1
    assert own_attributes([["a", "in_features", 2, 1], ["b", "in_features", 2, 1]], {"b"})[1][1] == "nx"
