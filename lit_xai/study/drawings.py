"""The figures of a study's page: its cells by two objectives at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lit_xai.render.canvas import plain_style
from lit_xai.report.drawings import GREY, INK, SECOND, SIZE, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 6
"""Figures on a page: of four objectives, all pairs."""

WIDE, HIGH = 19, 11
"""Points that a cell's number takes."""


def fronts(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a figure for each pair of objectives, with its title; none of a single objective, or without cells.

    Args:
        found: :func:`~lit_xai.study.results.results`.
    """
    done = [one for one in found["cells"] if one["state"] == "complete" and one["same_as"] is None]
    pairs = list(itertools.combinations(found["objectives"], 2))[:MOST] if done else []
    names = [(x, y) if found["objectives"][x] == "min" else (y, x) for x, y in pairs]  # costs along the bottom
    return [{"x": x, "y": y, "svg": _front(done, x, y, f"front-{place}")} for place, (x, y) in enumerate(names)]


def _front(cells: Sequence[Mapping[str, Any]], x: str, y: str, key: str) -> str:
    from matplotlib.figure import Figure

    with plain_style():
        figure = Figure(SIZE)
        axes: Axes = figure.add_axes((0.17, 0.16, 0.79, 0.8))
        axes.set_xlabel(axis_title(x), color=INK, parse_math=False)
        axes.set_ylabel(axis_title(y), color=INK, parse_math=False)
        axes.yaxis.set_label_coords(-0.17, 0.5)
        axes.tick_params(colors=GREY, labelcolor=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.margins(0.12)
        for one in cells:
            color, fill = (SECOND, "full") if one["is_on_front"] else (GREY, "none")
            axes.plot(*_place(one, x, y), "o", color=color, markersize=6, fillstyle=fill)
        _number(axes, [one for one in cells if one["is_on_front"]], x, y)
    return to_svg(figure, key)


def _number(axes: Axes, cells: Sequence[Mapping[str, Any]], x: str, y: str) -> None:
    """Write the numbers of cells beside them, as far as there is room."""
    taken: list[tuple[float, float]] = []
    for one in cells:
        point = axes.transData.transform(_place(one, x, y)) * 72 / axes.figure.dpi  # in points, as offsets are
        for offset in ((6, 4), (6, -13), (-18, 4), (-18, -13)):
            left, low = point + offset
            if all(abs(left - a) > WIDE or abs(low - b) > HIGH for a, b in taken):
                taken.append((left, low))
                axes.annotate(
                    str(one["number"]), _place(one, x, y), offset, textcoords="offset points", color=INK, weight="bold"
                )
                break


def _place(cell: Mapping[str, Any], x: str, y: str) -> tuple[float, float]:
    return cell["values"][x]["value"], cell["values"][y]["value"]


def axis_title(objective: str) -> str:
    """Return an objective with its unit, as an axis has it.

    Example:
        >>> axis_title("latency"), axis_title("accuracy")
        ("latency, times the reference's", 'accuracy')
    """
    units = {"latency": "latency, times the reference's", "size": "size in kB", "macs": "MACs", "params": "parameters"}
    return units.get(objective, objective)
