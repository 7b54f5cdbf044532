"""The witness: the network with its BatchNorms, in eval mode throughout."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.quantization.folding import find_foldable, fold_batch_norms_, per_weight
from lit_xai.quantization.unfolded import UnfoldedUpdates


def network():
    torch.manual_seed(0)
    found = nn.Sequential(
        nn.Conv2d(1, 6, 3, groups=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, groups=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(196, 5, bias=False),
        nn.BatchNorm1d(5),
    )
    with torch.no_grad():
        for norm in (found[1], found[4], found[8]):
            norm.running_var.uniform_(0.2, 6)
            norm.running_mean.normal_()
            norm.weight.uniform_(0.3, 2)
    return found.eval()


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-12),
}


def fold_scales(net, pairs):
    norms = {layer: net[int(norm)] for layer, norm in pairs}
    return {
        layer: per_weight(net[int(layer)], (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()).clone()
        for layer, norm in norms.items()
    }


def train(net, optimizer, steps=6):
    for step in range(steps):
        x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains_as_with_frozen_norms(name):
    whole = network()
    for norm in (whole[1], whole[4], whole[8]):
        norm.weight.requires_grad_(False)  # a folded layer has none
        norm.bias.requires_grad_(False)
    folded = copy.deepcopy(whole)
    pairs = find_foldable(folded, torch.zeros(2, 1, 8, 8))
    assert len(pairs) == 3
    scales = fold_scales(folded, pairs)
    fold_batch_norms_(folded, pairs)
    for layer in scales:
        folded[int(layer)].bias.requires_grad_(False)
    optimizer = OPTIMIZERS[name](folded.parameters())
    updates = UnfoldedUpdates([(folded[int(layer)].weight, s) for layer, s in scales.items()], [optimizer])
    train(whole, OPTIMIZERS[name](whole.parameters()))
    train(folded, optimizer)
    for layer, scale in scales.items():
        torch.testing.assert_close(folded[int(layer)].weight, scale * whole[int(layer)].weight, rtol=1e-3, atol=1e-5)
    updates.stop()
    before = {n: p.detach().clone() for n, p in folded.named_parameters()}
    plain = copy.deepcopy(folded)
    train(folded, torch.optim.SGD(folded.parameters(), lr=0.01), 1)
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.01), 1)
    assert all(torch.equal(a, b) for a, b in zip(folded.parameters(), plain.parameters(), strict=True))
    assert any(not torch.equal(before[n], p) for n, p in folded.named_parameters())


def test_frozen_weights_and_optimizers_of_others_are_left_alone():
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    mine, theirs = torch.optim.SGD([layer.bias], lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)
    updates = UnfoldedUpdates([(layer.weight, torch.full((2, 1), 0.5))], [mine, theirs])
    witness = copy.deepcopy(other)
    for net, optimizer in ((other, theirs), (witness, torch.optim.SGD(witness.parameters(), lr=0.1))):
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert torch.equal(other.weight, witness.weight)
    updates.stop()
    assert not layer.weight._backward_hooks
    assert not mine._optimizer_step_pre_hooks


@pytest.mark.parametrize("fused", [False, True])  # a fused optimizer is told of the overflow, others are not called
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_step_that_overflows_in_float16_moves_nothing(kind, fused):
    layer, scaler = nn.Linear(2, 2), torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = kind(layer.parameters(), lr=0.1, fused=fused)
    updates = UnfoldedUpdates([(layer.weight, torch.tensor([[0.3], [1.7]]))], [optimizer])
    for factor, moves in ((1.0, True), (torch.inf, False), (1.0, True)):
        before = [p.detach().clone() for p in layer.parameters()]
        optimizer.zero_grad()
        scaler.scale(layer(torch.ones(1, 2)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert [not torch.equal(p, old) for p, old in zip(layer.parameters(), before, strict=True)] == [moves] * 2
    updates.stop()
