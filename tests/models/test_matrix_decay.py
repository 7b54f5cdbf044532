import torch
from torch import nn

from lit_xai.models import MatrixDecay, MatrixFactorization


def test_a_step_is_that_of_adamw_with_decay_of_matrices_alone():
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(MatrixFactorization(5, 7, factors=3, mean=3.5))
    mine, other = networks
    matrices = [other.user.weight, other.item.weight]
    rest = [other.user_bias.weight, other.item_bias.weight, *other.head.parameters()]
    groups = [{"params": matrices, "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    user, item = torch.arange(5), torch.arange(5)
    for network, optimizer in (
        (mine, MatrixDecay(mine.parameters(), lr=0.1, weight_decay=0.5)),
        (other, torch.optim.AdamW(groups, lr=0.1)),
    ):
        for _ in range(3):
            optimizer.zero_grad()
            network(user, item).square().sum().backward()
            optimizer.step()
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_network_without_matrices_has_one_group():
    assert len(MatrixDecay(nn.BatchNorm1d(3).parameters()).param_groups) == 1
