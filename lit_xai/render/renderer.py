"""The interface of a kind of picture: when it suits, which maps it is drawn from, and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lit_xai.render.canvas import ENDS, Ends
from lit_xai.render.captions import Caption
from lit_xai.render.pixels import PerChannel
from lit_xai.render.shares import ArrayLike, Shares, round_up, shares_of_total, sum_over, to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERCENTILE = 99
"""The color limit leaves this part of all cells unclipped: single extremes would fade everything else to white."""


@dataclass(frozen=True)
class Drawing:
    """Everything that a renderer may draw: the samples, their maps, and their captions.

    Args:
        inputs: the explained input of the network, ``(N, ...)``: a tensor, on any device, or an array.
        shares: the maps as :meth:`Renderer.find_shares` returned them.
        captions: one per sample.
        title: of the figure.
        limit: the share at which colors and bars end. A run's first evaluation fixes it: later shares may be larger.
        feature_names: of tabular inputs, or of the channels of series, where known.
        mean: the mean that normalization subtracted from images.
        std: the standard deviation that it divided by.
        ends: the effects of negative and positive values, in words; the first is empty if none are negative.
        boxes: where in the picture is what was explained, ``(N, 4)``: top, left, bottom and right edge, as shares of
            its height and width; ``None`` where the network answers for the whole of it.
        shows_inputs: whether inputs may be drawn; ``False`` leaves zeros of their shape in ``inputs``.
        token_names: of the ids of text, one per id, where known.
        feature_groups: the feature that each column of a table belongs to, where known; ``shares`` are those of
            features if :meth:`Renderer.group` adds them up.
        sample_rate: positions of a series per second, where known.
        by_word: whether words of text were explained whole, and are one thing each.
    """

    inputs: ArrayLike
    shares: Shares
    captions: Sequence[Caption]
    title: str
    limit: float
    feature_names: Sequence[str] | None = None
    mean: PerChannel = None
    std: PerChannel = None
    ends: Ends = ENDS
    boxes: ArrayLike | None = None
    shows_inputs: bool = True
    token_names: Sequence[str] | None = None
    feature_groups: Sequence[str] | None = None
    sample_rate: float | None = None
    by_word: bool = False

    @property
    def unit(self) -> str:
        """What one color of a text belongs to, in a word."""
        return "word" if self.by_word else "token"


class Renderer(ABC):
    """One kind of picture of attributions.

    A subclass that is given to :func:`~lit_xai.render.registry.register_renderer` is chosen by the library where
    :meth:`suits` returns True, and by name with ``kind=``.

    Attributes:
        name: its name for ``kind=``.
        needs: the shapes that it can draw, in words, for the error where others are given.
    """

    name: ClassVar[str]
    needs: ClassVar[str] = "other shapes"

    def suits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether to choose this renderer where no ``kind`` is given; by default it never is."""
        return False

    def fits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether it can draw these at all, given its name; by default it can draw everything.

        What passes is drawn, so look at the shapes of both, and at the inputs' dtype where it matters.
        """
        return True

    def find_shares(self, inputs: ArrayLike, attributions: ArrayLike) -> Shares:
        """Return the shares of each map's total to draw; by default as strips ``(N, rows, positions)``.

        For tokens these are ``(N, 1, T)``. Attributions with one dimension more than the inputs are those of an
        embedding layer; they are summed over it so that each token has one number.

        Args:
            inputs: the network's inputs, ``(N, ...)``.
            attributions: one map per sample, ``(N, ...)``.
        """
        maps = to_array(attributions, "attributions")
        maps = sum_over(maps, axis=-1) if maps.ndim == len(inputs.shape) + 1 else maps
        return shares_of_total(maps.reshape(len(maps), -1, maps.shape[-1]))

    def group(self, shares: Shares, feature_groups: Sequence[str]) -> Shares:
        """Return the shares of features from those of a table's columns; by default as they are.

        Args:
            shares: as :meth:`find_shares` returned them.
            feature_groups: the feature that each column belongs to.
        """
        return shares

    def find_limit(self, shares: Shares) -> float:
        """Return the share at which colors end; by default the 99th percentile of all shares, rounded up."""
        used = np.abs(shares.values[shares.drawable])
        if not used.size:
            return 1.0
        # Where hardly any cell counts (a single super-pixel), the percentile is zero.
        return round_up(np.percentile(used, PERCENTILE) or used.max())

    @abstractmethod
    def draw(self, drawing: Drawing) -> Figure:
        """Return the figure; matplotlib's own defaults hold meanwhile, and pyplot must not be used."""

    def html(self, drawing: Drawing) -> str:
        """Return a page of HTML that shows more than the figure can, written beside it; ``""`` where there is none."""
        return ""
