"""One matplotlib Figure of attributions, of the kind that suits the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lit_xai.render.canvas import ENDS, Ends, plain_style
from lit_xai.render.captions import Caption, PerSample, make_captions
from lit_xai.render.pixels import PerChannel
from lit_xai.render.registry import choose_renderer
from lit_xai.render.renderer import Drawing, Renderer
from lit_xai.render.samples import blank
from lit_xai.render.shares import ArrayLike, Shares, to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def attribution_figure(
    inputs: ArrayLike,
    attributions: ArrayLike,
    *,
    title: str = "",
    labels: PerSample = None,
    predictions: PerSample = None,
    probabilities: PerSample = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    mean: PerChannel = None,
    std: PerChannel = None,
    limit: float | None = None,
    kind: str | Renderer | None = None,
    ends: Ends = ENDS,
    places: Sequence[str] = (),
    boxes: ArrayLike | None = None,
    shows_inputs: bool = True,
    token_names: Sequence[str] | None = None,
    feature_groups: Sequence[str] | None = None,
    sample_rate: float | None = None,
    by_word: bool = False,
) -> Figure:
    r"""Draw what speaks for a class (red) and against it (blue), by sample or, for tables, by feature.

    Every map is divided by its own total, :math:`a_i / \sum_j |a_j|`, so that one color means the same share in every
    sample, epoch and method; the total itself is written beside the map. The library's kinds, next to those that
    were registered with :func:`~lit_xai.render.registry.register_renderer`:

    - ``"image"``: each input beside its attribution over the input in light gray, channels summed, coarser maps
      (GradCAM) resized bilinearly. At most 32 samples.
    - ``"tabular"``: bars of each feature's mean signed and mean absolute share. At most 16 features.
    - ``"beeswarm"``, of tables too and by name alone: a dot for each sample's share of each feature, colored by the
      feature's value.
    - ``"series"``: each map over channels and time, with channels' names and a time axis; series of at most four
      channels are drawn as lines over it. At most 16 samples, or 10 of many channels.
    - ``"text"``: each text with every token on a background in the color of its share, pieces of a word joined, special
      tokens and padding gray, from the right where its first letter runs so. At most 16 samples of 10 lines.
    - ``"heatmap"``: each map as a strip, for volumes and everything else. At most 16 samples.

    Args:
        inputs: the network's inputs, ``(N, ...)``, a tensor or an array.
        attributions: one map per sample, ``(N, ...)``.
        title: of the figure: method, target, baseline, epoch.
        labels: class indices ``(N,)``, names, values of a regression, or multi-hot ``(N, K)``.
        predictions: in the form of ``labels``; default the most probable class where ``probabilities`` is ``(N, K)``.
        probabilities: of the predicted class ``(N,)``, or of every class ``(N, K)``, in [0, 1].
        class_names: the name of each class index.
        feature_names: the name of each feature of a table, or of each channel of a series; default ``x0``, ``x1`` ...
        mean: the mean of the images' normalization, one number or one per channel; undone before drawing.
        std: its standard deviation, one number or one per channel.
        limit: the share at which colors and bars end; default :func:`color_limit` of these attributions. Pass one
            number to every figure that is to be compared.
        kind: ``"image"``, ``"tabular"``, ``"beeswarm"``, ``"series"``, ``"text"``, ``"heatmap"``, the name or import
            path of another renderer, or a renderer; default by the shapes.
        ends: the effects of negative and positive values, in words; the first is empty if none are negative.
        places: what was explained in each sample where the network answers for many places: ``"pixel (12, 30)"``.
        boxes: where in the picture that is, ``(N, 4)``: top, left, bottom and right edge, as shares of its height and
            width; framed in the figure.
        shows_inputs: whether the inputs themselves are drawn, alone and faintly under the maps. Where they are not, any
            renderer gets zeros of their shape and dtype.
        token_names: of the ids of text, one per id.
        feature_groups: the feature that each column of a table belongs to, one per column: figures of tables add up
            the columns of one feature, as those of a category.
        sample_rate: positions of a series per second.
        by_word: whether pieces of a word are drawn as one, with the sum of their attributions.

    Raises:
        TypeError: inputs or attributions are no tensor or array of real numbers, or a renderer returned no Figure.
        ValueError: shapes that do not belong together, an unknown ``kind``, or a ``limit`` that is not positive.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 1, 28, 28)
        >>> figure = attribution_figure(images, images - 0.5, title="InputXGradient", labels=[0, 1], predictions=[0, 0])
        >>> figure.canvas.get_width_height()
        (700, 371)
    """
    renderer, drawing = _prepared(
        inputs,
        attributions,
        kind,
        limit,
        make_captions(len(inputs), labels, predictions, probabilities, class_names, places),
        title=title,
        feature_names=feature_names,
        mean=mean,
        std=std,
        ends=ends,
        boxes=boxes,
        shows_inputs=shows_inputs,
        token_names=token_names,
        feature_groups=feature_groups,
        sample_rate=sample_rate,
        by_word=by_word,
    )
    with plain_style():
        figure = renderer.draw(drawing)
    if not hasattr(figure, "savefig"):  # a forgotten return, or axes; a Figure by what it can do, as the rest needs it
        raise TypeError(f"{type(renderer).__name__}.draw expected to return a matplotlib Figure, but got {figure!r}.")
    return figure


def attribution_html(
    inputs: ArrayLike,
    attributions: ArrayLike,
    *,
    labels: PerSample = None,
    predictions: PerSample = None,
    probabilities: PerSample = None,
    class_names: Sequence[str] | None = None,
    limit: float | None = None,
    kind: str | Renderer | None = None,
    places: Sequence[str] = (),
    **options: Any,
) -> str:
    """Return what :func:`attribution_figure` draws as a page of HTML that needs no other file.

    Of the library's kinds, ``"text"`` has one: all texts, whole, to select and to search, shaped by the browser. Of the
    others, and where inputs must not be shown, it is ``""``.

    Args:
        inputs: and all others as in :func:`attribution_figure`.
        attributions: one map per sample.
        labels: of the samples.
        predictions: in the form of ``labels``.
        probabilities: of the predictions.
        class_names: the name of each class index.
        limit: the share at which colors end.
        kind: of picture.
        places: what was explained in each sample.
        options: further arguments of :func:`attribution_figure`.

    Example:
        >>> import torch
        >>> page = attribution_html(torch.tensor([[0, 1]]), torch.tensor([[1.0, 3.0]]), token_names=["so", "good"])
        >>> "<span" in page, "+75.0%" in page
        (True, True)
    """
    captions = make_captions(len(inputs), labels, predictions, probabilities, class_names, places)
    renderer, drawing = _prepared(inputs, attributions, kind, limit, captions, **options)
    return renderer.html(drawing)


def _prepared(
    inputs: ArrayLike,
    attributions: ArrayLike,
    kind: str | Renderer | None,
    limit: float | None,
    captions: Sequence[Caption],
    *,
    title: str = "",
    shows_inputs: bool = True,
    **facts: Any,
) -> tuple[Renderer, Drawing]:
    """Return the renderer and all that it needs, checked."""
    to_array(inputs, "inputs")  # refuses what no renderer could draw
    inputs = inputs if shows_inputs else blank(inputs)
    renderer = choose_renderer(inputs, attributions, kind)
    shares = _shares(renderer, inputs, attributions, facts.get("feature_groups"))
    limit = renderer.find_limit(shares) if limit is None else limit
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"limit expected a positive share, such as 0.02 for 2%, but got {limit}.")
    return renderer, Drawing(inputs, shares, captions, title, limit, shows_inputs=shows_inputs, **facts)


def color_limit(
    attributions: ArrayLike,
    inputs: ArrayLike | None = None,
    kind: str | Renderer | None = None,
    feature_groups: Sequence[str] | None = None,
) -> float:
    """Return one readable limit (1, 2, 3 or 5 times a power of ten) to draw these attributions and later ones with.

    The 99th percentile of all shares, or for tables the largest mean absolute share, rounded up. Take it from the first
    evaluation and pass it to every :func:`attribution_figure`.

    Args:
        attributions: one map per sample, ``(N, ...)``.
        inputs: the explained inputs; needed where the figure resizes maps (a GradCAM's few cells hold larger shares).
        kind: as in :func:`attribution_figure`.
        feature_groups: as in :func:`attribution_figure`.

    Raises:
        TypeError: inputs or attributions are no tensor or array of real numbers.
        ValueError: shapes that do not belong together, or an unknown ``kind``.

    Example:
        >>> import numpy as np
        >>> color_limit(np.ones((4, 1, 28, 28)))  # 1 / 784 = 0.0013
        0.002
    """
    inputs = attributions if inputs is None else inputs
    renderer = choose_renderer(inputs, attributions, kind)
    return renderer.find_limit(_shares(renderer, inputs, attributions, feature_groups))


def _shares(
    renderer: Renderer, inputs: ArrayLike, attributions: ArrayLike, feature_groups: Sequence[str] | None
) -> Shares:
    shares = renderer.find_shares(inputs, attributions)
    return shares if feature_groups is None else renderer.group(shares, feature_groups)
