"""The normalization of images, read from the transforms of their dataset."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

_TRANSFORMS = ("transform", "transforms")
"""Attributes of datasets, compositions and wrappers that hold transforms, in torchvision, albumentations and others."""


def find_normalization(datasets: Iterable[Any], inputs: Tensor) -> tuple[list[float], list[float]] | None:
    """Return mean and standard deviation of the ``Normalize`` among the transforms of datasets, if it made the inputs.

    A transform counts whose class is called ``Normalize`` and has ``mean`` and ``std``, as those of torchvision and
    albumentations do, and which takes the inputs back to pixels between 0 and 1: others are of other data.

    Args:
        datasets: objects with an attribute ``transform`` or ``transforms``.
        inputs: images ``(N, C, H, W)``.

    Example:
        >>> class Normalize:
        ...     mean, std = [0.5], [0.25]
        >>> class Dataset:
        ...     transform = Normalize()
        >>> find_normalization([Dataset()], torch.full((2, 1, 4, 4), -2.0))
        ([0.5], [0.25])
    """
    for dataset in datasets:
        for transform in _transforms(dataset):
            mean, std = (_numbers(getattr(transform, name, None)) for name in ("mean", "std"))
            if type(transform).__name__ == "Normalize" and mean and std and _are_pixels(inputs, mean, std):
                return mean, std
    return None


def is_normalized_image(inputs: Tensor, mean: Any, std: Any) -> bool:
    """Return whether inputs are images with a darkest value, which mean and standard deviation take to 0.

    Example:
        >>> is_normalized_image(torch.zeros(2, 1, 4, 4), [0.5], [0.25])
        True
        >>> is_normalized_image(torch.zeros(2, 4), [0.5], [0.25])
        False
    """
    pixels = _pixels(inputs, mean, std)
    return pixels is not None and float(pixels.min()) > -_ROUNDING


_ROUNDING = 1e-3
"""Rounding in float16 moves a pixel by less."""


def _are_pixels(inputs: Tensor, mean: Any, std: Any) -> bool:
    pixels = _pixels(inputs, mean, std)
    return pixels is not None and float(pixels.min()) > -_ROUNDING and float(pixels.max()) < 1 + _ROUNDING


def _pixels(inputs: Tensor, mean: Any, std: Any) -> Tensor | None:
    if inputs.dim() != 4 or not inputs.is_floating_point() or mean is None or std is None:
        return None
    # On the CPU: where mean and std are, and where a few images are quick.
    mean, std = (torch.as_tensor(values, dtype=torch.float32).cpu().reshape(-1, 1, 1) for values in (mean, std))
    if not {len(mean), len(std)} <= {1, inputs.shape[1]}:
        return None
    return inputs.detach().float().cpu() * std + mean


def _transforms(holder: Any, depth: int = 4) -> Iterator[Any]:
    """Yield the transforms of a dataset, those inside compositions included."""
    for name in _TRANSFORMS if depth else ():
        held = getattr(holder, name, None)
        for transform in held if isinstance(held, (list, tuple, torch.nn.ModuleList)) else [held]:
            if transform is not None:
                yield transform
                yield from _transforms(transform, depth - 1)


def _numbers(values: Any) -> list[float] | None:
    try:
        return torch.as_tensor(values, dtype=torch.float32).reshape(-1).tolist() or None
    except (TypeError, ValueError, RuntimeError):  # of somebody's own Normalize
        return None
