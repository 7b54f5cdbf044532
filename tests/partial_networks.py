"""Blocks of well-known networks of which a part cannot be cut: splits by fixed sizes, windows, experts, rotations."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Module):
    def __init__(self, dim: int, out: int, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(dim, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(dim, dim, 3), ConvNorm(dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class SplitStage(nn.Module):
    """YOLOv8's C2f: half of the channels passes by, the other half goes on, and everything is joined."""

    def __init__(self, dim: int, depth: int, split: str) -> None:
        super().__init__()
        self.half, self.split = dim // 2, split
        self.enter, self.leave = ConvNorm(dim, dim), ConvNorm((2 + depth) * self.half, dim)
        self.blocks = nn.ModuleList(Bottleneck(self.half) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        parts = list(x.chunk(2, 1) if self.split == "chunk" else x.split((self.half, self.half), 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class PooledPyramid(nn.Module):
    """YOLO's SPPF: pooled once, twice and three times, side by side."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.enter, self.leave, self.pool = ConvNorm(dim, dim // 2), ConvNorm(dim * 2, dim), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class YOLO(nn.Sequential):
    def __init__(self, split: str) -> None:
        down = (ConvNorm(3, 16, 3, 2), SplitStage(16, 2, split), ConvNorm(16, 24, 3, 2), SplitStage(24, 1, split))
        super().__init__(*down, PooledPyramid(24), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


class Upscaler(nn.Module):
    """PixelShuffle in the middle: four channels become four pixels of one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.up, self.shuffle, self.tail = nn.Conv2d(16, 32, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(8, 12, 3)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.shuffle(self.up(x + self.body(x).relu()))
        return self.head(self.tail(x).relu().mean((2, 3)))


class WindowAttention(nn.Module):
    """Swin's: within windows of 2 x 2 that may be shifted, with a learned bias for each pair of places."""

    def __init__(self, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.num_heads, self.shift, self.scale = heads, shift, (dim // heads) ** -0.5
        self.qkv, self.proj, self.bias = (
            nn.Linear(dim, 3 * dim),
            nn.Linear(dim, dim),
            nn.Parameter(torch.randn(heads, 4, 4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        x = x.roll((-self.shift, -self.shift), (1, 2)).view(batch, height // 2, 2, width // 2, 2, dim)
        x = x.transpose(2, 3).reshape(-1, 4, dim)
        q, k, v = self.qkv(x).reshape(len(x), 4, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = ((q * self.scale @ k.transpose(-2, -1) + self.bias).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.proj(x).view(batch, height // 2, width // 2, 2, 2, -1).transpose(2, 3)
        return x.reshape(batch, height, width, -1).roll((self.shift, self.shift), (1, 2))


class WindowBlock(nn.Module):
    def __init__(self, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = (
            nn.LayerNorm(dim),
            nn.LayerNorm(dim),
            WindowAttention(dim, heads, shift),
        )
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighboring patches become one, with their channels behind each other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 2, 2)
        self.blocks = nn.Sequential(
            WindowBlock(16, 2, 0), WindowBlock(16, 2, 1), PatchMerging(16), WindowBlock(32, 4, 0)
        )
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patches(x).permute(0, 2, 3, 1))).mean((1, 2)))


class ReducedAttention(nn.Module):
    """Segformer's: keys and values of a smaller picture, from one layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.query, self.both = heads, nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.reduce, self.norm, self.proj = nn.Conv2d(dim, dim, 2, 2), nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, n, dim = x.shape
        q = self.query(x).reshape(batch, n, self.num_heads, -1).transpose(1, 2)
        small = self.reduce(x.transpose(1, 2).reshape(batch, dim, height, width)).flatten(2).transpose(1, 2)
        k, v = (
            self.both(self.norm(small))
            .reshape(batch, -1, 2, self.num_heads, dim // self.num_heads)
            .permute(2, 0, 3, 1, 4)
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).reshape(batch, n, -1))


class MixBlock(nn.Module):
    """Attention, then a perceptron with a depthwise convolution over the places of the tokens in it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(dim), nn.LayerNorm(dim), ReducedAttention(dim, heads)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.depthwise = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = x + self.attention(self.norm1(x), height, width)
        y = self.fc1(self.norm2(x)).transpose(1, 2)
        y = self.depthwise(y.view(batch, y.shape[1], height, width)).flatten(2).transpose(1, 2)
        return (x + self.fc2(F.gelu(y))).transpose(1, 2).reshape(batch, dim, height, width)


class Segformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.block1, self.block2 = MixBlock(16, 2), MixBlock(32, 2)
        self.project1, self.project2 = nn.Linear(16, 24), nn.Linear(32, 24)
        self.fuse, self.norm, self.head = nn.Conv2d(48, 24, 1, bias=False), nn.BatchNorm2d(24), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.block1(self.down1(x))
        coarse = self.block2(self.down2(fine))
        fine, coarse = self.project(self.project1, fine), self.project(self.project2, coarse)
        return self.head(self.norm(self.fuse(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], 1))).relu())

    def project(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


class RMSNorm(nn.Module):
    """Written out, as language models have it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class GroupedQueryAttention(nn.Module):
    """Llama's: rotary positions, and every two queries share their keys and values."""

    def __init__(self, dim: int, heads: int, key_value_heads: int) -> None:
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim = heads, key_value_heads, dim // heads
        self.q_proj, self.o_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, key_value_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(dim, key_value_heads * self.head_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        share = self.num_heads // self.num_key_value_heads
        k, v = self.rotated(k).repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        return self.o_proj(
            F.scaled_dot_product_attention(self.rotated(q), k, v, is_causal=True).transpose(1, 2).flatten(2)
        )

    def rotated(self, x: Tensor) -> Tensor:
        frequencies = 10000 ** -(torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.outer(torch.arange(x.shape[2]), frequencies).repeat(1, 2).to(x)
        left, right = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-right, left], -1) * angles.sin()


class GatedMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """A mixture of experts: a gate sends each token to two of four."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(dim, 4, bias=False), nn.ModuleList(GatedMLP(dim, hidden) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = self.gate(tokens).softmax(-1).topk(2, -1)
        found = torch.zeros_like(tokens)
        for place, expert in enumerate(self.experts):
            rows, ranks = torch.where(chosen == place)
            found = found.index_add(0, rows, expert(tokens[rows]) * weights[rows, ranks, None])
        return found.view_as(x)


class StateSpace(nn.Module):
    """Mamba's mixer: a convolution along time, and a linear recurrence whose numbers depend on the input."""

    def __init__(self, dim: int, states: int = 8, rank: int = 4) -> None:
        super().__init__()
        inner, self.states, self.rank = 2 * dim, states, rank
        self.in_proj, self.out_proj = nn.Linear(dim, 2 * inner, bias=False), nn.Linear(inner, dim, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.x_proj, self.dt_proj = nn.Linear(inner, rank + 2 * states, bias=False), nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        x, gate = self.in_proj(x).chunk(2, -1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., :length].transpose(1, 2))
        step, into, out = self.x_proj(x).split([self.rank, self.states, self.states], -1)
        step = F.softplus(self.dt_proj(step))[..., None]
        decay, state, found = -self.A_log.exp(), torch.zeros_like(step[:, 0]), []
        for t in range(length):
            state = (step[:, t] * decay).exp() * state + step[:, t] * into[:, t, None] * x[:, t, :, None]
            found.append((state * out[:, t, None]).sum(-1))
        return self.out_proj((torch.stack(found, 1) + x * self.D) * F.silu(gate))


class Residual(nn.Module):
    def __init__(self, dim: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer = RMSNorm(dim), layer

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(self.norm(x))


class Language(nn.Module):
    """Tokens, layers around a residual stream, and a class from their mean."""

    def __init__(self, dim: int, *layers: nn.Module) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(30, dim), nn.Sequential(*(Residual(dim, layer) for layer in layers))
        self.norm, self.hidden, self.head = RMSNorm(dim), nn.Linear(dim, 24), nn.Linear(24, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.hidden(self.norm(self.layers(self.embedding(tokens))).mean(1)).relu())


def llama() -> nn.Module:
    return Language(
        32, GroupedQueryAttention(32, 4, 2), GatedMLP(32, 48), GroupedQueryAttention(32, 4, 2), GatedMLP(32, 48)
    )


def images() -> Tensor:
    return torch.randn(2, 3, 16, 16)


def tokens() -> Tensor:
    return torch.randint(0, 30, (2, 6))


PARTIAL: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], tuple[str, ...]]] = {
    "yolo, chunk": (lambda: YOLO("chunk"), images, ("1.enter.conv", "3.enter.conv")),
    "yolo, split": (lambda: YOLO("split"), images, ("1.enter.conv", "3.enter.conv")),
    "pixel shuffle": (Upscaler, images, ("up",)),
    "swin": (Swin, images, ("patches", "blocks.0.mlp.2")),
    "segformer": (Segformer, images, ("block1.attention.both", "block2.attention.both")),
    "llama": (llama, tokens, ("layers.0.layer.q_proj", "layers.0.layer.k_proj")),
    "experts": (lambda: Language(32, Experts(32, 24)), tokens, ("layers.0.layer.gate",)),
    "mamba": (lambda: Language(16, StateSpace(16), StateSpace(16)), tokens, ("layers.0.layer.in_proj",)),
}
"""By name: what builds the network, what builds its inputs, and some of the layers that stay whole."""


def make(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in eval mode whose one-dimensional parameters tell channels apart, and inputs for it."""
    torch.manual_seed(0)
    network, inputs = PARTIAL[name][0]().eval(), PARTIAL[name][1]()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network, inputs
