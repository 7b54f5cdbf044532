"""The curves of retention in TensorBoard: the similarity with its interval, and lines that it is held against."""

from torch import Tensor

from lit_xai.retention.intervals import FEWEST, mean_interval
from lit_xai.retention.retention import Retention
from lit_xai.trainer.charts import Chart, curve


def similarity_numbers(explainer: str, similarity: Tensor) -> dict[str, float]:
    """Return the mean over samples and the ends of its interval, by tag.

    Args:
        explainer: the method's name.
        similarity: of each sample, ``(N,)``.

    Example:
        >>> import torch
        >>> list(similarity_numbers("Saliency", torch.ones(40)))
        ['similarity/Saliency', 'similarity/Saliency/lower', 'similarity/Saliency/upper']
    """
    tag, interval = f"similarity/{explainer}", mean_interval(similarity)
    ends = {} if interval is None else {f"{tag}/lower": interval.low, f"{tag}/upper": interval.high}
    return {tag: float(similarity.mean()), **ends}


def lines(found: Retention) -> dict[str, float]:
    """Return the similarity of what a network is held against, by tag.

    Args:
        found: its references are retentions where these say anything, and similarities elsewhere.
    """
    tag, null = f"retention/lines/{found.explainer}", found.null
    drawn: dict[str, float] = {}
    if null is not None:
        drawn[f"{tag}/untrained network"] = null.similarity
        if null.band is not None:
            drawn[f"{tag}/untrained network, 95% below"] = null.band.high
    for name, value in found.references.items():
        if null is not None and found.retention is not None:
            value = null.similarity + value * (1 - null.similarity)
        drawn[f"{tag}/{name}"] = value
    return drawn


def charts(explainer: str, n: int) -> tuple[Chart, ...]:
    """Return the charts of one explainer's similarity.

    Args:
        explainer: the method's name.
        n: samples; few have no interval.

    Example:
        >>> [chart.is_margin for chart in charts("Saliency", 256)]
        [True, False, False]
    """
    tag = f"retention/similarity/{explainer}"
    margin = Chart(f"similarity, {explainer}, with its 95% interval", (tag, f"{tag}/lower", f"{tag}/upper"), True)
    compared = (curve(tag), f"^retention/lines/{explainer}/")
    shares = ("^retention/(negative_)?flips$",)
    return (
        *((margin,) if n >= FEWEST else ()),
        Chart(f"similarity, {explainer}, and what it is held against", compared),
        Chart("flips, as a share of the samples", shares),
    )
