"""Tiny networks in every state that a network is found in, shared by the tests."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def mlp() -> nn.Sequential:
    """``(N, 5)`` to 3 classes."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def plain_cnn() -> nn.Sequential:
    """``(N, 2, 6, 6)`` to 3 classes, of modules that every method of Captum knows by itself.

    No two that Captum's DeepLift rewrites follow each other, which it gets wrong.
    """
    torch.manual_seed(2)
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.Dropout(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
        *(nn.AvgPool2d(3), Reshape(nn.Linear(4, 3))),
    ).eval()


def cnn() -> nn.Sequential:
    """``(N, 2, 6, 6)`` to 3 classes, with BatchNorm whose statistics moved, and dropout."""
    torch.manual_seed(3)
    network = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(36, 3)),
    )
    with torch.no_grad():
        network(torch.randn(16, 2, 6, 6) + 1)
    return network.eval()


class Reshape(nn.Module):
    """Flattens by a function call, then runs the module inside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.flatten(1))


class Observer(nn.Module):
    """Like a fake-quantize observer: its range moves in eval mode too, and is resized on first use."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.empty(0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.replaced = torch.zeros(())  # no buffer, and not written to but replaced

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.stack([x.detach().min(), x.detach().max()])
        if self.range.numel() == 0:
            self.range.resize_(2).copy_(seen)
        self.range.lerp_(seen, 0.1)
        self.count += 1
        self.replaced = seen
        return x.clone()


class TwoInputs(nn.Module):
    """Two float inputs, an integer one that is passed through, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.left, self.right = nn.Linear(5, 3), nn.Linear(4, 3)
        self.group = nn.Embedding(7, 3)

    def forward(
        self, left: Tensor, right: Tensor, group: Tensor | None = None, scale: Tensor | float = 1.0, mode: str = "sum"
    ) -> Tensor:
        logits = torch.tanh(self.left(left)) * self.right(right) * scale
        logits = logits if group is None else logits + self.group(group)
        return logits if mode == "sum" else logits / 2


class Tokens(nn.Module):
    """Integer tokens ``(N, L)`` to 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embedding = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embedding(tokens)).mean(1))


class FunctionalReLU(nn.Module):
    """A rectifier that no method sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Shared(nn.Module):
    """One module under two names, and used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first = nn.Linear(5, 5)
        self.again = self.first
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.again(torch.tanh(self.first(x)))))


class Interrupted(nn.Module):
    """Raises at a given call, like a network that runs out of memory, or a Ctrl-C."""

    def __init__(self, network: nn.Module, at_call: int, error: type[BaseException]) -> None:
        super().__init__()
        self.network, self.at_call, self.error = network, at_call, error
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at_call:
            raise self.error("interrupted")
        return self.network(x)


def _mixed_modes() -> nn.Module:
    network = cnn().train()
    network[1].eval()
    return network


def _frozen() -> nn.Module:
    network = cnn().train()
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    return network


def _hooked() -> nn.Module:
    network = cnn().train()
    network[0].register_forward_hook(lambda module, args, out: out * 2)
    network[0].register_forward_pre_hook(lambda module, args: None)
    network[6].register_full_backward_hook(lambda module, given, out: None)
    network.register_state_dict_post_hook(lambda *args: None)
    return network


def _weight_norm() -> nn.Module:
    network = cnn().train()
    weight_norm(network[0])
    weight_norm(network[6])
    return network


def _observed() -> nn.Module:
    return nn.Sequential(Observer(), *cnn()).train()


def _with_grad() -> nn.Module:
    network = cnn().train()
    network(torch.ones(2, 2, 6, 6)).sum().backward()
    return network


STATES: dict[str, Callable[[], nn.Module]] = {
    "training": lambda: cnn().train(),
    "mixed modes": _mixed_modes,
    "frozen": _frozen,
    "hooked": _hooked,
    "weight norm": _weight_norm,
    "observed": _observed,
    "with gradients": _with_grad,
}
"""Networks for ``(N, 2, 6, 6)``, 3 classes, in states that an explanation must not change."""
