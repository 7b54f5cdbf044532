"""Disturbances of images, the same for the same images: what a network meets that was not trained on."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _noise(x: Tensor) -> Tensor:
    return (x + 0.2 * _draw(torch.randn, x)).clamp(0, 1)


def _impulses(x: Tensor) -> Tensor:
    return torch.where(_draw(torch.rand, x) < 0.1, (_draw(torch.rand, x) < 0.05).to(x.dtype), x)


def _blur(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(x, 3, 1, 1), 3, 1, 1)


def _contrast(x: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * 0.4 + mean


def _brightness(x: Tensor) -> Tensor:
    return (x + 0.3).clamp(0, 1)


def _shift(x: Tensor) -> Tensor:
    high, wide = x.shape[2:]
    down, right = (max(1, round(3 / 28 * side)) for side in (high, wide))
    return F.pad(x, (right, 0, down, 0))[..., :high, :wide]


def _rotation(x: Tensor, degrees: float = 20.0) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = x.new_tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])
    return F.grid_sample(x, F.affine_grid(turn.expand(len(x), 2, 3), list(x.shape), False), align_corners=False)


def _patch(x: Tensor) -> Tensor:
    x, side = x.clone(), max(1, round(2 / 7 * min(x.shape[2:])))
    low = min(x.shape[2:]) - side
    places = torch.randint(max(low, 1), (len(x), 2), generator=torch.Generator().manual_seed(0))
    for image, (row, column) in zip(x, places.tolist(), strict=True):
        image[:, row : row + side, column : column + side] = 0
    return x


def _draw(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device, x.dtype)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": _noise,
    "impulses": _impulses,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "shift": _shift,
    "rotation": _rotation,
    "patch": _patch,
}
"""Functions of images ``(N, C, H, W)`` from 0 to 1, which are left as they are, to images of the same shape: noise of a
standard deviation of a fifth of the range, impulses in a tenth of the pixels, a blur over 5 by 5 pixels, contrast at
0.4, 0.3 brighter, a shift by a ninth of each side, a rotation by 20 degrees, a black square of 2/7 of the shorter
side."""


def corrupt_rows(rows: Tensor, name: str) -> Tensor:
    """Return rows of a table ``(N, features)``, or any other samples of numbers, with noise or with values missing.

    Args:
        rows: left as they are.
        name: ``"noise"`` of a fifth of each feature's standard deviation, or ``"missing"``: a tenth of the values,
            each replaced by the feature's mean.

    Example:
        >>> rows = torch.arange(20.0).reshape(10, 2)
        >>> corrupt_rows(rows, "missing").shape, bool((corrupt_rows(rows, "noise") != rows).all())
        (torch.Size([10, 2]), True)
    """
    if name == "noise":
        return rows + 0.2 * rows.std(0, keepdim=True, correction=0) * _draw(torch.randn, rows)
    return torch.where(_draw(torch.rand, rows) < 0.1, rows.mean(0, keepdim=True), rows)
