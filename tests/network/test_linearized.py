"""Linear layers of other classes, or with a weight (in, out), count as the usual ones, cut in their own terms."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from lit_xai.network.layers import channels
from lit_xai.network.linearized import Form, in_own_terms, is_transposed, linear_form, linearize_, own_attributes
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


CHANNELS = (("in_features", "in_channels"), ("out_features", "out_channels"))
CONV1D = Form(True, (("in_features", "nx"), ("out_features", "nf")))


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(Transposed(8, 4), nn.ReLU(), Transposed(6, 8), nn.ReLU(), nn.Linear(6, 3)).double()


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()


def test_it_computes_the_same():
    network = perceptron()
    network[0].weight.grad = torch.rand_like(network[0].weight)
    other = copy.deepcopy(network)
    other[0].weight.grad = network[0].weight.grad
    assert set(linearize_(other)) == {"0", "2"}
    assert [type(module).__name__ for module in other] == ["AsLinear", "ReLU", "AsLinear", "ReLU", "Linear"]
    torch.testing.assert_close(other(X), network(X))
    assert torch.equal(other[0].weight.grad, network[0].weight.grad.T)
    assert channels(other) == channels(network) == {"0": 8, "2": 6, "4": 3}
    assert not any(is_transposed(module) for module in other.modules())


def test_a_weight_that_two_layers_share_is_left():
    network = nn.Sequential(Transposed(4, 4), Transposed(4, 4), Transposed(4, 4))
    network[1].weight = network[0].weight
    assert set(linearize_(network)) == {"2"}


def test_a_layer_with_two_names_is_replaced_under_both():
    network = nn.Sequential(Transposed(4, 4), nn.ReLU())
    network.add_module("again", network[0])
    assert set(linearize_(network)) == {"0", "again"}
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
    assert in_own_terms([["a.weight", 0, 2, [1]], ["b.weight", 0, 2, [1]]], {"b": CONV1D})[1][1] == 1
    assert own_attributes([["a", "in_features", 2, 1], ["b", "in_features", 2, 1]], {"b": CONV1D})[1][1] == "nx"


class Dense(nn.Module):
    """As graph libraries' linear layers: of no class of torch's."""

    def __init__(self, in_channels, out_channels, bias=True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) / in_channels**0.5)
        self.register_parameter("bias", nn.Parameter(torch.randn(out_channels)) if bias else None)

    def forward(self, x):
        return functional.linear(x, self.weight, self.bias)


class Turned(Dense):
    def __init__(self, n):
        super().__init__(n, n)

    def forward(self, x):
        return x @ self.weight + self.bias


class Scaled(Dense):
    def forward(self, x):
        return 2 * super().forward(x)


class Conditioned(Dense):
    def forward(self, x, kinds=None):
        return super().forward(x)


class Buffered(Dense):
    def __init__(self):
        super().__init__(3, 3)
        self.register_buffer("seen", torch.zeros(()))


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (Dense(3, 5), Form(False, CHANNELS)),
        (Dense(4, 4, bias=False).double(), Form(False, CHANNELS)),
        (Turned(4), Form(True, CHANNELS)),
        (Transposed(8, 4), CONV1D),
        (Scaled(3, 5), None),
        (Conditioned(3, 5), None),
        (Buffered(), None),
        (nn.Linear(3, 5), None),
        (nn.Embedding(3, 5), None),
        (nn.LayerNorm((3, 5)), None),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_linear_is_found_by_what_it_computes(layer, form):
    before = copy.deepcopy(layer.state_dict())
    assert linear_form(layer) == form
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def summed(x, places, n):
    index = places.view(-1, 1).expand_as(x)
    return x.new_zeros(n, x.shape[1]).scatter_add_(0, index, x)


class Convolution(nn.Module):
    """Sums nodes' neighbors; its bias is a parameter of its own."""

    def __init__(self, n, m):
        super().__init__()
        self.lin, self.bias = Dense(n, m, bias=False), nn.Parameter(torch.randn(m))

    def forward(self, x, edges):
        x = self.lin(x)
        return summed(x.index_select(0, edges[0]), edges[1], len(x)) + self.bias


class Graphs(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first, self.norm, self.second = Convolution(5, width), nn.BatchNorm1d(width), Convolution(width, width)
        self.join = nn.Linear(2 * width, width)
        self.head = nn.Sequential(Dense(width, width), nn.BatchNorm1d(width), Dense(width, 3))

    def forward(self, x, edges, graph):
        first = self.norm(self.first(x, edges)).relu()
        second = self.second(first, edges).relu()
        return self.head(summed(self.join(torch.cat([first, second], 1)), graph, 4))


def test_a_network_of_graphs_is_cut_exactly():
    torch.manual_seed(0)
    network = Graphs().eval().double()
    graphs = (torch.randn(12, 5).double(), torch.randint(12, (2, 30)), torch.arange(12) // 3)
    step = prune_step(network, graphs, pruning_ratio=0.5)
    zeroed = copy.deepcopy(network)
    tensors = {**dict(zeroed.named_parameters()), **dict(zeroed.named_buffers())}
    for name, dim, size, kept in step["kept"]:
        gone = torch.tensor(sorted(set(range(size)) - set(kept)))
        tensors[name].data.index_fill_(dim, gone, 0.0)
    apply_step_(network, step)
    assert channels(network) == {"first.lin": 8, "second.lin": 8, "join": 8, "head.0": 8, "head.2": 3}
    assert (network.second.lin.in_channels, network.second.lin.out_channels) == (8, 8)
    torch.testing.assert_close(network(*graphs), zeroed(*graphs))


def test_ignored_layers_name_its_own_class():
    network = nn.Sequential(Dense(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), Dense(8, 3)).double()
    step = prune_step(network, X, ignored_layers=[Dense])
    assert {name for name, *_ in step["kept"]} == {"2.weight", "2.bias", "4.weight"}
