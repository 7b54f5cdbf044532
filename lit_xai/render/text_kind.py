"""The kind of picture for texts: tokens where they are read, colored by what they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_xai.render.html import sentences_html
from lit_xai.render.kinds import HeatmapRenderer, are_tokens
from lit_xai.render.renderer import Drawing, Renderer
from lit_xai.render.sentences import sentences_figure
from lit_xai.render.shares import ArrayLike, to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TextRenderer(Renderer):
    """Draws each text with every token on a background in the color of its share.

    Pieces of a word stand next to each other, special tokens and padding are gray, and lines run as the text does, from
    the right where its first letter does. Where inputs must not be shown, maps are strips.

    Example:
        >>> import torch
        >>> ids = torch.tensor([[1, 2, 0]])
        >>> TextRenderer().suits(ids, torch.ones(1, 3, 8)), TextRenderer().suits(ids, torch.ones(1, 2))
        (True, False)
    """

    name = "text"
    needs = "integer tokens (N, T) and attributions (N, T) or (N, T, E)"

    def suits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether inputs are tokens, each with a number or a vector."""
        return self.fits(inputs, attributions)

    def fits(self, inputs: ArrayLike, attributions: ArrayLike) -> bool:
        """Return whether inputs are tokens, each with a number or a vector."""
        shape = tuple(attributions.shape)
        return are_tokens(inputs) and len(shape) in (2, 3) and shape[:2] == tuple(inputs.shape)

    def draw(self, drawing: Drawing) -> Figure:
        """Return a figure of up to 16 texts, each of up to 10 lines."""
        if not drawing.shows_inputs:
            return HeatmapRenderer().draw(drawing)
        return sentences_figure(to_array(drawing.inputs, "inputs"), drawing)

    def html(self, drawing: Drawing) -> str:
        """Return a page of all texts, whole; nothing where inputs must not be shown."""
        return sentences_html(to_array(drawing.inputs, "inputs"), drawing) if drawing.shows_inputs else ""
