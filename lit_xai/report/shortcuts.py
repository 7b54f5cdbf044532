"""Groups that improved for a reason of their own: what their predictions rest on now may be a shortcut."""

from typing import Any

import numpy as np

from lit_xai.report.estimates import FEWEST, estimate
from lit_xai.report.evidence import difference
from lit_xai.report.hurt import parts_of, worth
from lit_xai.report.record import Record
from lit_xai.report.verdict import holm


def shortcut_rows(record: Record) -> list[dict[str, Any]]:
    """Return the groups whose predictions improved more than elsewhere while their explanations changed more.

    A mark that says the class, as of a scanner or a hospital, improves predictions for the samples that bear it, and
    the whole passes. Either sign alone is common: where samples are harder, explanations change more under any
    compression. So both have to be sure at 5%, by Holm's correction over groups. Classes are not tested: they win
    predictions from each other in any training.

    Args:
        record: what was measured; without labels, groups or explanations nothing can be said.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> shortcut_rows(Record((Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))), "classes"))
        []
    """
    first = record.explained[0] if record.explained else None
    if first is None or record.labels is None or record.candidate.name not in first.similarity:
        return []
    before, after = worth(record)
    similarity = first.similarity[record.candidate.name].astype(np.float64)
    clusters = [None, None] if record.clusters is None else [record.clusters, record.clusters[first.samples]]
    found, p_values = [], []
    for part in (one for one in parts_of(record) if one.kind == "group"):
        own = np.zeros(record.n, dtype=bool)
        own[part.rows] = True
        explained = own[first.samples]
        if min(own.sum(), (~own).sum(), explained.sum(), (~explained).sum()) < FEWEST:
            continue
        gain, change = difference(after - before, own, clusters[0]), difference(similarity, explained, clusters[1])
        p_values.append(max(gain.above(0.0), change.below(0.0)))
        found.append(
            {
                "kind": part.kind,
                "name": part.name,
                "n": len(part.rows),
                "gain": estimate(gain),
                "similarity": estimate(change),
                "explainer": first.explainer,
            }
        )
    return [row for row, is_sure in zip(found, holm(p_values), strict=True) if is_sure]
