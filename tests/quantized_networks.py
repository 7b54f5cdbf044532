"""Small networks of every kind that quantization has to handle, and the integer operators a runtime uses for each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from lit_xai.models import MLP, ResNet, VisionTransformer
from lit_xai.quantization.quantization import quantize


class Residual(nn.Module):
    """BatchNorm, one ReLU for all, max-pooling, a residual sum with a projection, a mean, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.norm1 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.short, self.short_norm = nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16)
        self.relu, self.pool, self.head = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem_norm(self.stem(x))))
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.head(self.relu(y + self.short_norm(self.short(x))).mean((2, 3)))


class Preactivation(nn.Module):
    """BatchNorms that come before their convolutions, and have no layer to be folded into."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.norm2, self.head = nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv1(F.relu(self.norm1(x)))
        return self.head(F.relu(self.norm2(x)).mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise convolutions, hardswish, ReLU6, and a gate on channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.norm = (
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
            nn.BatchNorm2d(8),
        )
        self.down, self.up, self.out = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 16, 1)
        self.act, self.head = nn.Hardswish(), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.deep(self.act(self.stem(x)))))
        x = x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(self.out(x).mean((2, 3)))


class Dense(nn.Module):
    """Each layer takes the outputs of all layers before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1)
        self.layers, self.head = nn.ModuleList(nn.Conv2d(8 * n, 8, 3, padding=1) for n in (1, 2)), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for layer in self.layers:
            x = torch.cat([x, layer(x).relu()], 1)
        return self.head(x.mean((2, 3)))


class InPlace(nn.Module):
    """Sums and ReLUs in place, also on tensors that other operators have taken before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.relu, self.conv3, self.head = nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(x))
        y = self.conv2(x)
        y += x
        z = self.conv3(y)  # sees y before it is rectified
        z.add_(self.relu(y))
        return self.head(F.relu_(z).mean((2, 3)))


class Segmentation(nn.Module):
    """Two convolutions that return the logits, and an upsampling between them."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm, self.up = nn.Conv2d(1, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 8, 2, 2)
        self.out, self.edges = nn.Conv2d(8, 10, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.up(F.relu(self.norm(self.down(x)))))
        return {"logits": self.out(x), "edges": self.edges(x) * 100}


class UNet(nn.Module):
    """A convolution's output goes two ways: pooled to the next convolution, and unchanged to the last."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.out = nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(x))
        y = F.relu(self.deep(F.max_pool2d(x, 2)))
        return self.out(torch.cat([x, F.interpolate(y, scale_factor=2)], 1))


class TwoConvolutions(nn.Module):
    """Returns the outputs of two convolutions, of very different magnitude."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(1, 10, 3, 2, 1), nn.Conv2d(1, 4, 3, 2, 1)
        with torch.no_grad():
            self.small.weight *= 0.01
            self.small.bias *= 0.01

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.large(x), self.small(x)


class Twice(nn.Module):
    """One convolution that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.conv(self.conv(x).relu()).relu().mean((2, 3)))


def _weight_normed() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten())
    network.append(nn.Linear(32, 10))
    weight_norm(network[0])
    weight_norm(network[2])
    return network


class Attention(nn.Module):
    """torch's own transformer encoder on rows of pixels, and attention to them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.look, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x.squeeze(1))
        x = self.encoder(rows)
        return self.head(self.look(x, rows, rows)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.squeeze(1))[0][:, -1])


class Signal(nn.Module):
    """Convolutions over time, and a leaky ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.Conv1d(8, 8, 3)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv1(x.squeeze(1))))
        return self.head(F.leaky_relu(self.conv2(x)).mean(2))


class Ratings(nn.Module):
    """Takes a dict, and returns one."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items, self.hidden = nn.Embedding(7, 8), nn.Linear(3, 8), nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, user: Tensor, item: Tensor) -> dict[str, Any]:
        found = torch.cat([self.users(user), self.items(item)], 1)
        return {"scores": self.head(F.relu(self.hidden(found))), "text": "more"}


class Keywords(nn.Module):
    """Calls functions with keyword arguments, on parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 1, 3, 3) / 3)
        self.shift, self.matrix = nn.Parameter(torch.randn(8) / 8), nn.Parameter(torch.randn(10, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(stride=2, padding=1, bias=self.shift, weight=self.kernel, input=x)
        return F.linear(weight=self.matrix, input=torch.relu(x).mean((2, 3)))


class Checkpointed(nn.Module):
    """Recomputes a submodule in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1)
        self.body, self.head = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = checkpoint(self.body, x, use_reentrant=False) if torch.is_grad_enabled() else self.body(x)
        return self.head(x.relu().mean((2, 3)))


