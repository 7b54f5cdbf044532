"""Small networks in the manner of MobileNetV3 and EfficientNet: depthwise convolutions, gates, smooth activations."""

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class Gate(nn.Module):
    """Squeeze and excite: each channel times a number from 0 to 1 that depends on all of them."""

    def __init__(self, channels: int, inner: nn.Module, outer: nn.Module) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.pool, self.inner, self.outer = nn.AdaptiveAvgPool2d(1), inner, outer

    def forward(self, x: Tensor) -> Tensor:
        return x * self.outer(self.up(self.inner(self.down(self.pool(x)))))


class Inverted(nn.Module):
    """Widens, convolves each channel alone, gates, narrows, and adds its input where that has the same shape."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Callable[[], nn.Module], gate: nn.Module
    ) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), activation()),
            *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), activation()),
            gate,
            *(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.is_residual else self.body(x)


class Gated(nn.Module):
    """A stem, inverted residual blocks, a last convolution and a classifier."""

    def __init__(
        self, activation: Callable[[], nn.Module], make_gate: Callable[[int], nn.Module], width: int = 16
    ) -> None:
        super().__init__()
        sizes = [(width, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1), (2 * width, 3 * width, 2)]
        sizes += [(3 * width, 3 * width, 1)]
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), activation())
        self.blocks = nn.Sequential(*(Inverted(i, o, s, activation, make_gate(4 * i)) for i, o, s in sizes))
        wide = 8 * width
        self.last = nn.Sequential(nn.Conv2d(3 * width, wide, 1, bias=False), nn.BatchNorm2d(wide), activation())
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(wide, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.last(self.blocks(self.stem(x)))).flatten(1))


def mobile(width: int = 16) -> nn.Module:
    """Return a network with hard-swish and hard-sigmoid gates, as MobileNetV3."""
    return Gated(nn.Hardswish, lambda channels: Gate(channels, nn.ReLU(), nn.Hardsigmoid()), width)


def efficient(width: int = 16) -> nn.Module:
    """Return a network with SiLU and sigmoid gates, as EfficientNet."""
    return Gated(nn.SiLU, lambda channels: Gate(channels, nn.SiLU(), nn.Sigmoid()), width)


def relu6(width: int = 16) -> nn.Module:
    """Return a network with ReLU6 and no gates, as MobileNetV2."""
    return Gated(nn.ReLU6, lambda _: nn.Identity(), width)
