"""Normalizations over groups and attentions are cut exactly, and the comparison with zeros sees a cut that is not."""

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_xai.network.calling import call_network
from lit_xai.network.layers import channels
from lit_xai.pruning.masked import mixes_up_channels
from lit_xai.pruning.pruning import prune_step
from lit_xai.structure.kinds import apply_step_


class Normalized(nn.Module):
    """Two convolutions, each with a norm behind it, around a residual sum."""

    def __init__(self, first, second):
        super().__init__()
        self.stem, self.norm1, self.body, self.norm2 = (
            nn.Conv2d(2, 16, 3),
            first,
            nn.Conv2d(16, 16, 3, padding=1),
            second,
        )
        self.hidden, self.head = nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.norm1(self.stem(x)).relu()
        x = (x + self.norm2(self.body(x))).relu()
        return self.head(self.hidden(x.mean((2, 3))).relu())


class Attending(nn.Module):
    """Tokens that attend to each other, or to others; some of them are padding."""

    def __init__(self, crossed=False, need_weights=False, **options):
        super().__init__()
        self.need_weights = need_weights
        self.embed, self.memory = nn.Linear(3, 16), nn.Linear(3, 16) if crossed else None
        self.attention = nn.MultiheadAttention(16, batch_first=True, **options)
        self.norm, self.hidden, self.head = nn.LayerNorm(16), nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x):
        x, seen = self.embed(x), self.embed(x) if self.memory is None else self.memory(x.flip(1))
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, -1] = True
        y = self.attention(x, seen, seen, key_padding_mask=padding, need_weights=self.need_weights)[0]
        return self.head(self.hidden(self.norm(x + y)).relu().mean(1))


class Encoded(nn.Module):
    def __init__(self, layer, **options):
        super().__init__()
        self.embed, self.layer = nn.Linear(3, 16), layer(16, 4, 24, batch_first=True, **options)
        self.hidden, self.head = nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.embed(x)
        x = self.layer(x, x) if isinstance(self.layer, nn.TransformerDecoderLayer) else self.layer(x)
        return self.head(self.hidden(x).relu().mean(1))


def images():
    return torch.randn(2, 2, 6, 6)


def sequences():
    return torch.randn(2, 5, 3)


NORMS = {
    "batch": lambda: Normalized(nn.BatchNorm2d(16), nn.BatchNorm2d(16)),
    "one group": lambda: Normalized(nn.GroupNorm(1, 16), nn.GroupNorm(1, 16)),
    "two and four groups": lambda: Normalized(nn.GroupNorm(2, 16), nn.GroupNorm(4, 16)),
    "eight groups": lambda: Normalized(nn.GroupNorm(8, 16), nn.GroupNorm(8, 16)),
    "every channel": lambda: Normalized(nn.InstanceNorm2d(16, affine=True), nn.GroupNorm(2, 16)),
    "without scale": lambda: Normalized(nn.GroupNorm(4, 16, affine=False), nn.BatchNorm2d(16)),
}
ATTENTIONS = {
    "one head": lambda: Attending(num_heads=1),
    "two heads": lambda: Attending(num_heads=2),
    "four heads": lambda: Attending(num_heads=4, bias=False),
    "to others": lambda: Attending(crossed=True, num_heads=2),
    "with a bias for keys": lambda: Attending(num_heads=2, add_bias_kv=True),
    "with its weights": lambda: Attending(num_heads=2, need_weights=True),
    "encoder layer": lambda: Encoded(nn.TransformerEncoderLayer),
    "encoder layer, norm first": lambda: Encoded(nn.TransformerEncoderLayer, norm_first=True),
    "decoder layer": lambda: Encoded(nn.TransformerDecoderLayer),
}
ALL = {**NORMS, **ATTENTIONS}


def made(name):
    torch.manual_seed(0)
    network, inputs = ALL[name]().eval().double(), (images() if name in NORMS else sequences()).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return network, inputs


@pytest.fixture
def channelwise(monkeypatch):
    """Normalize, and scale scores, by nothing that depends on the number of channels."""

    def affine(x, weight, bias, dim):
        shape = [-1] + [1] * (x.dim() - 2) if dim == 1 else [-1]
        for factor, apply in ((weight, torch.mul), (bias, torch.add)):
            x = x if factor is None else apply(x, factor.view(shape))
        return x

    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: affine(x, self.weight, self.bias, -1))
    monkeypatch.setattr(nn.GroupNorm, "forward", lambda self, x: affine(x, self.weight, self.bias, 1))
    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **kw: attention(*a, **{**kw, "scale": 0.5}))
    monkeypatch.setattr(F.math, "sqrt", lambda value: 0.5)  # the scale where weights are returned
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(fast)


@pytest.mark.parametrize("ratio", [0.5, 0.25])
@pytest.mark.parametrize("name", ALL)
def test_a_cut_network_computes_what_the_network_does_with_these_channels_at_zero(name, ratio, request):
    network, inputs = made(name)
    step = prune_step(network, inputs, pruning_ratio=ratio)
    pruned, zeroed = copy.deepcopy(network), copy.deepcopy(network)
    apply_step_(pruned, step)
    tensors = {**dict(zeroed.named_parameters()), **dict(zeroed.named_buffers())}
    for key, dim, size, kept in step["kept"]:
        tensors[key].data.index_fill_(dim, torch.tensor(sorted(set(range(size)) - set(kept))), 0.0)
    request.getfixturevalue("channelwise")  # not before: the cut was decided with the real ones
    torch.testing.assert_close(call_network(pruned, inputs), call_network(zeroed, inputs))
    left, dense = channels(pruned), channels(network)
    assert all(left[layer] < dense[layer] for layer in dense if layer != "head"), "something was kept without need"


def test_an_attention_with_a_column_of_zeros_stays_whole_and_is_named():
    with pytest.warns(UserWarning, match="Attending keeps channels that it cannot lose: embed"):
        step = prune_step(Attending(num_heads=2, add_zero_attn=True), sequences())
    assert {key for key, *_ in step["kept"]} == {"hidden.weight", "hidden.bias", "head.weight"}


@pytest.mark.parametrize("name", ALL)
def test_the_comparison_with_zeros_sees_channels_at_a_wrong_place(name):
    network, inputs = made(name)
    step = prune_step(network, inputs, pruning_ratio=0.25)
    now = [network]

    def compared(taken):
        @contextlib.contextmanager
        def cut():
            now[0] = copy.deepcopy(network)  # with the values that the comparison has put in
            apply_step_(now[0], taken)
            yield step["kept"]
            now[0] = network

        return mixes_up_channels(network, lambda: [call_network(now[0], inputs)], cut)

    assert not compared(step)
    # One layer keeps the inputs beside those that it should keep.
    wrong = copy.deepcopy(step)
    entry = next(entry for entry in wrong["kept"] if entry[0] == "hidden.weight" and entry[1] == 1)
    entry[3] = sorted((index + 1) % entry[2] for index in entry[3])
    assert compared(wrong)
