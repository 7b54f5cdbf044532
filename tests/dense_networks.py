"""Small networks with an answer for each pixel, box or query: segmenters and detectors as they are usually built."""

import torch
from partial_networks import Bottleneck, ConvNorm, PooledPyramid, SplitStage
from torch import Tensor, nn
from torch.nn import functional as F


class Pyramid(nn.Module):
    """YOLO's: three scales, the coarse ones added to the fine ones by concatenation, and back again."""

    def __init__(self, wide: int = 16) -> None:
        super().__init__()
        a, b, c = wide, 2 * wide, 4 * wide
        self.stem = nn.Sequential(ConvNorm(3, a // 2, 3, 2), ConvNorm(a // 2, a, 3, 2), SplitStage(a, 1, "chunk"))
        self.down1, self.down2 = ConvNorm(a, b, 3, 2), ConvNorm(b, c, 3, 2)
        self.stage1, self.stage2 = SplitStage(b, 1, "chunk"), SplitStage(c, 1, "chunk")
        self.pool = PooledPyramid(c)
        self.merge1, self.merge0 = ConvNorm(b + c, b), ConvNorm(a + b, a)
        self.back1, self.back2 = ConvNorm(a, a, 3, 2), ConvNorm(b, b, 3, 2)
        self.last1, self.last2 = ConvNorm(a + b, b), ConvNorm(b + c, c)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        middle = self.stage1(self.down1(fine))
        coarse = self.pool(self.stage2(self.down2(middle)))
        middle = self.merge1(torch.cat([middle, F.interpolate(coarse, scale_factor=2.0)], 1))
        fine = self.merge0(torch.cat([fine, F.interpolate(middle, scale_factor=2.0)], 1))
        middle = self.last1(torch.cat([middle, self.back1(fine)], 1))
        return [fine, middle, self.last2(torch.cat([coarse, self.back2(middle)], 1))]


class Head(nn.Module):
    """A branch for the box and one for the classes, joined: ``4 + classes`` numbers a cell."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.box = nn.Sequential(ConvNorm(dim, dim, 3), nn.Conv2d(dim, 4, 1))
        self.classes = nn.Sequential(ConvNorm(dim, dim, 3), nn.Conv2d(dim, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.box(x), self.classes(x)], 1)


class Detector(nn.Module):
    """A list of maps ``(B, 4 + classes, H, W)``, one for each scale."""

    def __init__(self, classes: int = 5, wide: int = 16) -> None:
        super().__init__()
        self.num_classes = classes
        self.pyramid = Pyramid(wide)
        self.heads = nn.ModuleList(Head(wide * 2**scale, classes) for scale in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [head(level) for head, level in zip(self.heads, self.pyramid(x), strict=True)]


class UNet(nn.Module):
    """Down and up again, with what was seen on the way down beside what comes back."""

    def __init__(self, classes: int = 5, wide: int = 8) -> None:
        super().__init__()
        self.enter, self.down1, self.down2 = (
            self._two(3, wide),
            self._two(wide, 2 * wide),
            self._two(2 * wide, 4 * wide),
        )
        self.up2, self.up1 = nn.ConvTranspose2d(4 * wide, 2 * wide, 2, 2), nn.ConvTranspose2d(2 * wide, wide, 2, 2)
        self.merge2, self.merge1 = self._two(4 * wide, 2 * wide), self._two(2 * wide, wide)
        self.head = nn.Conv2d(wide, classes, 1)

    @staticmethod
    def _two(dim: int, out: int) -> nn.Module:
        return nn.Sequential(ConvNorm(dim, out, 3), ConvNorm(out, out, 3))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.enter(x)
        middle = self.down1(F.max_pool2d(fine, 2))
        coarse = self.down2(F.max_pool2d(middle, 2))
        middle = self.merge2(torch.cat([middle, self.up2(coarse)], 1))
        return self.head(self.merge1(torch.cat([fine, self.up1(middle)], 1)))


class AtrousPooling(nn.Module):
    """DeepLab's: convolutions of several dilations and the mean of the whole picture, side by side."""

    def __init__(self, dim: int, out: int, rates: tuple[int, ...] = (2, 4)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(dim, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()),
                *(
                    nn.Sequential(
                        nn.Conv2d(dim, out, 3, padding=rate, dilation=rate, bias=False), nn.BatchNorm2d(out), nn.ReLU()
                    )
                    for rate in rates
                ),
            ]
        )
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, out, 1), nn.ReLU())
        self.project = ConvNorm((2 + len(rates)) * out, out)

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches]
        parts.append(F.interpolate(self.whole(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        return self.project(torch.cat(parts, 1))


class DeepLab(nn.Module):
    """As torchvision's segmenters answer: a dict of ``out`` and of an auxiliary head."""

    def __init__(self, classes: int = 5, wide: int = 16) -> None:
        super().__init__()
        self.stem, self.body = ConvNorm(3, wide, 3, 2), nn.Sequential(Bottleneck(wide), ConvNorm(wide, 2 * wide, 3, 2))
        self.deep = nn.Sequential(Bottleneck(2 * wide), AtrousPooling(2 * wide, 2 * wide))
        self.low, self.merge = ConvNorm(wide, wide // 2), ConvNorm(2 * wide + wide // 2, 2 * wide, 3)
        self.head, self.aux = nn.Conv2d(2 * wide, classes, 1), nn.Conv2d(2 * wide, classes, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        low = self.stem(x)
        body = self.body(low)
        deep = F.interpolate(self.deep(body), size=low.shape[-2:], mode="bilinear", align_corners=False)
        merged = self.merge(torch.cat([deep, self.low(low)], 1))
        return {
            "out": F.interpolate(self.head(merged), size=size, mode="bilinear", align_corners=False),
            "aux": F.interpolate(self.aux(body), size=size, mode="bilinear", align_corners=False),
        }


class DETR(nn.Module):
    """Learned queries that attend to the picture: a class (the last is none) and a box each."""

    def __init__(self, classes: int = 5, dim: int = 32, queries: int = 7) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), ConvNorm(dim // 2, dim, 3, 2))
        self.positions = nn.Parameter(0.1 * torch.randn(1, 64, dim))
        self.encoder = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(dim, 4, 2 * dim, 0.0, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, queries, dim))
        self.classify = nn.Linear(dim, classes + 1)
        self.box = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        memory = self.encoder(tokens + self.positions[:, : tokens.shape[1]])
        found = self.decoder(self.queries.expand(len(x), -1, -1), memory)
        return {"pred_logits": self.classify(found), "pred_boxes": self.box(found).sigmoid()}


def images(n: int = 2, size: int = 32) -> Tensor:
    return torch.randn(n, 3, size, size)


DENSE = {"yolo": Detector, "u-net": UNet, "deeplab": DeepLab, "detr": DETR}
"""By name, the classes of networks of images."""
