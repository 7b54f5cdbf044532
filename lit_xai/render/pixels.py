"""A network's inputs as pictures again: RGB in [0, 1]."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from lit_xai.render.shares import Array

PerChannel: TypeAlias = float | Sequence[float] | torch.Tensor | NDArray[np.generic] | None


def to_pixels(inputs: Array, mean: PerChannel = None, std: PerChannel = None) -> Array:
    """Return images ``(N, C, H, W)`` or ``(N, H, W)`` as RGB pixels ``(N, H, W, 3)`` in [0, 1].

    With ``mean`` and ``std`` the normalization is undone: ``x * std + mean``. Without, inputs that lie in [0, 1] are
    shown as they are and others are stretched, each image from its smallest value to its largest. Transparent pixels
    (four channels) show white paper.

    Args:
        inputs: one, three or four channels.
        mean: of the normalization, one number or one per channel.
        std: its standard deviation, one number or one per channel.

    Raises:
        ValueError: ``mean`` or ``std`` has another number of entries than there are channels.

    Example:
        >>> to_pixels(np.array([[[[-1.0, 1.0]]]]), mean=0.5, std=0.25)[0, 0, :, 0]
        array([0.25, 0.75])
    """
    pixels = np.nan_to_num(inputs[:, None] if inputs.ndim == 3 else inputs, posinf=0.0, neginf=0.0)
    channels = pixels.shape[1]
    if mean is not None or std is not None:
        pixels = pixels * _per_channel(std, 1.0, "std", channels) + _per_channel(mean, 0.0, "mean", channels)
    elif pixels.min() < 0 or pixels.max() > 1:
        pixels = _stretched(pixels)
    pixels = pixels.clip(0, 1).transpose(0, 2, 3, 1)
    if channels == 4:
        # Alpha blending with white: a * x + (1 - a) * 1.
        return pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    return np.repeat(pixels, 3, axis=-1) if channels == 1 else pixels


def _stretched(pixels: Array) -> Array:
    low, high = (edge(pixels, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    return np.where(high > low, (pixels - low) / np.where(high > low, high - low, 1.0), 0.5)


def _per_channel(values: PerChannel, default: float, name: str, channels: int) -> Array:
    given = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    array = np.asarray(default if given is None else given, dtype=np.float64).ravel()
    if len(array) not in (1, channels):
        raise ValueError(
            f"{name} expected 1 or {channels} numbers, one per channel of the input, but got {len(array)}."
        )
    return array[:, None, None]
