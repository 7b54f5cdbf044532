"""Attributions -> pictures: plain functions that return a matplotlib ``Figure``, an array or a PNG file.

matplotlib is imported when the first picture is drawn, and never through pyplot: no global figure state, no backend
chosen on the user's behalf.
"""

from lit_xai.render.figure import attribution_figure, color_limit
from lit_xai.render.png import figure_to_rgb, save_png

__all__ = ["attribution_figure", "color_limit", "figure_to_rgb", "save_png"]
