"""Generated networks for ``(N, 2, 6, 6)`` to 3 classes: chains of modules and functions of every kind."""

import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor, nn

BUDGET = int(os.environ.get("PROPERTY_EXAMPLES", "0"))
"""Examples of each property; without it a few that are always the same."""


def bounded(examples: int) -> settings:
    """Settings of a property: so many examples in CI, those of the budget where there is one."""
    return settings(
        max_examples=BUDGET or examples,
        derandomize=not BUDGET,
        deadline=None,
        database=None,
        # Shrinking takes minutes, and a chain is short as it is.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


class Function(nn.Module):
    """A function as a module, which no method sees as such."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class IfLarge(nn.Module):
    """A module that needs some positions, and is left out where there are fewer."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) if min(x.shape[2:]) > 2 else x


class Residual(nn.Module):
    """``x + f(x)`` or ``x * sigmoid(f(x))``, both also by an operation that writes to its argument."""

    def __init__(self, inner: nn.Module, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.kind == "gate":
            return x * torch.sigmoid(y)
        if self.kind == "gate_":
            return (y * 1).sigmoid_() * x
        return (y * 1).add_(x) if self.kind == "sum_" else x + y


class Again(nn.Module):
    """A module that is used twice, with another in between."""

    def __init__(self, module: nn.Module, between: nn.Module) -> None:
        super().__init__()
        self.module, self.between = module, between

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.between(self.module(x)))


class Attention(nn.Module):
    """Attention over the positions of four channels, with the batch in first or second place."""

    def __init__(self, batch_first: bool, need_weights: bool) -> None:
        super().__init__()
        self.inner, self.need_weights = nn.MultiheadAttention(4, 2, batch_first=batch_first), need_weights

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens if self.inner.batch_first else tokens.transpose(0, 1)
        found = self.inner(tokens, tokens, tokens, need_weights=self.need_weights)[0]
        found = found if self.inner.batch_first else found.transpose(0, 1)
        return found.transpose(1, 2).reshape(x.shape)


class OwnReLU(nn.ReLU):
    """A subclass."""


def conv() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


# Every activation of torch that takes four channels; the rest is below.
_SPECIAL = {"MultiheadAttention": None, "Threshold": (0.1, -0.2), "GLU": None, "Softmax": (1,), "LogSoftmax": (1,)}
_SPECIAL |= {"Softmin": (1,)}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    name: (lambda name=name: getattr(nn, name)(*(_SPECIAL.get(name) or ())))
    for name in nn.modules.activation.__all__
    if _SPECIAL.get(name, ()) is not None
}
JUMPS = ("Hardshrink", "Threshold", "sign")
"""Activations that are not continuous: their steps no path integral sees."""

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu_": lambda x: (x * 1).relu_(),
    "F.relu, in place": lambda x: F.relu(x * 1, inplace=True),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "softsign": lambda x: x / (1 + x.abs()),
    "square": lambda x: x * x,
    "cube": lambda x: 0.1 * x**3,
    "glu": lambda x: F.glu(torch.cat([x, x.flip(1)], 1), 1),
    "softmax": lambda x: x.softmax(2),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "logsumexp": lambda x: x + x.logsumexp(1, keepdim=True),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[2:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[1:], eps=1e-3),
    "group_norm": lambda x: F.group_norm(x, 2, eps=1e-3),
    "normalize": lambda x: F.normalize(x, dim=1, eps=1e-3),
    "local_response_norm": lambda x: F.local_response_norm(x, 2),
    "maximum": lambda x: torch.maximum(x, x.roll(1, 1)),
    "min": lambda x: torch.min(x, -x),
    "max": lambda x: x - x.max(1, keepdim=True).values,
    "amin": lambda x: x - x.amin((2, 3), keepdim=True),
    "matmul": lambda x: x @ x.transpose(2, 3) / 4 if x.shape[2] == x.shape[3] else x,
    "einsum": lambda x: x + torch.einsum("nchw,nchw->nc", x, x)[..., None, None] / 9,
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "positions first": lambda x: torch.relu(x.permute(2, 0, 1, 3)).permute(1, 2, 0, 3),
    "samples flat": lambda x: torch.tanh(x.reshape(-1, x.shape[-1])).reshape(x.shape),
}
POOLS: dict[str, Callable[[], nn.Module]] = {
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "MaxPool2d, overlapping": lambda: nn.MaxPool2d(3, 1, 1),
    "MaxPool2d, of ResNet": lambda: nn.MaxPool2d(3, 2, 1),
    "MaxPool2d, dilated": lambda: nn.MaxPool2d(2, 1, dilation=2),
    "MaxPool2d, ceil_mode": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(2),
    "AvgPool2d": lambda: nn.AvgPool2d(2),
    "LPPool2d": lambda: nn.LPPool2d(2, 2),
}
NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "GroupNorm": lambda: nn.GroupNorm(2, 4, eps=1e-3),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True, eps=1e-3),
}
LINEAR: dict[str, Callable[[], nn.Module]] = {
    "Conv2d": conv,
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "AvgPool2d": lambda: IfLarge(nn.AvgPool2d(2)),
    "Identity": nn.Identity,
    "Dropout": nn.Dropout,
    "sum": lambda: Function(lambda x: x + 0.5 * x.flip(1)),
    "permute": lambda: Function(lambda x: x.transpose(2, 3)),
}


