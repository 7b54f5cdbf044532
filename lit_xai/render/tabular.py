"""Tables: the mean share of each feature, and its sign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lit_xai.render.canvas import (
    AGAINST,
    ENDS,
    FOR,
    GREY,
    INK,
    LINE,
    MARGIN,
    SMALL,
    TEXT,
    WIDTH,
    Canvas,
    Ends,
    scale_ticks,
)
from lit_xai.render.captions import Caption
from lit_xai.render.shares import Array, Shares
from lit_xai.render.text import text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16
"""Features on one figure."""
CLASSES = 4
"""Classes whose samples are counted by name on one figure."""
ROW, AXIS, NUMBERS = 34, 80, 90
"""Height of a feature's bars, height of the axis with its words, width of the numbers on the right."""
ABSOLUTE = "#cccccc"


def tabular_figure(
    shares: Shares,
    captions: Sequence[Caption],
    title: str,
    limit: float,
    feature_names: Sequence[str] | None = None,
    ends: Ends = ENDS,
) -> Figure:
    """Return the bars of mean signed and mean absolute share per feature, for shares ``(N, features)``."""
    names = feature_labels(feature_names, shares.values.shape[1])
    signed, absolute = mean_shares(shares)
    shown = shown_features(absolute)
    summary = wrap(summarize(shares, captions), WIDTH - 2 * MARGIN, SMALL, "normal", most=6)
    canvas = Canvas(title, LINE * (len(summary) + 1) + 8 + ROW * len(shown) + AXIS, ends=ends)
    for i, line in enumerate(summary):
        canvas.text(MARGIN, canvas.top + LINE * i, line, size=SMALL, color=GREY)
    _write_legend(canvas, canvas.top + LINE * len(summary))
    top = canvas.top + LINE * (len(summary) + 1) + 8
    left = MARGIN + 10 + min(max(text_width(names[k], TEXT) for k in shown), 0.42 * WIDTH)
    _draw_bars(canvas, (left, top), signed[shown], absolute[shown], limit)
    for i, k in enumerate(shown):
        y = top + ROW * (i + 0.5)
        canvas.text(left - 10, y, names[k], width=left - 10 - MARGIN, ha="right", va="center_baseline")
        beyond = "▸ " if absolute[k] > limit else ""
        number = f"{beyond}{100 * absolute[k]:.1f}%"
        canvas.text(WIDTH - MARGIN, y, number, size=SMALL, color=GREY, ha="right", va="center_baseline")
    canvas.ends_of_scale("share of a sample's Σ|a|")
    return canvas.finish()


def mean_shares(shares: Shares) -> tuple[Array, Array]:
    """Return each feature's mean signed and mean absolute share, over the samples that have a map.

    Example:
        >>> from lit_xai.render.shares import shares_of_total
        >>> mean_shares(shares_of_total(np.array([[1.0, 3.0], [-1.0, 3.0], [0.0, 0.0]])))
        (array([0.  , 0.75]), array([0.25, 0.75]))
    """
    used = shares.values[shares.drawable]
    if not len(used):
        return np.zeros(shares.values.shape[1]), np.zeros(shares.values.shape[1])
    return used.mean(axis=0), np.abs(used).mean(axis=0)


def shown_features(weights: Array) -> NDArray[np.int64]:
    """Return the features that have a place on a figure: all in their own order, or of many the most important.

    Args:
        weights: of the features; of many, those without any have no place.

    Example:
        >>> shown_features(np.array([0.1, 0.0, 0.3])), shown_features(np.array([0.1, *[0.0] * 20, 0.3]))
        (array([0, 1, 2]), array([21,  0]))
    """
    if len(weights) <= MOST:  # so that bars stay in place from epoch to epoch
        return np.arange(len(weights))
    order = np.argsort(-weights, kind="stable")[:MOST]
    return order[: np.count_nonzero(weights[order])] if weights.any() else order


def feature_labels(feature_names: Sequence[str] | None, features: int) -> list[str]:
    """Return a name for each feature.

    Raises:
        ValueError: there are more or fewer names than features.
    """
    if feature_names is None:
        return [f"x{i}" for i in range(features)]
    if len(feature_names) != features:
        raise ValueError(f"feature_names expected {features} names, one per feature, but got {len(feature_names)}.")
    return [" ".join(str(name).split()) for name in feature_names]


def summarize(shares: Shares, captions: Sequence[Caption]) -> str:
    """Return the lines above a table's figure: what it is the mean of, and what was left out."""
    used, judged = int(shares.drawable.sum()), [c.correct for c in captions if c.correct is not None]
    classes = _classes([caption for caption, drawn in zip(captions, shares.drawable, strict=True) if drawn])
    parts = [f"mean of {used} sample{'s' * (used != 1)}{_composition(classes)}"]
    if judged:
        parts.append(f"{sum(judged)} of {len(judged)} predicted correctly")
    if used:
        parts.append(f"mean Σ|a| = {shares.totals[shares.drawable].mean():.3g}")
    notes = [note for i in range(len(captions)) if (note := shares.note(i))]
    parts += [f"{notes.count(note)} left out: {note}" for note in sorted(set(notes))]
    lines = [" · ".join(parts)]
    if len(classes) > 1:  # a mean over classes: a feature may speak for one and against another
        lines.append("signs: for or against each sample's explained class")
    features = shares.values.shape[1]
    if features > MOST:
        shown = len(shown_features(mean_shares(shares)[1]))
        lines.append(f"{shown} of {features} features, most important first")
    return "\n".join(lines)


def _classes(captions: Sequence[Caption]) -> Counter[str]:
    """Return how many samples there are of each class, by its name; nothing for a regression."""
    known = [c for c in captions if c.correct is not None or c.probability is not None]
    names = [caption.true or caption.predicted for caption in known]
    return Counter(f"class {name}" if name.isdecimal() else name for name in names)


def _composition(classes: Counter[str]) -> str:
    if len(classes) > CLASSES:
        return f" of {len(classes)} classes"
    if len(classes) == 1:
        return f" of {next(iter(classes))}"
    return ": " * bool(classes) + ", ".join(f"{n} of {name}" for name, n in classes.items())


def _write_legend(canvas: Canvas, y: float) -> None:
    x: float = MARGIN
    for mark, color, words in (
        ("■", ABSOLUTE, " mean |share| (the numbers)     "),
        ("■", FOR, ""),
        ("■", AGAINST, " mean share, signed"),
    ):
        canvas.text(x, y, mark, color=color)
        canvas.text(x + text_width(mark, TEXT), y, words, size=SMALL)
        x += text_width(mark, TEXT) + text_width(words, SMALL)


def _draw_bars(canvas: Canvas, corner: tuple[float, float], signed: Array, absolute: Array, limit: float) -> None:
    left, top = corner
    width, height = WIDTH - MARGIN - NUMBERS - left, ROW * len(signed)
    bounds = (left / WIDTH, 1 - (top + height) / canvas.height, width / WIDTH, height / canvas.height)
    axes = canvas.figure.add_axes(bounds, xlim=(-limit, limit), ylim=(len(signed) - 0.5, -0.5), yticks=[])
    rows = np.arange(len(signed))
    axes.barh(rows, absolute, height=0.72, color=ABSOLUTE)
    axes.barh(rows, signed, height=0.4, color=[FOR if share > 0 else AGAINST for share in signed])
    axes.axvline(0, color=INK, linewidth=1)
    axes.spines[["left", "right", "top"]].set_visible(False)
    ticks, words = scale_ticks(limit)
    axes.set_xticks(ticks, words, fontsize=SMALL, color=INK)
