"""Baselines by name. An explanation compares a sample with its baseline, which decides much of what it shows."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_xai.network.spelling import nearest

BASELINES = ("zero", "black", "mean", "blur", "training")


def check_baseline(baselines: Any) -> None:
    """Refuse an unknown name of a baseline.

    Raises:
        ValueError: suggests the nearest name.

    Example:
        >>> check_baseline("blak")
        Traceback (most recent call last):
        ...
        ValueError: baselines expected one of zero, black, mean, blur, training or a tensor, but got 'blak'. Did you ...
    """
    if isinstance(baselines, str) and baselines not in BASELINES:
        raise ValueError(
            f"baselines expected one of {', '.join(BASELINES)} or a tensor, but got"
            f" {baselines!r}.{nearest(baselines, BASELINES)}"
        )


def make_baselines(
    name: str,
    inputs: Tensor,
    *,
    background: Tensor | None = None,
    mean: Any = None,
    std: Any = None,
    draws: bool = False,
) -> Tensor:
    """Return baselines for a batch.

    Args:
        name: ``"zero"`` in the model's space (after normalization: usually the mean image), ``"black"`` in pixel space,
            the ``"mean"`` of training samples, a ``"blur"`` of each input (standard deviation an eighth of its side),
            or ``"training"`` samples themselves.
        inputs: ``(N, ...)``.
        background: training samples ``(M, ...)``, for ``"mean"`` and ``"training"``.
        mean: the mean that normalization subtracted, one number per channel, for ``"black"``.
        std: the standard deviation that it divided by.
        draws: whether the method draws from a distribution of baselines; it then gets all training samples.

    Returns:
        ``(1, ...)``, or one per sample ``(N, ...)``, or the distribution ``(M, ...)``.

    Raises:
        ValueError: an unknown name, or the data for that baseline is missing.

    Example:
        >>> make_baselines("black", torch.zeros(2, 1, 2, 2), mean=[0.5], std=[0.25]).flatten()
        tensor([-2., -2., -2., -2.])
    """
    check_baseline(name)
    if name == "zero":
        return torch.zeros_like(inputs[:1])
    if name == "black":
        if mean is None or std is None:
            raise ValueError(
                "baselines='black' needs the mean and std that pixels were normalized with: give both, as the monitor's"
                " arguments or as attributes of the data module, or use baselines='zero'."
            )
        # A pixel of 0 after normalization, (0 - mean) / std.
        black = -torch.as_tensor(mean, dtype=inputs.dtype) / torch.as_tensor(std, dtype=inputs.dtype)
        shape = (-1, *[1] * (inputs.dim() - 2)) if black.dim() else ()
        return black.to(inputs.device).reshape(shape).expand_as(inputs[:1]).contiguous()
    if name == "blur":
        return gaussian_blur(inputs)
    if background is None or not len(background):
        raise ValueError(f"baselines={name!r} needs training samples, but there is no training data to read them from.")
    if name == "mean":
        return background.mean(0, keepdim=True)
    # One training sample for each input, repeated where there are fewer.
    return background if draws else background[torch.arange(len(inputs)) % len(background)]


def gaussian_blur(images: Tensor, sigma: float | None = None) -> Tensor:
    """Blur the last two dimensions with a Gaussian, edges repeated.

    Args:
        images: ``(N, C, H, W)``.
        sigma: standard deviation in elements; default an eighth of the smaller side.

    Raises:
        ValueError: the input has no two dimensions to blur.

    Example:
        >>> gaussian_blur(torch.ones(1, 1, 8, 8)).allclose(torch.ones(1, 1, 8, 8))
        True
    """
    if images.dim() != 4:
        raise ValueError(
            f"baselines='blur' expected images (N, C, H, W), but got inputs of shape {tuple(images.shape)}."
        )
    sigma = min(images.shape[2:]) / 8 if sigma is None else sigma
    reach = max(1, math.ceil(3 * sigma))  # beyond three standard deviations a weight is below 1% of the largest
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2).to(images.dtype)
    weights = weights / weights.sum()
    # A Gaussian is separable: two passes of 2 * reach + 1 weights in place of one with the square of that.
    flat = images.reshape(-1, 1, *images.shape[2:])
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), weights.reshape(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), weights.reshape(1, 1, -1, 1))
    return flat.reshape(images.shape)
