"""Layer sensitivity as a heat map: one row per layer, one column per ratio or bits, and the metric's drop in each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_xai.network.sensitivity import SensitivityTable
from lit_xai.render.canvas import GREY, INK, LINE, MARGIN, SMALL, WIDTH, Canvas, plain_style
from lit_xai.render.names import shorten_names
from lit_xai.render.shares import Array
from lit_xai.render.text import text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ROW, COLUMN, HEAD, BAR = 30, 64, 58, 100
"""Height of a row, least width of a column, height of the columns' names, and of the color bar with its words."""
MAP = "cividis_r"
"""Light is no loss, dark is much: uniform to the eye, the same with any color blindness, and in grey."""


def sensitivity_figure(sensitivity: SensitivityTable, title: str = "") -> Figure:
    """Draw how much the metric drops with each layer pruned or quantized alone: dark cells do not tolerate it.

    Args:
        sensitivity: from :func:`~lit_xai.pruning.sensitivity.layer_sensitivity` or
            :func:`~lit_xai.quantization.sensitivity.quantization_sensitivity`.
        title: of the figure: network, data, importance.

    Example:
        >>> import torch
        >>> values = torch.tensor([[0.90, 0.88], [0.89, 0.52]])
        >>> figure = sensitivity_figure(SensitivityTable((("conv1",), ("conv2", "conv3")), (0.1, 0.5), values, 0.91))
        >>> figure.get_size_inches().tolist()
        [7.0, 3.17]
    """
    drop = sensitivity.drop.double().cpu().numpy()
    with plain_style():
        left, names, notes = _names(sensitivity)
        rows, columns = drop.shape
        width = max(WIDTH, math.ceil(left + COLUMN * columns + MARGIN))
        lines = wrap("\n".join(notes), width - 2 * MARGIN, SMALL, "normal")
        height = LINE * len(lines) + HEAD + ROW * rows + BAR
        whole = f"{sensitivity.reference} {sensitivity.metric} {sensitivity.dense:.4g}"
        canvas = Canvas(f"{title or 'Layer sensitivity'}\n{whole}", height, width)
        for i, line in enumerate(lines):
            canvas.text(MARGIN, canvas.top + LINE * i, line, size=SMALL, color=GREY)
        top = canvas.top + LINE * len(lines) + HEAD
        cell = (width - MARGIN - left) / columns
        _write_columns(canvas, sensitivity, left, top, cell)
        scale = _scale(drop)
        _draw_cells(canvas, drop, scale, left, top, cell)
        for i, name in enumerate(names):
            canvas.text(left - 10, top + ROW * (i + 0.5), name, size=SMALL, ha="right", va="center_baseline")
        change = "drop" if sensitivity.higher_is_better else "rise"
        unit = f"{change} of {sensitivity.metric} from {sensitivity.reference}"
        _draw_bar(canvas, scale, _decimals(drop), unit)
        return canvas.finish()


def _names(sensitivity: SensitivityTable) -> tuple[float, list[str], list[str]]:
    """Return where the cells begin, the name of each row, and notes on these names."""
    more = [f" +{len(names) - 1}" if len(names) > 1 else "" for names in sensitivity.layers]
    extra = max(text_width(words, SMALL) for words in more)
    most = max(WIDTH - 2 * MARGIN - COLUMN * sensitivity.values.shape[1] - 10, 0.3 * WIDTH) - extra
    short, shared = shorten_names([names[0] for names in sensitivity.layers], most, SMALL)
    names = [name + words for name, words in zip(short, more, strict=True)]
    notes = ["+n: with the n layers whose channels can only go together with it"] if any(more) else []
    notes += [f"all names begin with {shared}"] if shared else []
    return MARGIN + 10 + max(text_width(name, SMALL) for name in names), names, notes


def _write_columns(canvas: Canvas, sensitivity: SensitivityTable, left: float, top: float, cell: float) -> None:
    words, labels = sensitivity.columns_title, sensitivity.column_labels
    # Centered over the columns, unless that would stick out of the page.
    middle = min(left + cell * len(labels) / 2, canvas.width - MARGIN - text_width(words, SMALL) / 2)
    canvas.text(middle, top - HEAD + 2, words, size=SMALL, color=GREY, ha="center")
    for j, label in enumerate(labels):
        canvas.text(left + cell * (j + 0.5), top - LINE - 1, label, size=SMALL, ha="center")


def _scale(drop: Array) -> Any:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # From zero: cells that are better than dense are as light as those without a drop.
    worst = float(drop.max())
    return ScalarMappable(Normalize(0.0, worst if worst > 0 else 1.0), colormaps[MAP])


def _decimals(drop: Array) -> int:
    """Return how many decimals tell the cells apart in three digits of the largest."""
    largest = float(np.abs(drop).max())
    return min(max(2 - math.floor(math.log10(largest)), 0), 3) if largest > 0 else 3


def _number(value: float, decimals: int) -> str:
    words = f"{value:.{decimals}f}" if abs(value) < 1e4 and (not value or abs(value) >= 1e-3) else f"{value:.0e}"
    return words.replace("-", "\N{MINUS SIGN}")


def _draw_cells(canvas: Canvas, drop: Array, scale: Any, left: float, top: float, cell: float) -> None:
    from matplotlib.patches import Rectangle

    decimals = _decimals(drop)
    for (i, j), value in np.ndenumerate(drop):
        x, y = left + cell * j, top + ROW * i
        color = scale.to_rgba(value)
        canvas.axes.add_patch(Rectangle((x, y), cell, ROW, facecolor=color, edgecolor="white", linewidth=1))
        canvas.text(
            x + cell / 2,
            y + ROW / 2,
            _number(value, decimals),
            size=SMALL,
            color=_ink_on(color),
            ha="center",
            va="center_baseline",
        )


def luminance(color: Any) -> float:
    """Return the relative luminance of an RGB color, as WCAG 2 defines it.

    Example:
        >>> luminance((1, 1, 1)), luminance((0, 0, 0))
        (1.0, 0.0)
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return round(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2], 6)


def _ink_on(color: Any) -> str:
    """Return white or black, whichever stands out more; they tie at a luminance of 0.179."""
    return "white" if luminance(color) < 0.179 else "black"


def _draw_bar(canvas: Canvas, scale: Any, decimals: int, unit: str) -> None:
    inset, thick = MARGIN + 40, 20
    top = canvas.height - BAR + 10
    box = (inset / canvas.width, 1 - (top + thick) / canvas.height, 1 - 2 * inset / canvas.width, thick / canvas.height)
    bar = canvas.figure.colorbar(scale, cax=canvas.figure.add_axes(box), orientation="horizontal", extend="min")
    ticks = [0.0, scale.norm.vmax / 2, scale.norm.vmax]
    bar.set_ticks(ticks, labels=[_number(tick, decimals) for tick in ticks], fontsize=SMALL, color=INK)
    y, ends = canvas.height - 32, ("◂ no worse", "worse ▸")
    canvas.text(MARGIN, y, ends[0], size=SMALL, color=GREY)
    canvas.text(canvas.width - MARGIN, y, ends[1], size=SMALL, color=GREY, ha="right")
    room = canvas.width - 2 * (MARGIN + max(text_width(words, SMALL) for words in ends) + 10)
    canvas.text(canvas.width / 2, y, unit, width=room, size=SMALL, ha="center")
