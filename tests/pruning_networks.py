"""Small networks of every kind that pruning has to get right, 10 outputs each, shared by the tests."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_xai.models import MLP, ResNet, VisionTransformer


class VGG(nn.Module):
    """Convolution, normalization, rectifier, pooling; the classifier sees every pixel of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(12 * 4, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow, add: MobileNetV2's block."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(dim, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, dim, 1, bias=False), nn.BatchNorm2d(dim)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SqueezeExcite(nn.Module):
    """Weigh channels by what their means say."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(dim, hidden, 1), nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm over channels that come last, and a scale per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.fc2(F.gelu(self.fc1(y)))
        return x + y.permute(0, 3, 1, 2)


class ScaledConvNeXtBlock(ConvNeXtBlock):
    """The same with a scale of shape ``(C, 1, 1)``, as torchvision's."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.gamma = nn.Parameter(torch.full((dim, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc2(F.gelu(self.fc1(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return x + self.gamma * y.permute(0, 3, 1, 2)


class ImageNet(nn.Module):
    """A stem, a body that keeps the number of channels, their means, a head."""

    def __init__(self, dim: int, *body: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(1, dim, 3, padding=1), nn.Sequential(*body), nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x).relu()).mean((2, 3)))


class DenseNet(nn.Module):
    """Each layer sees what all before it have found."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, growth, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(growth * n) for n in (1, 2, 3))
        self.layers = nn.ModuleList(nn.Conv2d(growth * n, growth, 3, padding=1) for n in (1, 2))
        self.head = nn.Linear(growth * 3, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = torch.cat([x, layer(norm(x).relu())], 1)
        return self.head(self.norms[-1](x).relu().mean((2, 3)))


class FusedAttention(nn.Module):
    """Query, key and value from one layer, as timm writes it."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = num_heads, dim // num_heads, (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(B, N, -1))


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class FusedBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim), FusedAttention(dim, num_heads), LayerScale(dim)
        self.norm2, self.ls2 = nn.LayerNorm(dim), LayerScale(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class FusedViT(nn.Module):
    """With a class token and positions that are bare parameters."""

    def __init__(self, dim: int = 24, num_heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 4, stride=4)
        self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(1, 5, dim))
        self.blocks = nn.Sequential(FusedBlock(dim, num_heads), FusedBlock(dim, num_heads))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class TorchTransformer(nn.Module):
    """``nn.MultiheadAttention`` inside of torch's own encoder layer."""

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, dim)
        self.encoder = nn.TransformerEncoderLayer(dim, heads, 32, batch_first=True)
        self.hidden, self.head = nn.Linear(dim, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.encoder(self.embedding(x.squeeze(1))).mean(1)).relu())


class Affine(nn.Module):
    """A bare scale and offset for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.rand(1, dim, 1, 1) + 0.5), nn.Parameter(torch.randn(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


class Twice(nn.Module):
    """The same layer at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1)).relu()
        return self.head(self.shared(self.shared(x).relu()).relu())


class Aliased(nn.Module):
    """One layer and one normalization, under two names each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.bn1 = nn.Linear(64, 12), nn.Linear(12, 12), nn.BatchNorm1d(12)
        self.second, self.bn2, self.head = self.first, self.bn1, nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.first(self.stem(x.flatten(1)).relu())).relu()
        return self.head(self.bn2(self.second(x)).relu())


class Recurrent(nn.Module):
    """A convolution along time, a recurrent layer, a head on its last state."""

    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(8, 12, 3, padding=1), nn.Conv1d(12, 8, 3, padding=1)
        self.recurrent = layer(8, 12, batch_first=True)
        self.hidden, self.head = nn.Linear(12, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x.squeeze(1)).relu()).relu().transpose(1, 2)
        return self.head(self.hidden(self.recurrent(x)[0][:, -1]).relu())


class Autoencoder(nn.Module):
    """Down, up by transposed convolutions, and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.up1, self.up2 = nn.ConvTranspose2d(12, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down2(self.down1(x).relu()).relu()
        return self.head(self.up2(self.up1(x).relu()).relu().mean((2, 3)))


class FunctionalReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8 * 9, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.head(F.relu(self.fc(torch.flatten(x, 1))))


class TwoHeads(nn.Module):
    """One body, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.hidden, self.logits, self.side = nn.Linear(16, 12), nn.Linear(12, 10), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        return {"logits": self.logits(self.hidden(x).relu()), "side": self.side(x)}


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=30,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=12,
        num_labels=10,
    )
    return BertForSequenceClassification(config)


def tokens() -> dict[str, Tensor]:
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    return {"input_ids": torch.randint(1, 30, (2, 6)), "attention_mask": mask}


def images() -> Tensor:
    return torch.randn(2, 1, 8, 8)


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "mlp": (lambda: MLP(64, (24, 16), 10), images),
    "vgg": (VGG, images),
    "resnet": (lambda: ResNet(8, width=8, in_channels=1), images),
    "depthwise": (lambda: ImageNet(8, InvertedResidual(8, 16), InvertedResidual(8, 16)), images),
    "grouped": (lambda: ImageNet(8, nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 3)), images),
    "densenet": (DenseNet, images),
    "vit": (lambda: VisionTransformer(8, 4, 1, 10, dim=16, depth=2, heads=2), images),
    "fused vit": (FusedViT, images),
    "torch transformer": (TorchTransformer, images),
    "bert": (bert, tokens),
    "convnext": (lambda: ImageNet(8, ConvNeXtBlock(8), ConvNeXtBlock(8)), images),
    "convnext (C, 1, 1)": (lambda: ImageNet(8, ScaledConvNeXtBlock(8), ScaledConvNeXtBlock(8)), images),
    "squeeze-excite": (lambda: ImageNet(8, SqueezeExcite(8, 4), nn.Conv2d(8, 8, 3), SqueezeExcite(8, 4)), images),
    "group norm": (lambda: ImageNet(8, nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8)), images),
    "bare parameters": (lambda: ImageNet(8, Affine(8), nn.Conv2d(8, 8, 3), Affine(8)), images),
    "shared": (Twice, images),
    "aliased": (Aliased, images),
    "gru": (lambda: Recurrent(nn.GRU), images),
    "lstm": (lambda: Recurrent(nn.LSTM), images),
    "autoencoder": (Autoencoder, images),
    "functional": (FunctionalReLU, images),
    "two heads": (TwoHeads, images),
}
"""By name: what builds the network, and what builds its inputs."""


def make(name: str) -> tuple[nn.Module, Any]:
    """Return a network in training mode and inputs for it, the same ones each time.

    BatchNorm's statistics and affine parameters, and what starts as zeros or ones elsewhere, have values by which
    channels can be told apart.
    """
    torch.manual_seed(0)
    network, inputs = NETWORKS[name][0](), NETWORKS[name][1]()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return network.train(), inputs
