"""The library's own kinds of pictures: which shapes each suits, and the maps it is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lit_xai.render.beeswarm import Swarm, beeswarm_figure
from lit_xai.render.groups import group_names, group_shares, single_columns
from lit_xai.render.heatmap import heatmap_figure
from lit_xai.render.image import image_figure
from lit_xai.render.pixels import to_pixels
from lit_xai.render.renderer import Drawing, Renderer
from lit_xai.render.shares import Array, ArrayLike, Shares, pool, resize, round_up, shares_of_total, sum_over, to_array
from lit_xai.render.tabular import feature_labels, mean_shares, summarize, tabular_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_IMAGE, LONGEST_IMAGE = 8, {3: 2, 4: 8}
"""The shapes ``(N, A, B)`` that are taken for images: sides of 8 at least, one at most twice the other; series
``(N, channels, length)`` and embeddings ``(N, tokens, features)`` rarely have them, and ``kind`` decides where they do.
Images ``(N, C, H, W)`` may be up to eight times as long as wide: longer ones are series that a Conv2d reads."""
LARGEST_MAP = 128
"""Cells along the longer side of a map; larger ones would not survive a logger's card."""


class ImageRenderer(Renderer):
    """Draws each input beside its attribution, over the input in light gray; or the attribution alone on white.

    Example:
        >>> import torch
        >>> ImageRenderer().find_shares(torch.zeros(2, 3, 8, 8), torch.ones(2, 16, 4, 4)).values.shape
        (2, 8, 8)
    """

    name = "image"
    needs = "inputs (N, C, H, W) with C in 1, 3, 4, or (N, H, W), and attributions (N, C, h, w) or (N, h, w)"

    def suits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether both have images' shapes; the attributions of a fully connected layer do not."""
        shape = tuple(inputs.shape)
        if not self.fits(inputs, attributions):
            return False
        short, long = sorted(shape[-2:])
        return long <= LONGEST_IMAGE[len(shape)] * short and (len(shape) == 4 or short >= SMALLEST_IMAGE)

    def fits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether inputs can be pixels and attributions a map of them."""
        shape = tuple(inputs.shape)
        has_pixels = len(shape) == 3 or (len(shape) == 4 and shape[1] in (1, 3, 4))
        return has_pixels and len(attributions.shape) in (3, 4)

    def find_shares(self, inputs: ArrayLike, attributions: ArrayLike) -> Shares:
        """Return maps ``(N, H, W)`` at the input's size, channels summed; large ones summed over cells of pixels."""
        maps = to_array(attributions, "attributions")
        maps = sum_over(maps, axis=1) if maps.ndim == 4 else maps
        size = (inputs.shape[-2], inputs.shape[-1])
        shares = shares_of_total(maps)
        # Resized first: maps and inputs are drawn in the same pixels.
        return pool(shares if maps.shape[1:] == size else resize(shares, size), LARGEST_MAP)

    def draw(self, drawing: Drawing) -> Figure:
        """Return a figure of up to 32 samples."""
        pixels = to_pixels(to_array(drawing.inputs, "inputs"), drawing.mean, drawing.std)
        return image_figure(
            pixels,
            drawing.shares,
            drawing.captions,
            drawing.title,
            drawing.limit,
            drawing.ends,
            _boxes(drawing),
            drawing.shows_inputs,
        )


class TabularRenderer(Renderer):
    """Draws bars of each feature's mean signed and mean absolute share."""

    name = "tabular"
    needs = "attributions (N, features)"

    def suits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether there is one number per feature; inputs of an integer dtype are token ids, not features."""
        return self.fits(inputs, attributions) and not are_tokens(inputs)

    def fits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether there is one number per feature."""
        return len(attributions.shape) == 2

    def find_shares(self, inputs: ArrayLike, attributions: ArrayLike) -> Shares:
        """Return shares ``(N, features)``."""
        return shares_of_total(to_array(attributions, "attributions"))

    def group(self, shares: Shares, feature_groups: Sequence[str]) -> Shares:
        """Return the columns of each feature added up, ``(N, groups)``."""
        return group_shares(shares, feature_groups)

    def find_limit(self, shares: Shares) -> float:
        """Return the largest mean absolute share of a feature, rounded up: bars are means, and shorter than shares."""
        return round_up(mean_shares(shares)[1].max()) if shares.drawable.any() else 1.0

    def draw(self, drawing: Drawing) -> Figure:
        """Return a figure of up to 16 features."""
        return tabular_figure(
            drawing.shares, drawing.captions, drawing.title, drawing.limit, feature_names(drawing), drawing.ends
        )


class BeeswarmRenderer(TabularRenderer):
    """Draws a dot for each sample's share of each feature, colored by the feature's value; chosen by name."""

    name = "beeswarm"
    needs = "inputs and attributions (N, features)"

    def suits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return False: of few samples, bars say more."""
        return False

    def fits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether there is one number per feature, and its value."""
        return len(attributions.shape) == 2 and tuple(inputs.shape) == tuple(attributions.shape)

    def find_limit(self, shares: Shares) -> float:
        """Return the largest share, rounded up."""
        return round_up(np.abs(shares.values).max()) if shares.drawable.any() else 1.0

    def draw(self, drawing: Drawing) -> Figure:
        """Return a figure of up to 16 features."""
        values = to_array(drawing.inputs, "inputs")
        names = feature_labels(feature_names(drawing), drawing.shares.values.shape[1])
        if drawing.feature_groups is not None:
            values = single_columns(values, drawing.feature_groups)
        swarm = Swarm(drawing.shares, names, values, drawing.shows_inputs)
        summary = summarize(drawing.shares, drawing.captions).removeprefix("mean of ")
        return beeswarm_figure(swarm, summary, drawing.title, drawing.limit, drawing.ends)


class HeatmapRenderer(Renderer):
    """Draws each map as a strip, for tokens, volumes and everything else."""

    name = "heatmap"

    def suits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return True: it draws what no other renderer suits."""
        return True

    def draw(self, drawing: Drawing) -> Figure:
        """Return a figure of up to 16 samples."""
        # Token ids are names: a line through them would mean nothing.
        has_lines = drawing.shows_inputs and not are_tokens(drawing.inputs)
        series = to_array(drawing.inputs, "inputs") if has_lines else None
        return heatmap_figure(
            series, drawing.shares, drawing.captions, drawing.title, drawing.limit, drawing.ends, _boxes(drawing)
        )


def feature_names(drawing: Drawing) -> Sequence[str] | None:
    """Return the names of the features that the shares are of."""
    return drawing.feature_names if drawing.feature_groups is None else group_names(drawing.feature_groups)


def _boxes(drawing: Drawing) -> Array | None:
    return None if drawing.boxes is None else to_array(drawing.boxes, "boxes")


def are_tokens(inputs: ArrayLike) -> bool:
    """Return whether inputs are whole numbers ``(N, T)``: token ids, neither features nor values of a series.

    Example:
        >>> import torch
        >>> are_tokens(torch.tensor([[4, 7, 2]])), are_tokens(torch.rand(1, 3))
        (True, False)
    """
    return "int" in str(inputs.dtype) and len(inputs.shape) == 2