class Parent(nn.Module):
    """Runs one network twice."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) - self.network(x.flip(3))


class Patched(nn.Module):
    """Writes into a convolution's output, and splits it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.left, self.right = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(4, 8, 3, 1, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x[:, :, 0] = 3.0
        left, right = x.relu().chunk(2, 1)
        return self.head((self.left(left) + self.right(right)).relu().mean((2, 3)))


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(**sizes, intermediate_size=32, num_labels=10))


def _images(n: int) -> Tensor:
    return torch.randn(n, 1, 8, 8)


def _ratings(n: int) -> dict[str, Tensor]:
    return {"user": torch.randint(7, (n,)), "item": torch.randn(n, 3)}


def _sentences(n: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(20, (n, 6)), "attention_mask": torch.ones(n, 6, dtype=torch.long)}


@dataclass(frozen=True)
class Case:
    """One network and the expectations of it.

    Args:
        make: makes it.
        convs: how many integer convolutions ONNX Runtime runs for it.
        adds: how many integer sums.
        products: how many integer products of linear layers.
        inputs: makes what it is called with, for so many samples.
        options: how its output is read.
        floats: of its layers, those that stay in float.
        tables: of its layers, those that are looked up in.
    """

    make: Callable[[], nn.Module]
    convs: int = 0
    adds: int = 0
    products: int = 0
    inputs: Callable[[int], Any] = _images
    options: dict[str, Any] = field(default_factory=dict)
    floats: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


NETWORKS: dict[str, Case] = {
    "mlp": Case(lambda: MLP(64, (24, 16), 10), products=3),
    "residual": Case(Residual, 4, 1, 1),
    "resnet": Case(lambda: ResNet(8, width=8, in_channels=1), 9, 3, 1),
    "preactivation": Case(Preactivation, 2, 1, 1, floats=("norm1", "norm2")),
    "mobile": Case(Mobile, 5, 0, 1),
    "dense": Case(Dense, 3, 0, 1),
    "in place": Case(InPlace, 3, 2, 1),
    "segmentation": Case(Segmentation, 2, 0, 0, floats=("norm", "up")),
    "unet": Case(UNet, 3, 0, 0),
    "two convolutions": Case(TwoConvolutions, 1, 0, 0),
    "twice": Case(Twice, 3, 0, 1),
    "weight norm": Case(_weight_normed, 2, 0, 1),
    "attention": Case(Attention, 0, 0, 9, floats=("encoder.layers.0.norm1", "encoder.layers.0.norm2")),
    "vit": Case(
        lambda: VisionTransformer(8, 4, 1, 10, dim=16, depth=1, heads=2),
        1,
        0,
        7,
        floats=("blocks.0.norm1", "blocks.0.norm2", "norm"),
    ),
    "bert": Case(
        _bert,
        0,
        0,
        8,
        _sentences,
        floats=(
            "bert.embeddings.LayerNorm",
            "bert.encoder.layer.0.attention.output.LayerNorm",
            "bert.encoder.layer.0.output.LayerNorm",
        ),
        tables=tuple(f"bert.embeddings.{kind}_embeddings" for kind in ("word", "token_type", "position")),
    ),
    "recurrent": Case(Recurrent, 0, 0, 1, floats=("lstm",)),
    "signal": Case(Signal, 2, 0, 1),
    "ratings": Case(Ratings, 0, 0, 3, _ratings, {"output": "scores"}, tables=("users",)),
    "keywords": Case(Keywords, 1, 0, 1),
    "checkpointed": Case(Checkpointed, 3, 0, 1),
    "patched": Case(Patched, 3, 1, 1),
    "parent": Case(Parent, 2, 0, 2),
}


def make(name: str, n: int = 16) -> tuple[nn.Module, Any]:
    """Return a network in eval mode with non-trivial BatchNorms, and its inputs."""
    torch.manual_seed(0)
    case = NETWORKS[name]
    network = case.make()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network.eval(), case.inputs(n)


def quantized(name: str = "residual", **options: Any) -> tuple[nn.Module, Any]:
    """Return the quantized network, and its inputs."""
    network, x = make(name)
    return quantize(network, [x], progress=False, **NETWORKS[name].options, **options), x
