"""What the explanations of each network retain of the reference's, by each explainer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lit_xai.report.axes import faithful_of
from lit_xai.report.estimates import Estimate, mean, retention
from lit_xai.report.measured import classes
from lit_xai.report.record import Candidate, Explained, Record
from lit_xai.retention.retention import References, Retention, describe_retention, summarize


def explainer_row(record: Record, one: Explained) -> dict[str, Any]:
    """Return the numbers of an explainer, of every network but the reference.

    Args:
        record: what was measured.
        one: of its explainers.

    Example:
        >>> networks = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))
        >>> one = Explained("Saliency", np.array([0, 1]), {"pruned": np.ones(2)}, np.zeros((2, 2)))
        >>> explainer_row(Record(networks, "classes", explained=(one,)), one)["networks"][0]["similarity"]["value"]
        1.0
    """
    arguments = dict(one.arguments)
    references = arguments.pop("references", None) or {}
    sanity = arguments.pop("sanity", None)
    arguments.pop("faithfulness", None)
    networks = [network for network in record.networks[1:] if network.name in one.similarity]
    found = [_summarized(record, one, network, references) for network in networks]
    rows = [_row(record, one, name, each) for name, each in zip(networks, found, strict=True)]
    speaks = bool(found) and found[0].retention is not None
    return {
        "explainer": one.explainer,
        "n": len(one.samples),
        "arguments": arguments,
        "sanity": sanity,
        "null": _null(found[0]) if found else None,
        "references": found[0].references if found else {},
        "speaks": speaks,
        "networks": rows,
        "faithful": faithful_of(record, one, rows, "retention" if speaks else "similarity"),
    }


def retained_by(record: Record, one: Explained, name: str) -> dict[str, Estimate | None]:
    """Return similarity and retention of a network's explanations; retention is ``None`` where it says nothing.

    Args:
        record: what was measured.
        one: of its explainers.
        name: of the network.
    """
    clusters = None if record.clusters is None else record.clusters[one.samples]
    similarity = one.similarity[name].astype(np.float64)
    return {"similarity": mean(similarity, clusters), "retention": retention(similarity, one.null, clusters)}


def _row(record: Record, one: Explained, network: Candidate, found: Retention) -> dict[str, Any]:
    numbers = retained_by(record, one, network.name)
    return {
        "name": network.name,
        **numbers,
        "retention": numbers["retention"] if found.retention is not None else None,
        "same_prediction": found.agreeing,
        "other_prediction": found.disagreeing,
        "agreement": found.agreement,
        "paragraph": describe_retention(found, "test samples", f"{record.reference.name}'s"),
    }


def _null(found: Retention) -> dict[str, Any] | None:
    if (null := found.null) is None:
        return None
    low, high = null.band if null.band is not None else (None, None)
    return {"n": null.n, "similarity": null.similarity, "low": low, "high": high}


def _summarized(record: Record, one: Explained, network: Candidate, references: Mapping[str, float]) -> Retention:
    agree = None
    if record.task != "values":
        first, last = (classes(record, each.outputs)[one.samples] for each in (record.reference, network))
        agree = torch.from_numpy(first == last)
    null = torch.from_numpy(np.array(one.null, dtype=np.float64).reshape(-1, len(one.samples)))
    others = {str(name): torch.tensor([float(value)]) for name, value in references.items()}
    return summarize(
        one.explainer,
        torch.from_numpy(np.array(one.similarity[network.name], dtype=np.float64)),
        References(null, others),
        agree=agree,
        steps=one.arguments.get("steps"),
        completeness_error=one.arguments.get("completeness_error"),
    )
