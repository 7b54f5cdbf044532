"""Pictures and tables of attributions and of compression, all by plain functions.

Pictures are a matplotlib ``Figure``, an array or a PNG file. matplotlib is imported when the first one is drawn, and
never through pyplot: no global figure state, no backend chosen on the user's behalf.
"""

from lit_xai.render.blame import blame_figure
from lit_xai.render.channels import channels_figure, channels_table
from lit_xai.render.figure import attribution_figure, attribution_html, color_limit
from lit_xai.render.networks import networks_figure
from lit_xai.render.png import figure_to_rgb, save_png
from lit_xai.render.ranking import RankedItem, RankedUser, ranking_figure
from lit_xai.render.registry import register_renderer, unregister_renderer
from lit_xai.render.renderer import Drawing, Renderer
from lit_xai.render.retention import retention_figure
from lit_xai.render.sensitivity import sensitivity_figure
from lit_xai.render.summary import before_after_table

__all__ = [
    "Drawing",
    "RankedItem",
    "RankedUser",
    "Renderer",
    "attribution_figure",
    "attribution_html",
    "before_after_table",
    "blame_figure",
    "channels_figure",
    "channels_table",
    "color_limit",
    "figure_to_rgb",
    "networks_figure",
    "ranking_figure",
    "register_renderer",
    "retention_figure",
    "save_png",
    "sensitivity_figure",
    "unregister_renderer",
]