def pieces(jumps: bool = True) -> st.SearchStrategy[nn.Module]:
    """One link of a chain, from and to four channels."""
    named = {name: make for name, make in ACTIVATIONS.items() if jumps or name not in JUMPS}
    activation = st.sampled_from(sorted(named)).map(lambda name: named[name]())
    function = st.sampled_from(sorted(FUNCTIONS)).map(lambda name: Function(FUNCTIONS[name]))
    pool = st.sampled_from(sorted(POOLS)).map(lambda name: IfLarge(POOLS[name]()))
    norm = st.sampled_from(sorted(NORMS)).map(lambda name: IfLarge(NORMS[name]()))
    plain = st.one_of(activation, activation, function, function)
    inner = st.tuples(st.builds(conv), plain).map(lambda parts: nn.Sequential(*parts))
    kinds = st.sampled_from(["sum", "sum_", "gate", "gate_"])
    return st.one_of(
        *(plain, plain, pool, pool, norm, st.builds(conv), st.just(OwnReLU()), st.builds(Residual, inner, kinds)),
        st.builds(Again, st.one_of(activation, st.builds(conv)), st.one_of(st.builds(conv), activation)),
        st.builds(Attention, st.booleans(), st.booleans()),
    )


def linear_pieces() -> st.SearchStrategy[nn.Module]:
    """One link of a linear chain."""
    return st.sampled_from(sorted(LINEAR)).map(lambda name: LINEAR[name]())


@st.composite
def chains(
    draw: st.DrawFn, links: st.SearchStrategy[nn.Module] | None = None, bias: bool = True, most: int = 5
) -> nn.Module:
    """A network in float64 and eval mode, with weights by a drawn seed and BatchNorm statistics that moved."""
    parts = draw(st.lists(pieces() if links is None else links, min_size=1, max_size=most))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *parts, nn.Flatten(), nn.LazyLinear(3)).double()
    with torch.no_grad():
        network(torch.randn(5, 2, 6, 6, dtype=torch.float64))
        for parameter in network.parameters():  # the modules were built while drawing
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5)
        for module in network.modules():
            if not bias and getattr(module, "bias", None) is not None:
                module.bias.zero_()
        network(torch.randn(5, 2, 6, 6, dtype=torch.float64))
    return network.eval()


@st.composite
def samples(draw: st.DrawFn, least: int = 2, most: int = 4) -> Tensor:
    """Images ``(N, 2, 6, 6)``, some of whose features are equal to a baseline of zero."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(draw(st.integers(least, most)), 2, 6, 6, dtype=torch.float64)
    return torch.where(torch.rand_like(x) < 0.2, 0.0, x)


RAMP = torch.linspace(-1, 1, 72, dtype=torch.float64).reshape(1, 2, 6, 6)
"""A baseline no two features of which are equal."""


def baselines() -> st.SearchStrategy[Tensor | None]:
    """No baseline, or one image."""
    return st.sampled_from([None, RAMP])
