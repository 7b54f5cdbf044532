"""The same samples by each of several networks: their explanations on one scale, and what each network costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.network.check import refusal
from lit_xai.render.canvas import ENDS, Ends, plain_style
from lit_xai.render.captions import PerSample, make_captions
from lit_xai.render.groups import group_names
from lit_xai.render.kinds import HeatmapRenderer, ImageRenderer, TabularRenderer, are_tokens
from lit_xai.render.networks_pages import Columns, bars_page, images_page, strips_page
from lit_xai.render.pixels import PerChannel, to_pixels
from lit_xai.render.registry import choose_renderer
from lit_xai.render.renderer import Renderer
from lit_xai.render.shares import ArrayLike, to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NETWORKS = 4
"""Networks on one figure: of more, their maps would be too small to be read on a phone."""

_KINDS: tuple[Renderer, ...] = (ImageRenderer(), TabularRenderer(), HeatmapRenderer())


def networks_figure(
    inputs: ArrayLike,
    maps: Mapping[str, ArrayLike],
    *,
    title: str = "",
    labels: PerSample = None,
    predictions: Mapping[str, PerSample] | None = None,
    probabilities: Mapping[str, PerSample] | None = None,
    numbers: Mapping[str, Sequence[str]] | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    feature_groups: Sequence[str] | None = None,
    mean: PerChannel = None,
    std: PerChannel = None,
    limit: float | None = None,
    ends: Ends = ENDS,
    shows_inputs: bool = True,
) -> Figure:
    """Draw the explanations of the same samples by several networks on one color scale, with numbers under each.

    Every map is divided by its own total, as in :func:`~lit_xai.render.attribution_figure`. Of images, each sample is a
    row: the input, and the map of each network. Of series, tokens and everything else each map is a strip. Of tables
    each network is a column of bars: each feature's mean signed share of a sample's total, over its mean absolute
    share in gray (at most 10 features, those that count most).

    Args:
        inputs: the networks' inputs, ``(N, ...)``, a tensor or an array.
        maps: the attributions of each network by its name, ``(N, ...)``; at most four networks.
        title: of the figure.
        labels: class indices ``(N,)``, names, or values of a regression.
        predictions: of each network, in the form of ``labels``; bold where they are not the first network's.
        probabilities: of each network's prediction, ``(N,)``.
        numbers: of each network in the order of ``maps``, as they are to be written, by what they are.
        class_names: the name of each class index.
        feature_names: the name of each feature of a table; default ``x0``, ``x1`` ...
        feature_groups: the feature that each column of a table belongs to: their columns are added up.
        mean: the mean of the images' normalization, one number or one per channel; undone before drawing.
        std: its standard deviation, one number or one per channel.
        limit: the share at which colors and bars end; by default that of all maps.
        ends: the effects of negative and positive values, in words.
        shows_inputs: whether the inputs themselves are drawn, alone and faintly under the maps.

    Raises:
        TypeError: inputs or attributions are no tensor or array of real numbers.
        ValueError: shapes that do not belong together, no network or too many, or a ``limit`` that is not positive.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 1, 28, 28)
        >>> maps = {"dense": images - 0.5, "pruned": images - 0.4}
        >>> figure = networks_figure(images, maps, labels=[0, 1], numbers={"size (kB)": ["88", "23"]})
        >>> figure.canvas.get_width_height()
        (700, 574)
    """
    if not 0 < len(maps) <= MOST_NETWORKS:
        raise refusal("maps", f"those of one to {MOST_NETWORKS} networks", list(maps))
    first = next(iter(maps.values()))
    choose_renderer(inputs, first)  # refuses what no renderer could draw
    renderer = next(one for one in _KINDS if one.suits(inputs, first))
    shares = [renderer.find_shares(inputs, one) for one in maps.values()]
    if len({one.values.shape for one in shares}) > 1:
        raise refusal("maps", "those of one shape", [tuple(one.shape) for one in maps.values()])
    if feature_groups is not None:
        shares = [renderer.group(one, feature_groups) for one in shares]
    if limit is None:
        every = [np.concatenate([getattr(one, name) for one in shares]) for name in ("values", "totals", "not_finite")]
        limit = renderer.find_limit(replace(shares[0], values=every[0], totals=every[1], not_finite=every[2]))
    if not (math.isfinite(limit) and limit > 0):
        raise refusal("limit", "a positive share, such as 0.02 for 2%", limit)
    predicted, chances = predictions or {}, probabilities or {}
    columns = Columns(
        list(maps),
        shares,
        [make_captions(len(inputs), labels, predicted.get(name), chances.get(name), class_names) for name in maps],
        dict(numbers or {}),
        title,
        limit,
        ends,
    )
    given = to_array(inputs, "inputs")
    with plain_style():
        if isinstance(renderer, ImageRenderer):
            return images_page(to_pixels(given, mean, std), columns, shows_inputs)
        if isinstance(renderer, TabularRenderer):
            return bars_page(columns, feature_names if feature_groups is None else group_names(feature_groups))
        return strips_page(given if shows_inputs else None, are_tokens(inputs), columns)
