"""The two axes of explanations in numbers: the same as the reference's, and faithful to the network itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lit_xai.report import words
from lit_xai.report.estimates import FEWEST, Estimate, weighted_mean
from lit_xai.report.faithful import beyond_random
from lit_xai.report.record import Explained, Record

MEASURE = "insertion minus deletion"

LIMIT = (
    "Explanations that changed and are as faithful as before say that the network came to rest on other elements, not"
    " that these are worse ones. Neither axis says whether predictions are right, or whether the reasons for them are"
    " good ones; and samples of which elements are taken away are not what the networks were trained on."
)
"""What the two do not say."""


def faithful_of(
    record: Record, one: Explained, networks: Sequence[Mapping[str, Any]], of: str
) -> dict[str, Any] | None:
    """Return how faithful an explainer is to each network; ``None`` where that was not measured.

    Args:
        record: what was measured.
        one: of its explainers.
        networks: what it says of every network but the reference, rows of
            :func:`~lit_xai.report.explainers.explainer_row`.
        of: of these ``"retention"``, or ``"similarity"``.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> networks = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))
        >>> curves = {"deletion": np.array([-0.1, -0.3]), "insertion": np.array([0.1, 0.1]), "change": np.ones(2)}
        >>> one = Explained("Saliency", np.arange(2), {}, np.zeros((0, 2)), {}, {"dense": curves, "pruned": curves})
        >>> found = faithful_of(Record(networks, "classes"), one, [], "similarity")
        >>> [round(row["value"], 6) for row in found["networks"]], found["networks"][1]["change"]["value"]
        ([0.3, 0.3], 0.0)
    """
    first = one.faithful.get(record.reference.name)
    if first is None:
        return None
    names = [network.name for network in record.networks if network.name in one.faithful]
    rows = [_row(record, one, name, first) for name in names]
    told = one.arguments.get("faithfulness") or {}
    return {
        **{key: told.get(key) for key in ("steps", "orders", "removed")},
        "networks": rows,
        "reading": _reading(record, one.explainer, rows, networks, of),
    }


def _row(record: Record, one: Explained, name: str, first: Mapping[str, Any]) -> dict[str, Any]:
    own = one.faithful[name]
    scores = {MEASURE: beyond_random(own), "deletion": own["deletion"], "insertion": own["insertion"]}
    known = np.isfinite(scores[MEASURE])
    found = {measure: _mean(record, one, known, [(own, values)]) for measure, values in scores.items()}
    both = known & np.isfinite(beyond_random(first))
    pair = [(own, scores[MEASURE]), (first, beyond_random(first))]
    return {
        "name": name,
        **(found.pop(MEASURE) or {"value": None, "low": None, "high": None, "n": 0}),
        **found,
        "change": None if name == record.reference.name else _mean(record, one, both, pair),
    }


def _mean(
    record: Record, one: Explained, known: Any, scores: Sequence[tuple[Mapping[str, Any], Any]]
) -> Estimate | None:
    """Return the mean score of some samples, or how far that of one network lies above another's; ``None`` of none.

    Weighted by the change that scores are shares of: those of samples that the baseline predicts nearly as well are of
    any size, and a few of them would be the mean.
    """
    if not known.any():
        return None
    clusters = None if record.clusters is None else record.clusters[one.samples[known]]
    weighted = [
        (values[known].astype(np.float64), np.abs(own["change"][known].astype(np.float64))) for own, values in scores
    ]
    return weighted_mean(weighted, clusters)


def _reading(
    record: Record, explainer: str, rows: Sequence[Mapping[str, Any]], networks: Sequence[Mapping[str, Any]], of: str
) -> str:
    """Return a sentence that reads both axes of the judged network together; empty where one is missing."""
    name, first = record.candidate.name, record.reference.name
    own = {row["name"]: row["change"] for row in rows}.get(name)
    kept = {row["name"]: row[of] for row in networks}.get(name)
    if own is None or kept is None:
        return ""
    if own["n"] < FEWEST:
        return (
            f"{explainer}: {own['n']} samples, of {FEWEST} or more, count for both networks: too few to read the two."
        )
    by, n = words.interval(own), f"{own['n']:,} samples"
    low, high = own["low"], own["high"]
    if low == high == 0:
        told = f"exactly as faithful to it as those of {first} are to {first}, on {n}"
    elif low > 0:
        told = f"surely more faithful to it than those of {first} are to {first}, by {by} on {n}"
    elif high < 0:
        told = f"surely less faithful to it than those of {first} are to {first}, by {by} on {n}"
    else:
        told = f"not surely more or less faithful to it than those of {first} are to {first}: {by} on {n}"
    return f"{explainer}: the explanations of {name} have {of} {words.interval(kept)}, and are {told}."
