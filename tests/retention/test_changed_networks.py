"""Untrained copies and rounded weights."""

import pytest
import torch
from torch import nn

from lit_xai.models import ResNet, VisionTransformer
from lit_xai.retention.changed_networks import renew_statistics_, rounded_copy, untrained_copy


class Own(nn.Module):
    """It has parameters of its own, which nothing says how to initialize."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.arange(12.0).reshape(3, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x * self.scale, x, x)[0].flatten(1)


def trained(network, x):
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    return network


CASES = {
    "resnet": (lambda: ResNet(8, 4, in_channels=1), torch.randn(16, 1, 8, 8)),
    "vit": (
        lambda: VisionTransformer(image_size=8, patch_size=4, in_channels=1, dim=16, depth=1, heads=2),
        torch.randn(16, 1, 8, 8),
    ),
    "own": (Own, torch.randn(16, 3, 4)),
}


@pytest.mark.parametrize("case", CASES)
def test_untrained_copies_know_nothing_of_the_weights(case):
    build, x = CASES[case]
    torch.manual_seed(0)
    network = trained(build(), x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    copies = [untrained_copy(network, seed, lambda one: one(x)) for seed in (5, 5, 6)]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    first, again, other = (one.state_dict() for one in copies)
    assert all(torch.equal(first[name], again[name]) for name in first)
    large = [name for name, p in network.named_parameters() if p.numel() > 8 and p.unique().numel() > 1]
    assert large
    for name in large:
        assert not torch.equal(first[name], before[name])
        if first[name].unique().numel() > 1:
            assert not torch.equal(first[name], other[name])
            same = torch.corrcoef(torch.stack([first[name].flatten(), before[name].flatten()]))[0, 1]
            assert abs(same) < 0.9


def test_the_distribution_is_that_of_the_initialization():
    """A trained layer with weights ten times as large becomes as small as a new one."""
    layer = nn.Linear(100, 100)
    with torch.no_grad():
        layer.weight.mul_(10)
    assert untrained_copy(layer, 0, lambda one: None).weight.abs().max() <= 0.1 + 1e-6


def test_hugging_face_models_initialize_their_parts():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    network = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(50)
    copied = untrained_copy(network, 0, lambda one: None)
    assert copied.bert.embeddings.word_embeddings.weight.std() < 0.05  # 0.02 by the config, not 1
    assert not copied.training


def test_statistics_are_taken_anew():
    norm, x = nn.BatchNorm1d(3), torch.randn(64, 3) * 2 + 1
    norm.running_mean.fill_(7)
    renew_statistics_(norm, lambda one: (one(x[:32]), one(x[32:])))
    assert torch.allclose(norm.running_mean, x.mean(0), atol=1e-5)
    assert norm.momentum == 0.1
    assert not norm.training


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounded_weights_have_so_many_levels(bits):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 5, 3), nn.Flatten(), nn.LazyLinear(7))
    network(torch.zeros(1, 3, 8, 8))
    copied = rounded_copy(network, bits)
    for layer, dim in ((0, 0), (1, 1), (3, 0)):
        weight, old = copied[layer].weight.transpose(0, dim), network[layer].weight.transpose(0, dim)
        assert all(len(channel.unique()) <= 2**bits - 1 for channel in weight)
        steps = old.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
        assert ((weight - old).flatten(1).abs().amax(1) <= steps / 2 + 1e-6).all()
        assert torch.equal(copied[layer].bias, network[layer].bias)
