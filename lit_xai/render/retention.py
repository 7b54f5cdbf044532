"""Explanations before and after: each sample's input, the reference's map, the present one and their difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_xai.render.canvas import ENDS, Ends, plain_style
from lit_xai.render.captions import PerSample, are_classes, make_captions
from lit_xai.render.groups import group_names
from lit_xai.render.kinds import HeatmapRenderer, ImageRenderer, TabularRenderer, are_tokens
from lit_xai.render.pixels import PerChannel, to_pixels
from lit_xai.render.registry import choose_renderer
from lit_xai.render.renderer import Renderer
from lit_xai.render.retention_pages import BeforeAndAfter, bars_page, images_page, strips_page
from lit_xai.render.retention_sentences import sentences_page
from lit_xai.render.samples import blank
from lit_xai.render.series import SeriesRenderer
from lit_xai.render.shares import ArrayLike, Shares, to_array
from lit_xai.render.text_kind import TextRenderer
from lit_xai.render.time_axis import TimeAxis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS: tuple[Renderer, ...] = (
    ImageRenderer(),
    TabularRenderer(),
    SeriesRenderer(),
    TextRenderer(),
    HeatmapRenderer(),
)


@dataclass(frozen=True)
class _Pair:
    """The shares of both, on one scale."""

    reference: Shares
    present: Shares
    limit: float


def retention_figure(
    inputs: ArrayLike,
    reference: ArrayLike,
    present: ArrayLike,
    *,
    similarity: PerSample = None,
    title: str = "",
    labels: PerSample = None,
    reference_predictions: PerSample = None,
    predictions: PerSample = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    feature_groups: Sequence[str] | None = None,
    mean: PerChannel = None,
    std: PerChannel = None,
    limit: float | None = None,
    kind: str | None = None,
    ends: Ends = ENDS,
    shows_inputs: bool = True,
    sample_rate: float | None = None,
    token_names: Sequence[str] | None = None,
    by_word: bool = False,
) -> Figure:
    """Draw explanations before and after on one color scale: input, reference, now, and now minus reference.

    Every map is divided by its own total, as in :func:`~lit_xai.render.attribution_figure`, and the difference is that
    of the shares. Images are drawn as rows of tiles (at most 16 samples), texts as sentences in the colors of each, in
    the last of which words that did not change are gray (at most 16), series and everything else as strips (at most
    16), tables as bars of each feature's mean signed share, the reference's beside the present one (at most 16
    features, those of the largest mean absolute share).

    Args:
        inputs: the network's inputs, ``(N, ...)``, a tensor or an array.
        reference: the reference's attributions, one map for each sample, ``(N, ...)``.
        present: those of the network now, ``(N, ...)``.
        similarity: of each sample, ``(N,)``, at most 1.
        title: of the figure: method, reference, epoch.
        labels: class indices ``(N,)``, names, values of a regression, or multi-hot ``(N, K)``.
        reference_predictions: the reference's, in the form of ``labels``.
        predictions: those of the network now; bold where they are not the reference's.
        class_names: the name of each class index.
        feature_names: the name of each feature of a table, or of each channel of a series; default ``x0``, ``x1`` ...
        feature_groups: the feature that each column of a table belongs to: their columns are added up.
        mean: the mean of the images' normalization, one number or one per channel; undone before drawing.
        std: its standard deviation, one number or one per channel.
        limit: the share at which colors and bars end; by default that of all maps of the figure. Pass one number to
            figures that are to be compared.
        kind: ``"image"``, ``"tabular"``, ``"series"`` or ``"heatmap"``; default by the shapes.
        ends: the effects of negative and positive values, in words.
        shows_inputs: whether the inputs themselves are drawn, alone and faintly under the maps.
        sample_rate: positions of a series per second.
        token_names: of the ids of text, one per id.
        by_word: whether pieces of a word are drawn as one, with the sum of their attributions.

    Raises:
        TypeError: inputs or attributions are no tensor or array of real numbers.
        ValueError: shapes that do not belong together, an unknown ``kind``, or a ``limit`` that is not positive.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 1, 28, 28)
        >>> figure = retention_figure(images, images - 0.5, images - 0.4, similarity=[0.9, 0.8], labels=[0, 1])
        >>> figure.canvas.get_width_height()
        (700, 543)
    """
    to_array(inputs, "inputs")  # refuses what no renderer could draw
    inputs = inputs if shows_inputs else blank(inputs)
    renderer = _renderer(inputs, reference, kind)
    if len(present.shape) < 1 or len(present) != len(reference):
        raise ValueError(
            f"present expected one map for each of the {len(reference)} samples of reference, but got shape"
            f" {tuple(present.shape)}."
        )
    if not renderer.fits(inputs, present):
        raise ValueError(f"present expected {renderer.needs}, but got shape {tuple(present.shape)}.")
    pair = _pair(renderer, inputs, (reference, present), feature_groups, limit)
    compared = BeforeAndAfter(
        pair.reference,
        pair.present,
        make_captions(len(inputs), labels, reference_predictions, None, class_names),
        make_captions(len(inputs), labels, predictions, None, class_names),
        _numbers(similarity, len(inputs)),
        title,
        pair.limit,
        ends,
        are_classes(predictions, len(inputs)) and are_classes(reference_predictions, len(inputs)),
    )
    with plain_style():
        if isinstance(renderer, ImageRenderer):
            return images_page(to_pixels(to_array(inputs, "inputs"), mean, std), compared, shows_inputs)
        if isinstance(renderer, TabularRenderer):
            return bars_page(compared, feature_names if feature_groups is None else group_names(feature_groups))
        if isinstance(renderer, TextRenderer) and shows_inputs:
            return sentences_page(to_array(inputs, "inputs"), compared, token_names, by_word)
        has_lines = shows_inputs and not are_tokens(inputs)
        axis = TimeAxis(inputs.shape[-1], sample_rate) if isinstance(renderer, SeriesRenderer) else None
        series = to_array(inputs, "inputs") if has_lines else None
        return strips_page(series, compared, axis, feature_names)


def _renderer(inputs: ArrayLike, attributions: ArrayLike, kind: str | None) -> Renderer:
    """Return one of the library's kinds; a renderer of one's own draws one map, not two."""
    if kind is not None:
        chosen = choose_renderer(inputs, attributions, kind)
        if any(type(one) is type(chosen) for one in _KINDS):
            return chosen
        known = ", ".join(one.name for one in _KINDS)
        raise ValueError(f"kind expected one of {known}, which can draw two maps, but got {kind!r}.")
    choose_renderer(inputs, attributions)  # refuses what no renderer could draw
    return next(one for one in _KINDS if one.suits(inputs, attributions))


def _pair(
    renderer: Renderer,
    inputs: ArrayLike,
    both_maps: tuple[Any, Any],
    feature_groups: Sequence[str] | None,
    limit: float | None,
) -> _Pair:
    shares = [renderer.find_shares(inputs, maps) for maps in both_maps]
    if shares[0].values.shape != shares[1].values.shape:
        raise ValueError(
            f"present expected maps of the reference's shape, {shares[0].values.shape[1:]} as drawn, but got"
            f" {shares[1].values.shape[1:]}."
        )
    if feature_groups is not None:
        shares = [renderer.group(one, feature_groups) for one in shares]
    if limit is None:
        both = [np.concatenate([getattr(one, name) for one in shares]) for name in ("values", "totals", "not_finite")]
        limit = renderer.find_limit(replace(shares[0], values=both[0], totals=both[1], not_finite=both[2]))
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"limit expected a positive share, such as 0.02 for 2%, but got {limit}.")
    return _Pair(shares[0], shares[1], limit)


def _numbers(similarity: PerSample, n: int) -> list[float | None]:
    if similarity is None:
        return [None] * n
    values = [float(value) for value in similarity]
    if len(values) != n:
        raise ValueError(f"similarity expected one number for each of the {n} samples, but got {len(values)}.")
    return list(values)
