"""Baselines by name. An explanation compares a sample with its baseline, which decides much of what it shows."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.methods import attribute_parameters, draws_baselines
from lit_xai.attribution.normalization import is_normalized_image
from lit_xai.network.arguments import Inputs
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


def takes_baseline(method: type) -> bool:
    """Return whether the method compares its inputs with a baseline."""
    return bool({"baselines", "layer_baselines"} & set(attribute_parameters(method)))


def choose_baseline(
    inputs: Inputs,
    method: type,
    baselines: Any,
    data_info: Any,
    background: Callable[[], list[Tensor]],
    device: torch.device | str = "cpu",
) -> tuple[Any, str]:
    """Return the baseline of some samples, and its name.

    Args:
        inputs: of the samples.
        method: the attribution class.
        baselines: a name, a number, or tensors structured like the inputs; ``None`` for ``"black"`` where the one
            explained input is a normalized image, and else ``"zero"``.
        data_info: the data's ``mean`` and ``std``.
        background: returns the explained inputs of the samples that ``"mean"`` and ``"training"`` are made of.
        device: of tensors that are given.

    Returns:
        ``None`` for the method's own baseline, zero, and an empty name where it has none.

    Raises:
        ValueError: the data for this baseline is missing, or the method has no baseline.

    Example:
        >>> from types import SimpleNamespace
        >>> from captum.attr import Occlusion
        >>> info = SimpleNamespace(mean=[0.5], std=[0.25])
        >>> choose_baseline(torch.zeros(2, 1, 2, 2), Occlusion, None, info, list)[1]
        'black'
    """
    if not takes_baseline(method):
        if baselines is not None and baselines != "zero":
            raise ValueError(f"baselines expected 'zero', since {method.__name__} takes none, but got {baselines!r}.")
        return None, ""
    explained = explained_tensors(inputs)
    if baselines is None:
        baselines = _default(explained, data_info)
    if not isinstance(baselines, str):
        given = _given(baselines, device)
        return given, f"{baselines}" if given is baselines else "given"
    if baselines == "zero":
        return None, baselines  # Captum's own default, which suits any structure of inputs
    if not all(value.is_floating_point() for value in explained):
        raise ValueError(
            f"baselines={baselines!r} expected floating inputs, but got integers: use 'zero', or a tensor."
        )
    others = background() if baselines in ("mean", "training") else []
    made = tuple(
        make_baselines(
            baselines,
            value,
            background=others[place] if others else None,
            mean=data_info.mean,
            std=data_info.std,
            draws=draws_baselines(method),
        )
        for place, value in enumerate(explained)
    )
    return made[0] if len(made) == 1 else made, baselines


def _default(explained: list[Tensor], data_info: Any) -> str:
    # The mean image, which "zero" stands for, says of dark pixels that they count for nothing where they are the mean.
    is_image = len(explained) == 1 and is_normalized_image(explained[0], data_info.mean, data_info.std)
    return "black" if is_image else "zero"


def _given(baselines: Any, device: torch.device | str) -> Any:
    if isinstance(baselines, Mapping):
        return {key: _given(value, device) for key, value in baselines.items()}
    if isinstance(baselines, tuple):
        return tuple(_given(value, device) for value in baselines)
    return baselines if isinstance(baselines, (int, float)) else torch.as_tensor(baselines, device=device)


def explained_tensors(inputs: Inputs) -> list[Tensor]:
    """Return the tensors of inputs that are explained."""
    arguments = SplitInputs(inputs, any_dtype=True)
    return [arguments.values[i] for i in arguments.explained]
