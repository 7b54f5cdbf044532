"""Parameters that a module of its own class multiplies by are cut as linear layers are."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from lit_xai.network.matrices import matrices_as_layers_
from lit_xai.pruning.prunable import Prunable, dense_widths
from lit_xai.pruning.pruning import prune_step
from lit_xai.runtime.onnx import export_onnx
from lit_xai.structure.kinds import apply_step_

PRODUCTS = {
    "@": lambda x, weight: x @ weight,
    "matmul": torch.matmul,
    "mm": torch.mm,
    "linear": lambda x, weight: functional.linear(x, weight),
}


class Convolution(nn.Module):
    """Sums nodes' neighbors, behind a product with a parameter."""

    def __init__(self, n, m, product):
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(torch.randn(*((m, n) if product == "linear" else (n, m))) / n**0.5)
        self.bias = nn.Parameter(torch.randn(m))

    def forward(self, x, edges):
        x = PRODUCTS[self.product](x, self.weight)
        index = edges[1].view(-1, 1).expand(-1, x.shape[1])
        return torch.zeros_like(x).scatter_add_(0, index, x.index_select(0, edges[0])) + self.bias


class Graphs(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.first, self.norm, self.second = Convolution(5, 8, product), nn.BatchNorm1d(8), Convolution(8, 16, product)
        self.head = nn.Linear(16, 3)

    def forward(self, x, edges):
        return self.head(self.second(self.norm(self.first(x, edges)).relu(), edges).relu())


def graphs(product):
    torch.manual_seed(0)
    return Graphs(product).eval().double(), (torch.randn(6, 5).double(), torch.randint(6, (2, 14)))


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_cut_is_exact(product):
    network, inputs = graphs(product)
    zeroed = copy.deepcopy(network)
    step = prune_step(network, inputs, pruning_ratio=0.5)
    tensors = {**dict(zeroed.named_parameters()), **dict(zeroed.named_buffers())}
    for name, dim, size, kept in step["kept"]:
        tensors[name].data.index_fill_(dim, torch.tensor(sorted(set(range(size)) - set(kept))), 0.0)
    apply_step_(network, step)
    assert network.second.weight.shape == ((8, 4) if product == "linear" else (4, 8))
    torch.testing.assert_close(network(*inputs), zeroed(*inputs))


def test_it_computes_the_same_also_as_a_copy():
    network, inputs = graphs("@")
    expected = network(*inputs)
    other = copy.deepcopy(network)
    assert set(matrices_as_layers_(other, lambda: other(*inputs))) == {"first.weight", "second.weight"}
    copied = copy.deepcopy(other)
    copied.first.weight.weight.data.zero_()
    torch.testing.assert_close(other(*inputs), expected)
    assert not torch.equal(copied(*inputs), expected)
    assert other.first.weight.shape == (5, 8)


def test_a_cut_network_is_exported_while_it_is_tried(tmp_path):
    network, inputs = graphs("@")
    prunable = Prunable.copy_of(network.float(), (inputs[0].float(), inputs[1]), pruning_ratio=0.5)
    with prunable.pruned(prunable.moves) as cut:
        export_onnx(cut, (inputs[0].float(), inputs[1]), tmp_path / "cut.onnx")


class Other(nn.Module):
    """A matrix that is also added, and one that is only added."""

    def __init__(self):
        super().__init__()
        self.weight, self.places = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(2, 4))

    def forward(self, x):
        return (x + self.places) @ self.weight + self.weight[:2]


def test_other_uses_are_left():
    network = Other()
    assert matrices_as_layers_(network, lambda: network(torch.zeros(2, 4))) == {}
    assert isinstance(network.weight, nn.Parameter)


def test_ratios_of_a_second_cut_count_from_the_dense_network():
    network, inputs = graphs("@")
    dense = dense_widths(network, inputs)
    apply_step_(network, prune_step(network, inputs, pruning_ratio=0.25, dense_channels=dense))
    assert dense == {"first.weight": 8, "second.weight": 16, "head": 3}
    assert prune_step(network, inputs, pruning_ratio=0.25, dense_channels=dense)["kept"] == []
    with pytest.raises(ValueError, match=r"first\.weight \(dense_channels does not have its width\)"):
        prune_step(network, inputs, pruning_ratio=0.25, dense_channels={"head": 3})
