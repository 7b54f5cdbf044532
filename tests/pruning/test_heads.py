"""Heads and layers that stay whole, on bare Torch-Pruning: what is left computes what zeros in the dense one would."""

import copy

import pytest
import torch
import torch_pruning
from pruning_networks import NETWORKS, FusedAttention, FusedViT, make
from torch import nn

from lit_xai.network.calling import call_network, find_inputs
from lit_xai.network.opaque import kept_whole, opaque
from lit_xai.pruning.heads import every_part, find_heads, fused_layers, set_head_attributes_

ATTENTIONS = ["vit", "fused vit", "bert", "torch transformer"]


def tensors(network):
    return {
        name: value
        for name, value in [*network.named_parameters(), *network.named_buffers()]
        if value.is_floating_point()
    }


def cut(network, inputs, ratio):
    """Return a network pruned by Torch-Pruning, and the dense one with zeros for what it lost."""
    zeroed, small = copy.deepcopy(network), copy.deepcopy(network)
    for value in tensors(small).values():
        value.data = torch.arange(value.numel(), dtype=torch.float64).view(value.shape)
    heads, whole = find_heads(small), kept_whole(small)
    last = [m for m in small.modules() if isinstance(m, nn.Linear) and m.out_features in (4, 10)]
    with opaque(whole) as pruners:
        pruner = torch_pruning.pruner.BasePruner(
            small,
            inputs,
            torch_pruning.importance.RandomImportance(),
            pruning_ratio=ratio,
            ignored_layers=[*whole, *last],
            num_heads=dict(heads),
            in_channel_groups={},
            out_channel_groups={},
            customized_pruners=pruners,
        )
    pruner.step()
    set_head_attributes_(small, heads)
    dense = tensors(zeroed)
    with torch.no_grad():
        for name, value in tensors(small).items():
            kept = value.data.long().flatten()
            lost = torch.ones(dense[name].numel(), dtype=torch.bool).index_fill(0, kept, False)
            value.data = dense[name].flatten()[kept].view(value.shape)
            dense[name].masked_fill_(lost.view(dense[name].shape), 0.0)
    return small, zeroed


def doubled(name):
    network, inputs = make(name)
    return network.eval().double(), find_inputs(inputs, network) if isinstance(inputs, dict) else inputs.double()


@pytest.fixture
def channelwise(monkeypatch):
    """Normalize nothing and scale no scores by the width: both depend on the number of channels."""
    attention = nn.functional.scaled_dot_product_attention

    def affine(self, x):
        shape = [-1] + [1] * (x.dim() - 2) if isinstance(self, nn.GroupNorm) else [-1]
        return x * self.weight.view(shape) + self.bias.view(shape)

    monkeypatch.setattr(nn.LayerNorm, "forward", affine)
    monkeypatch.setattr(nn.GroupNorm, "forward", affine)
    monkeypatch.setattr(
        nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: attention(*args, **{**options, "scale": options.get("scale") or 0.5}),
    )


@pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")
@pytest.mark.parametrize("ratio", [0.5, 0.25, 0.3])
@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_as_zeroed(name, ratio, channelwise):
    network, inputs = doubled(name)
    small, zeroed = cut(network, inputs, ratio)
    torch.testing.assert_close(call_network(small, inputs), call_network(zeroed, inputs))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())


@pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")
@pytest.mark.parametrize("ratio", [0.5, 0.25, 0.3])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_as_many_heads_as_before(name, ratio):
    network, inputs = doubled(name)
    small, _ = cut(network, inputs, ratio)
    assert call_network(small, inputs).shape == (2, 10)
    assert list(find_heads(small).values()) == list(find_heads(network).values())
    for layer, heads in find_heads(small).items():
        if isinstance(layer, nn.Linear):
            assert layer.out_features % heads == 0
            former = {id(a): b for a, b in zip(small.modules(), network.modules(), strict=True)}[id(layer)]
            assert layer.out_features < former.out_features


def test_widths_of_attentions_are_set():
    small, _ = cut(*doubled("bert"), 0.5)
    attention = small.bert.encoder.layer[0].attention.self
    assert (attention.num_attention_heads, attention.attention_head_size, attention.all_head_size) == (3, 4, 12)


def test_scale_stays_as_it_was_built():
    with pytest.warns(UserWarning, match="Unwrapped parameters detected"):
        small, _ = cut(*doubled("fused vit"), 0.5)
    assert (small.blocks[0].attn.head_dim, small.blocks[0].attn.scale) == (4, 8**-0.5)


class Attention(FusedAttention):
    """Taken apart in another way."""

    def __init__(self, split):
        super().__init__(24, 3)
        self.split = split

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = self.split(self.qkv(x), 3, self.head_dim)
        mixed = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(B, N, -1))


def chunk(y, h, d):
    return [t.unflatten(-1, (h, d)).transpose(1, 2) for t in y.chunk(3, -1)]


def select(y, h, d):
    y = y.unflatten(-1, (3, h, d)).permute(2, 0, 3, 1, 4)
    return y[0], y[1], y[2]


