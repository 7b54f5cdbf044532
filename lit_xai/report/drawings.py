"""Figures of a report as SVG that is part of its page: in the page's own colors and letters, light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_xai.render.canvas import plain_style
from lit_xai.report.measured import classes
from lit_xai.report.networks import probabilities
from lit_xai.report.record import Explained, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (4.7, 3.2)
"""Inches; a page shows 96 pixels of each at most, so that the letters of 10 points stay above 9 pixels."""

INK, GREY, FIRST, SECOND, NULL = "#101010", "#606060", "#505050", "#1060b0", "#b01830"
_COLORS = {INK: "ink", GREY: "muted", FIRST: "first", SECOND: "second", NULL: "null"}
"""By the page's names, which have another value in the dark."""

_BINS = 10
FEWEST_IN_BIN = 10
"""Samples below which a bin of confidence is not drawn."""


def trade_off(networks: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the metric of each network against its latency, or against its size; ``None`` where neither is known.

    Args:
        networks: rows of a summary.

    Example:
        >>> one = {"metric": {"name": "accuracy", "value": 0.9, "low": 0.8, "high": 0.95}, "latency": None}
        >>> trade_off([{**one, "name": "dense", "costs": {"size kB": 90}}]).startswith("<svg")
        True
    """
    found = _cost_of(networks)
    if found is None:
        return None
    words, costs = found
    points = [
        {**one["metric"], "x": cost, "kind": "other" if place else "reference"}
        for place, (one, cost) in enumerate(zip(networks, costs, strict=True))
    ]
    return scatter(points, words, networks[0]["metric"]["name"], "trade-off")


def scatter(points: Sequence[Mapping[str, Any]], x: str, y: str, key: str) -> str:
    """Return a scatter plot in which each point has a letter; points at the same ``x`` stand side by side.

    Args:
        points: each with ``x``, ``value`` and its bounds ``low`` and ``high``, and a ``kind``: ``"reference"`` is a
            square, ``"front"`` filled, ``"other"`` filled where no point is on a front, else hollow.
        x: what is drawn to the right.
        y: what is drawn upwards.
        key: of the figure, unlike that of any other on the page.

    Example:
        >>> scatter([{"x": 1.0, "value": 0.9, "kind": "front"}], "latency", "accuracy", "one").startswith("<svg")
        True
    """
    from matplotlib.transforms import offset_copy

    axes = _axes(x, y)
    figure = _figure(axes)
    ends = [_ends(one) for one in points]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    margin = 0.1 * (highest - lowest) or 0.05 * abs(highest) or 0.05
    right, left = max(1.15 * max(one["x"] for one in points), 0.0), min(one["x"] for one in points)
    axes.set(xlim=(min(0.0, 1.15 * left), right or 1.0), ylim=(lowest - margin, highest + 1.6 * margin))
    has_front = any(one["kind"] == "front" for one in points)
    shifts = _side_by_side([one["x"] for one in points], right or 1.0)
    for place, (one, (low, high), shift) in enumerate(zip(points, ends, shifts, strict=True)):
        moved = offset_copy(axes.transData, figure, x=shift, units="points")
        color = FIRST if one["kind"] == "reference" else SECOND
        mark = "s" if one["kind"] == "reference" else "o"
        face = "none" if has_front and one["kind"] == "other" else color
        axes.plot([one["x"]] * 2, [low, high], color=color, linewidth=1.5, transform=moved)
        axes.plot(
            one["x"], one["value"], mark, color=color, markerfacecolor=face, markersize=7, transform=moved, zorder=3
        )
        axes.annotate(
            letter(place),
            (one["x"], high),
            (shift, 6),
            textcoords="offset points",
            color=INK,
            weight="bold",
            ha="center",
        )
    return to_svg(figure, key)


def both_axes(points: Sequence[Mapping[str, Any]], x: str, y: str, key: str) -> str:
    """Return each network's explanations on both axes: how much they are the reference's, and how faithful to itself.

    Args:
        points: each with its ``letter``, whether it ``is_reference``, and ``x`` and ``y``, numbers with bounds.
        x: what is drawn to the right, 0 for an untrained network.
        y: what is drawn upwards, 0 for random orders.
        key: of the figure, unlike that of any other on the page.

    Example:
        >>> numbers = {"value": 0.3, "low": 0.2, "high": 0.4}
        >>> one = {"letter": "A", "is_reference": True, "x": {"value": 1.0}, "y": numbers}
        >>> both_axes([one], "retention", "faithfulness", "one").startswith("<svg")
        True
    """
    axes = _axes(x, y)
    ends = {axis: [_ends(one[axis]) for one in points] for axis in "xy"}
    for axis, margins in (("x", (0.05, 0.1)), ("y", (0.1, 0.16))):
        lowest = min(0.0, *(low for low, _ in ends[axis]))
        highest = max(1.0 if axis == "x" else 0.0, *(high for _, high in ends[axis]))
        room = (highest - lowest) or 1.0
        axes.set(**{f"{axis}lim": (lowest - margins[0] * room, highest + margins[1] * room)})
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    for one, across, up in zip(points, ends["x"], ends["y"], strict=True):
        color, mark, size = (FIRST, "s", 9) if one["is_reference"] else (SECOND, "o", 6)
        at = one["x"]["value"], one["y"]["value"]
        axes.plot(across, [at[1]] * 2, color=color, linewidth=1.5)
        axes.plot([at[0]] * 2, up, color=color, linewidth=1.5)
        axes.plot(*at, mark, color=color, markersize=size, zorder=3)
    sides = float(np.ptp(axes.get_xlim())), float(np.ptp(axes.get_ylim()))
    for group in _near([(one["x"]["value"], one["y"]["value"]) for one in points], sides):
        top = max(ends["y"][place][1] for place in group)
        middle = sum(points[place]["x"]["value"] for place in group) / len(group)
        for rank, place in enumerate(group):  # from left to right, as the marks below them
            shift = (12 * (rank - (len(group) - 1) / 2), 6)
            axes.annotate(
                points[place]["letter"],
                (middle, top),
                shift,
                textcoords="offset points",
                color=INK,
                weight="bold",
                ha="center",
            )
    return to_svg(_figure(axes), key)


def _near(places: Sequence[tuple[float, float]], sides: tuple[float, float]) -> list[list[int]]:
    """Return marks whose letters would cover each other, each group from left to right."""
    groups: list[list[int]] = []
    for place, at in sorted(enumerate(places), key=lambda one: (one[1], one[0])):
        for group in groups:
            if all(abs(at[i] - places[group[-1]][i]) < share * sides[i] for i, share in enumerate((0.06, 0.15))):
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def _ends(numbers: Mapping[str, Any]) -> tuple[float, float]:
    low, high = (numbers["value"] if numbers.get(end) is None else numbers[end] for end in ("low", "high"))
    return low, high


def _side_by_side(places: Sequence[float], width: float) -> list[float]:
    """Return how many points each mark moves aside, such that none covers another at practically the same place."""
    shifts = [0.0] * len(places)
    order = sorted(range(len(places)), key=lambda one: (places[one], one))
    groups: list[list[int]] = []
    for place in order:
        if groups and places[place] - places[groups[-1][0]] <= 0.02 * width:
            groups[-1].append(place)
        else:
            groups.append([place])
    for group in groups:
        step = min(14.0, 120.0 / len(group))
        for rank, place in enumerate(group):
            shifts[place] = step * (rank - (len(group) - 1) / 2)
    return shifts


def reliability(record: Record) -> str | None:
    """Return the share of right predictions by confidence, of reference and candidate; ``None`` without labels.

    Args:
        record: what was measured.
    """
    if record.labels is None or record.task == "values":
        return None
    axes = _axes("confidence", "share that is right")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    labels, drawn = record.labels.reshape(-1), False
    for network, color, mark in ((record.reference, FIRST, "s-"), (record.candidate, SECOND, "o-")):
        confidence = np.exp(probabilities(record, network)).max(1)
        right = classes(record, network.outputs) == labels
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        counts = np.bincount(bins, minlength=_BINS)
        known = counts >= FEWEST_IN_BIN
        drawn |= bool(known.any())
        means = [(np.bincount(bins, v, _BINS)[known] / counts[known]).round(6) for v in (confidence, right)]
        axes.plot(*means, mark, color=color, markersize=6)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    return to_svg(_figure(axes), "reliability") if drawn else None


def similarities(record: Record, explained: Explained, key: str) -> str | None:
    """Return the distribution of similarity over samples, of the candidate and of untrained networks.

    Args:
        record: what was measured.
        explained: by one explainer.
        key: of the figure, unlike that of any other on the page.
    """
    own = explained.similarity.get(record.candidate.name)
    if own is None:
        return None
    axes = _axes("similarity of a sample's explanations to the reference's", "share of samples")
    edges = np.linspace(min(-1.0, float(own.min())), 1.0, 41)
    series = [(explained.null.reshape(-1), NULL, "--")] if len(explained.null) else []
    for values, color, line in (*series, (own, SECOND, "-")):
        counts, _ = np.histogram(values, edges)
        axes.stairs((counts / max(1, len(values))).round(6), edges, color=color, linewidth=1.8, linestyle=line)
    axes.set_xlim(edges[0], 1.02)
    axes.set_ylim(bottom=0)
    return to_svg(_figure(axes), key)


def to_svg(figure: Figure, key: str) -> str:
    """Return a figure as an SVG element that can stand beside others: the same for the same figure.

    Args:
        figure: in the colors of this module.
        key: of the figure, unlike that of any other on the page.
    """
    import matplotlib

    file = io.StringIO()
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
    with plain_style(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that matplotlib's font lacks: the reader's has it
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(figure|axes|patch|line2d|text|matplotlib|xtick|ytick|PathCollection|legend)[^"]*"', "", text)
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", text)
    text = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 sans-serif", text)
    for color, name in _COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text


def _axes(x: str, y: str) -> Axes:
    from matplotlib.figure import Figure

    with plain_style():
        # In places of its own: a layout that measures text takes twice the time, and moves with every font.
        axes: Axes = Figure(SIZE).add_axes((0.17, 0.16, 0.8, 0.81))
        axes.set_xlabel(x, color=INK, parse_math=False)
        axes.set_ylabel(y, color=INK, parse_math=False)
        axes.yaxis.set_label_coords(-0.17, 0.5)
        axes.tick_params(colors=GREY, labelcolor=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
    return axes


def _figure(axes: Axes) -> Figure:
    found: Figure = axes.figure  # type: ignore[assignment]  # its own, not that of a part of a figure
    return found


def _cost_of(networks: Sequence[Mapping[str, Any]]) -> tuple[str, list[float]] | None:
    if all(one["latency"] for one in networks):
        return "median latency in ms", [one["latency"]["median"] for one in networks]
    for name in ("size kB", "MACs", "parameters"):
        if all(one["costs"].get(name) is not None for one in networks):
            return name, [one["costs"][name] for one in networks]
    return None


def letter(place: int) -> str:
    """Return the letter that a network has in figures, as its name may be of any length and writing."""
    return chr(ord("A") + place) if place < 26 else str(place)
