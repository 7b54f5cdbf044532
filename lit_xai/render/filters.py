"""Pictures of a network itself: the filters of its first layer, and what its layers return for a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.canvas import GREY, LINE, MARGIN, SMALL, WIDTH, Canvas, color_scale, plain_style, to_colors
from lit_xai.render.pixels import PerChannel, to_pixels
from lit_xai.render.shares import Array, ArrayLike, to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FILTERS, FILTER_COLUMNS = 64, 8
MOST_LAYERS, MOST_CHANNELS = 12, 6
TILE, GAP, BETWEEN = 76, 6, 16
FOOT = LINE + 10


def filters_figure(filters: ArrayLike, *, title: str = "") -> Figure:
    """Draw a first layer's filters ``(units, C, h, w)``: in color where they have three channels, else their sum.

    Red is positive, blue negative, on one scale for all; colors of filters with three channels are stretched together.

    Args:
        filters: weights, one picture for each unit; at most 64 are drawn.
        title: of the figure.

    Raises:
        ValueError: they are no pictures.

    Example:
        >>> filters_figure(np.random.default_rng(0).normal(size=(16, 1, 5, 5))).canvas.get_width_height()
        (700, 225)
    """
    values = to_array(filters, "filters")
    if values.ndim != 4 or not values.size:
        raise ValueError(f"filters expected pictures (units, C, h, w), but got shape {values.shape}.")
    shown = values[:MOST_FILTERS]
    largest = float(np.abs(shown).max()) or 1.0
    if values.shape[1] == 3:
        pictures = (shown / largest / 2 + 0.5).transpose(0, 2, 3, 1)
        words = f"mid gray is 0; full color ±{largest:.2g}"
    else:
        total = shown.sum(1)
        largest = float(np.abs(total).max()) or 1.0
        pictures = to_colors(color_scale(largest), total)
        summed = f", summed over {values.shape[1]} channels" if values.shape[1] > 1 else ""
        words = f"red positive, blue negative, up to ±{largest:.2g}{summed}"
    if len(values) > MOST_FILTERS:
        words += f"; {len(values) - MOST_FILTERS} more not shown"
    with plain_style():
        rows = -(-len(shown) // FILTER_COLUMNS)
        high = TILE * values.shape[2] / max(values.shape[2:])
        wide = TILE * values.shape[3] / max(values.shape[2:])
        canvas = Canvas(title, round(rows * (high + GAP)) + FOOT + MARGIN)
        for i, picture in enumerate(pictures):
            x = MARGIN + (i % FILTER_COLUMNS) * (TILE + 10)
            canvas.tile(picture, x, canvas.top + (i // FILTER_COLUMNS) * (high + GAP), wide, high)
        canvas.text(MARGIN, canvas.height - FOOT, words, size=SMALL, color=GREY, width=WIDTH - 2 * MARGIN)
        return canvas.finish()


def layers_figure(
    outputs: Sequence[tuple[str, ArrayLike]],
    *,
    picture: ArrayLike | None = None,
    title: str = "",
    mean: PerChannel = None,
    std: PerChannel = None,
) -> Figure:
    """Draw what layers return for one sample: of each layer the channels with the largest values.

    Each layer has a scale of its own, from minus to plus its largest absolute value, which is written beside it: red is
    positive, blue negative. Layers are one below the other in the order of the call; of many, some are left out evenly.

    Args:
        outputs: name and output of each layer, without the dimension of the batch: maps ``(C, H, W)``, series
            ``(C, L)`` or tokens ``(T, D)``, drawn as one map, or vectors ``(F,)``.
        picture: the sample, an image ``(C, H, W)``, drawn first.
        title: of the figure.
        mean: that normalization subtracted from the image.
        std: that it divided by.

    Raises:
        ValueError: there is no layer.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> figure = layers_figure([("conv", rng.normal(size=(8, 6, 6))), ("head", rng.normal(size=10))])
        >>> figure.canvas.get_width_height()
        (700, 249)
    """
    if not outputs:
        raise ValueError("outputs expected one layer or more, but got none.")
    places = np.unique(np.linspace(0, len(outputs) - 1, min(len(outputs), MOST_LAYERS)).round().astype(int))
    shown = [(name, to_array(values, name or "outputs")) for name, values in (outputs[int(i)] for i in places)]
    heights = [LINE + (TILE if values.ndim >= 2 else 26) + BETWEEN for _, values in shown]
    top = 0 if picture is None else TILE + GAP + 4
    with plain_style():
        canvas = Canvas(title, top + sum(heights) + FOOT + MARGIN)
        y = float(canvas.top)
        if picture is not None:
            (pixels,) = to_pixels(to_array(picture, "picture")[None], mean, std)
            canvas.tile(pixels, MARGIN, y, TILE * pixels.shape[1] / max(pixels.shape[:2]), TILE)
            y += top
        for (name, values), height in zip(shown, heights, strict=True):
            _draw_layer(canvas, name, values, y)
            y += height
        words = "each layer on its own scale: red positive, blue negative; small numbers: channels"
        if len(shown) < len(outputs):
            words += f"; {len(outputs) - len(shown)} more layers"
        canvas.text(MARGIN, canvas.height - FOOT, words, size=SMALL, color=GREY, width=WIDTH - 2 * MARGIN)
        return canvas.finish()


def _draw_layer(canvas: Canvas, name: str, values: Array, y: float) -> None:
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    largest = float(np.abs(values).max())
    size = " \N{MULTIPLICATION SIGN} ".join(map(str, values.shape))
    zeros = float((values == 0).mean())
    facts = f"{size}, up to {largest:.2g}" + (f", {zeros:.0%} zeros" if zeros > 0.01 else "")
    wide = WIDTH - 2 * MARGIN
    canvas.text(WIDTH - MARGIN, y + 2, facts, size=SMALL, color=GREY, ha="right")
    canvas.text(MARGIN, y, name, width=wide / 2)
    scale = color_scale(largest or 1.0)
    if values.ndim < 3:
        canvas.tile(to_colors(scale, np.atleast_2d(values)), MARGIN, y + LINE, wide, TILE if values.ndim == 2 else 26)
        return
    maps = values.reshape(-1, *values.shape[-2:])
    strongest = np.argsort(-np.abs(maps).mean((1, 2)), kind="stable")[:MOST_CHANNELS]
    step = (wide - (MOST_CHANNELS - 1) * GAP) / MOST_CHANNELS + GAP
    for column, channel in enumerate(strongest):
        high = TILE * min(1.0, maps.shape[1] / maps.shape[2])
        width = min(step - GAP, TILE * min(1.0, maps.shape[2] / maps.shape[1]))
        x = MARGIN + column * step
        canvas.tile(to_colors(scale, maps[channel]), x, y + LINE, width, high)
        canvas.text(x + width + 3, y + LINE + 2, str(channel), size=SMALL, color=GREY)