def late(y, h, d):
    return [t.transpose(1, 2) for t in y.unflatten(-1, (3, h, d)).unbind(2)]


def early(y, h, d):
    return y.unflatten(-1, (3, h, d)).permute(2, 0, 3, 1, 4).unbind(0)


def per_head(y, h, d):
    return y.unflatten(-1, (h, 3, d)).permute(3, 0, 2, 1, 4).unbind(0)


@pytest.mark.parametrize("split", [chunk, select, late, early, per_head])
def test_every_part_of_a_fused_layer(split):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(24, 24), Attention(split)).double(), torch.randn(2, 5, 24).double()
    zeroed = copy.deepcopy(network)
    attention, heads, fused = network[1], find_heads(network), fused_layers(network, find_heads(network))
    graph = torch_pruning.DependencyGraph().build_dependency(network, x)
    gone = [head * 8 + i for head in range(3) for i in (1, 6)]
    group = graph.get_pruning_group(attention.proj, torch_pruning.prune_linear_in_channels, gone)
    indices = {dep.target.module: every_part(dep.target.module, found, fused) for dep, found in group}
    expected = [part * 24 + i for part in range(3) for i in gone]
    assert sorted(indices[attention.qkv]) == expected
    for dep, _ in group:
        dep(indices[dep.target.module])
    set_head_attributes_(network, heads)
    with torch.no_grad():
        zeroed[1].qkv.weight[expected] = 0
        zeroed[1].qkv.bias[expected] = 0
        zeroed[1].proj.weight[:, gone] = 0
    torch.testing.assert_close(network(x), zeroed(x))


def attention(heads, names, width=8, **attributes):
    module = nn.Module()
    for name in names:
        setattr(module, name, nn.Linear(8, width))
    for name, value in {"num_heads": heads, **attributes}.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (attention(2, ("q_proj", "k_proj", "v_proj", "out_proj")), [2, 2, 2]),
        (attention(4, ("wq", "wk", "wv"), num_key_value_heads=2), [4, 2, 2]),
        (attention(None, ("q_proj", "k_proj", "v_proj"), head_dim=4), [2, 2, 2]),
        (attention(2, ("c_attn", "c_proj"), 24), [2]),
        (attention(2, ("qkv",), 32), []),  # keys of another width than queries
        (attention(None, ("query", "key", "value")), []),
        (attention(True, ("query", "key", "value")), []),
        (attention(2, ("query", "key")), []),
        (nn.MultiheadAttention(8, 4), [4]),
    ],
)
def test_how_attentions_are_written(module, expected):
    assert list(find_heads(nn.Sequential(module)).values()) == expected


def test_width_of_tokens_is_no_width_of_heads():
    module = attention(2, ("query", "key", "value"), head_dim=4, embed_dim=8, dim=16)
    heads = find_heads(module)
    for layer in (module.query, module.key, module.value):
        layer.out_features = 6
    set_head_attributes_(module, heads)
    assert (module.head_dim, module.embed_dim, module.dim) == (3, 6, 16)


def test_heads_of_other_networks_are_none():
    assert not any(find_heads(make(name)[0]) for name in NETWORKS if name not in ATTENTIONS)
    assert len(find_heads(FusedViT())) == 2


class Rolled(nn.Module):
    """Cells in a loop, and the state rather than the outputs of what follows."""

    def __init__(self):
        super().__init__()
        self.first, self.cell = nn.Linear(8, 6), nn.LSTMCell(6, 5)
        self.second, self.lstm = nn.Linear(5, 4), nn.LSTM(4, 3, num_layers=2, bidirectional=True)
        self.hidden, self.head = nn.Linear(3, 7), nn.Linear(7, 10)

    def forward(self, x):
        state, found = None, []
        for step in self.first(x).unbind(0):
            state = self.cell(step, state)
            found.append(state[0])
        return self.head(self.hidden(self.lstm(self.second(torch.stack(found)))[1][0][-1]))


def test_recurrent_layers_stay_whole_in_every_form():
    network, x = Rolled(), torch.randn(3, 2, 8)
    layers, expected = kept_whole(network), network(x)
    with opaque(layers) as pruners:
        assert torch.equal(network(x), expected)
        graph = torch_pruning.DependencyGraph().build_dependency(network, x, customized_pruners=pruners)
        ignored = [*layers, network.head]
    groups = list(graph.get_all_groups(ignored))
    assert layers == [network.cell, network.lstm]
    assert [group[0].dep.target.module for group in groups] == [network.hidden]
    network(x).sum().backward()  # nothing of it is left
    assert all(p.grad is not None for p in network.parameters())


def test_attention_over_other_widths_stays_whole():
    odd, plain = nn.MultiheadAttention(8, 2, kdim=4), nn.MultiheadAttention(8, 2)
    assert kept_whole(nn.ModuleList([odd, plain])) == [odd, plain]
    assert kept_whole(plain) == []
