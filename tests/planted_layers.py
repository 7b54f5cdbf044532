"""Networks with one layer that integers ruin, trained briefly on digits; what they compute in float is unchanged."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_xai.data import Digits

HUGE = 2000.0
"""The factor of the planted channel: all other channels of its tensor get the same few integers."""


class Plain(nn.Module):
    """Convolutions, one of them depthwise, with an activation between each and the next."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.wide, self.last = nn.Conv2d(12, 24, 3, 2, 1), nn.Conv2d(24, 24, 3, padding=1)
        self.head, self._activation = nn.Linear(24, 10), activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.stem, self.deep, self.wide, self.last):
            x = self._activation(layer(x))
        return self.head(x.mean((2, 3)))


class Normalized(nn.Module):
    """A BatchNorm behind the activation, which has no layer to be folded into, takes the planted channel back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm, self.wide = nn.BatchNorm2d(12), nn.Conv2d(12, 24, 3, 2, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.deep(F.relu(self.stem(x)))))
        return self.head(F.relu(self.wide(x)).mean((2, 3)))


class Gain(nn.Module):
    """Multiplies each channel, as a gate does: no layer of any kind."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class Multiplied(nn.Module):
    """A multiplication between two convolutions, behind a hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gain, self.wide = nn.Conv2d(1, 12, 3, padding=1), Gain(12), nn.Conv2d(12, 24, 3, 2, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.hardswish(self.wide(self.gain(F.hardswish(self.stem(x))))).mean((2, 3)))


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x.flatten(1))))))


@functools.cache
def digits() -> tuple[list[Any], list[Any]]:
    """Return batches of training and validation data."""
    data = Digits(batch_size=256)
    data.prepare_data()
    data.setup("fit")
    torch.manual_seed(0)
    return list(data.train_dataloader()), list(data.val_dataloader())


@functools.cache
def _trained(make: Callable[[], nn.Module], epochs: int) -> nn.Module:
    torch.manual_seed(0)
    network = make()
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    for _ in range(epochs):
        for x, y in digits()[0]:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
    return network.eval()


def trained(make: Callable[[], nn.Module], epochs: int = 20) -> nn.Module:
    """Return a network of its own, trained once per process."""
    return copy.deepcopy(_trained(make, epochs))


@torch.no_grad()
def plant_(network: Any, layer: str, following: str, channel: int = 3, factor: float = HUGE) -> nn.Module:
    """Multiply the weights of one channel, and have what follows take that back."""
    bad, after = network.get_submodule(layer), network.get_submodule(following)
    bad.weight[channel] *= factor
    bad.bias[channel] *= factor
    if isinstance(after, nn.BatchNorm2d):
        after.running_mean[channel] *= factor
        after.running_var[channel] = (after.running_var[channel] + after.eps) * factor**2
    elif after.weight.size(1) == 1:  # depthwise
        after.weight[channel] /= factor
    else:
        after.weight[:, channel] /= factor
    return network


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """Return the accuracy on the validation data."""
    right = [(network(x).argmax(1) == y).float() for x, y in digits()[1]]
    return float(torch.cat(right).mean())
