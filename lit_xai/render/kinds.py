"""Which picture suits which attributions, and the maps it is drawn from."""

from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

from lit_xai.network.spelling import nearest
from lit_xai.render.shares import Array, ArrayLike, Shares, pool, resize, shares_of_total, to_array

Kind: TypeAlias = Literal["image", "tabular", "heatmap"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SMALLEST_IMAGE, LONGEST_IMAGE = 8, {3: 2, 4: 8}
"""What ``(N, A, B)`` must look like to be taken for images: sides of 8 at least, one at most twice the other; series
``(N, channels, length)`` and embeddings ``(N, tokens, features)`` rarely do, and ``kind`` decides where they do. Images
``(N, C, H, W)`` may be up to eight times as long as wide: beyond that they are series that a Conv2d reads."""
NEEDS = {
    "image": "inputs (N, C, H, W) with C in 1, 3, 4, or (N, H, W), and attributions (N, C, h, w) or (N, h, w)",
    "tabular": "attributions (N, features)",
}
LARGEST_MAP = 128
"""Cells along the longer side of a map; larger ones would not survive a logger's card."""


def choose_kind(inputs: ArrayLike, attributions: ArrayLike, kind: str | None = None) -> Kind:
    """Return ``kind``, checked, or the kind that the shapes call for.

    The input decides, unless the attributions have lost its layout (those of a fully connected layer for an image).

    Raises:
        TypeError: inputs or attributions are several tensors (a tuple), or none.
        ValueError: ``kind`` is no kind of picture, or does not fit the shapes; or these are not of one batch.

    Example:
        >>> choose_kind(torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 8, 8))
        'image'
        >>> choose_kind(torch.zeros(2, 30), torch.zeros(2, 30))
        'tabular'
        >>> choose_kind(torch.zeros(2, 3, 99), torch.zeros(2, 3, 99))
        'heatmap'
    """
    for name, values in (("inputs", inputs), ("attributions", attributions)):
        if not isinstance(values, (torch.Tensor, np.ndarray)):
            raise TypeError(f"{name} must be one tensor or array, but got {type(values).__name__}.")
    given, attributed = tuple(inputs.shape), tuple(attributions.shape)
    if len(attributed) < 2 or len(given) < 2 or attributed[0] != given[0] or 0 in attributed + given:
        raise ValueError(
            "attributions must hold one map for each sample of inputs, (N, ...) with N at least 1,"
            f" but got attributions of shape {attributed} for inputs of shape {given}."
        )
    if kind is None:
        return _kind_of(inputs, attributions)
    known: dict[str, Kind] = {name: name for name in KINDS}
    if kind not in known:
        raise ValueError(f"kind must be one of {list(KINDS)}, but got {kind!r}.{nearest(kind, KINDS)}")
    fits = {"image": _has_pixels(given) and len(attributed) in (3, 4), "tabular": len(attributed) == 2}
    if not fits.get(kind, True):
        raise ValueError(
            f"kind={kind!r} needs {NEEDS[kind]}, but got attributions of shape {attributed} for inputs of shape"
            f" {given}. Leave kind out to have it chosen by the shapes."
        )
    return known[kind]


def find_shares(inputs: ArrayLike, attributions: ArrayLike, kind: Kind) -> Shares:
    """Return the shares that a picture of ``kind`` shows: channels summed, image maps at the input's size.

    Maps of large images are summed over cells of several pixels.

    Shapes: image ``(N, H, W)``, tabular ``(N, features)``, heatmap ``(N, rows, positions)``.

    Example:
        >>> find_shares(torch.zeros(2, 3, 8, 8), torch.ones(2, 16, 4, 4), "image").values.shape
        (2, 8, 8)
    """
    maps = to_array(attributions, "attributions")
    if kind == "image":
        maps = _sum(maps, axis=1) if maps.ndim == 4 else maps
        size = (inputs.shape[-2], inputs.shape[-1])
        shares = shares_of_total(maps)
        return pool(shares if maps.shape[1:] == size else resize(shares, size), LARGEST_MAP)
    return shares_of_total(maps if kind == "tabular" else _rows(maps, len(inputs.shape)))


def are_tokens(inputs: ArrayLike) -> bool:
    """Return whether inputs are whole numbers ``(N, T)``: names of tokens, neither features nor values of a series.

    Example:
        >>> are_tokens(torch.tensor([[4, 7, 2]])), are_tokens(torch.rand(1, 3))
        (True, False)
    """
    return "int" in str(inputs.dtype) and len(inputs.shape) == 2


def _kind_of(inputs: ArrayLike, attributions: ArrayLike) -> Kind:
    if _is_image(tuple(inputs.shape)) and len(attributions.shape) in (3, 4):
        return "image"
    return "tabular" if len(attributions.shape) == 2 and not are_tokens(inputs) else "heatmap"


def _has_pixels(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 or (len(shape) == 4 and shape[1] in (1, 3, 4))


def _is_image(shape: tuple[int, ...]) -> bool:
    if not _has_pixels(shape):
        return False
    short, long = sorted(shape[-2:])
    return long <= LONGEST_IMAGE[len(shape)] * short and (len(shape) == 4 or short >= SMALLEST_IMAGE)


def _rows(maps: Array, input_dims: int) -> Array:
    # One dimension more than the input: what an embedding layer added, summed so that each token has one number.
    maps = _sum(maps, axis=-1) if maps.ndim == input_dims + 1 else maps
    return maps.reshape(len(maps), -1, maps.shape[-1])


def _sum(maps: Array, axis: int) -> Array:
    # Infinities of both signs make NaN, which the figure counts; numpy need not warn about it too.
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(maps.sum(axis=axis))
