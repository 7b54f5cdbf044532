"""The networks of a report side by side: metric, costs, latency, calibration, and what changed from the reference."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lit_xai.report.estimates import drop, mean, share
from lit_xai.report.hurt import worth
from lit_xai.report.measured import classes, each_sample
from lit_xai.report.record import Candidate, Record
from lit_xai.retention.predictions import ECE_FROM, calibration_error

Array = NDArray[np.float64]


def network_row(record: Record, network: Candidate) -> dict[str, Any]:
    """Return the numbers of one network.

    Args:
        record: what was measured.
        network: of its networks.

    Example:
        >>> dense, pruned = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2)[[0, 0]])
        >>> row = network_row(Record((dense, pruned), "classes", np.array([0, 1])), pruned)
        >>> row["metric"]["value"], row["changes"]["negative_flips"]["value"]
        (0.5, 0.5)
    """
    pair = Record((record.reference, network), record.task, record.labels, record.groups, record.clusters)
    return {
        "name": network.name,
        "metric": _metric(pair),
        "latency": _latency(network),
        "costs": network.costs,
        "calibration": _calibration(pair),
        "changes": None if network is record.reference else _changes(pair),
    }


def what_is_measured(record: Record) -> str:
    """Return the name of the metric.

    Example:
        >>> what_is_measured(Record((Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))), "classes"))
        'unchanged predictions'
    """
    if record.task == "values":
        return "mean absolute error" if record.labels is not None else "mean absolute change"
    return "accuracy" if record.labels is not None else "unchanged predictions"


def flips(pair: Record, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return which predictions of some samples changed, and what that cost.

    Args:
        pair: the reference and another network.
        rows: the places of the samples, ``(n,)``.
    """
    clusters = None if pair.clusters is None else pair.clusters[rows]
    was, now = (classes(pair, one.outputs[rows]) for one in pair.networks[:: len(pair.networks) - 1])
    found: dict[str, Any] = {"flips": share(was != now, clusters)}
    if pair.labels is None:
        return {**found, "loss": found["flips"]}
    labels = pair.labels.reshape(-1)[rows]
    before, after = was == labels, now == labels
    return {
        **found,
        "negative_flips": share(before & ~after, clusters),
        "positive_flips": share(~before & after, clusters),
        "wrong_to_wrong": share(~before & ~after & (was != now), clusters),
        "loss": drop(before, after, clusters),
    }


def probabilities(record: Record, network: Candidate) -> Array:
    """Return the logarithms of the probabilities of each class, ``(N, classes)``."""
    outputs = torch.from_numpy(np.array(network.outputs)).double()
    if record.task == "binary":
        outputs = torch.cat([torch.zeros_like(outputs), outputs], 1)
    found: Array = outputs.log_softmax(1).numpy()
    return found


def measures(
    report: Mapping[str, Any], more: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[tuple[str, list[Mapping[str, Any] | None]]]:
    """Yield what is measured of every network of a report, by its title, with the number of each network.

    Args:
        report: a summary.
        more: numbers by the network's name, by title, to stand before those of changed predictions.
    """
    networks = report["networks"]
    metric = networks[0]["metric"]["name"]
    changes = [one["changes"] or {} for one in networks]
    yield metric, [one["metric"] for one in networks]
    if report["task"] != "values" and report["has_labels"]:
        yield f"drop of {metric}", [one.get("loss") for one in changes]
    if any(one["latency"] for one in networks):
        for key, name in (("median", "latency, median (ms)"), ("p95", "latency, 95th percentile (ms)")):
            yield name, [{"value": (one["latency"] or {}).get(key)} for one in networks]
    for name in dict.fromkeys(name for one in networks for name in one["costs"]):
        yield name, [{"value": one["costs"].get(name)} for one in networks]
    for name, numbers in (more or {}).items():
        yield name, [numbers.get(one["name"]) for one in networks]
    for key, name in _CHANGES.items():
        if key in changes[-1]:
            yield name, [one.get(key) for one in changes]


_CHANGES = {
    "absolute_change": "mean absolute change",
    "flips": "flips",
    "negative_flips": "flips, right to wrong",
    "positive_flips": "flips, wrong to right",
}


def _metric(pair: Record) -> dict[str, Any]:
    _, values = worth(pair)
    name = what_is_measured(pair)
    if pair.task == "values":
        return {"name": name, "lower_is_better": True, **mean(-values, pair.clusters)}
    return {"name": name, "lower_is_better": False, **share(values == 1, pair.clusters)}


def _latency(network: Candidate) -> dict[str, Any] | None:
    if network.latency is None or not len(network.latency):
        return None
    median, high = np.quantile(network.latency, [0.5, 0.95])
    return {"median": median, "p95": high, "rounds": len(network.latency)}


def _calibration(pair: Record) -> dict[str, Any] | None:
    """Return the calibration error, and the two scores that calibration is part of."""
    if pair.task == "values" or pair.labels is None:
        return None
    ece = None
    if pair.n >= ECE_FROM:
        logs, labels = probabilities(pair, pair.candidate), pair.labels.reshape(-1).astype(np.int64)
        ece = calibration_error(torch.from_numpy(logs), torch.from_numpy(labels))
    return {"ece": ece, **{name: mean(each_sample(pair, name)[1], pair.clusters) for name in ("brier", "nll")}}


def _changes(pair: Record) -> dict[str, Any]:
    if pair.task == "values":
        first, last = (one.outputs.astype(np.float64) for one in pair.networks)
        before, after = worth(pair)
        return {
            "absolute_change": mean(np.abs(last - first).mean(1), pair.clusters),
            "loss": mean(before - after, pair.clusters),
        }
    was, now = (probabilities(pair, one) for one in pair.networks)
    kl = (np.exp(was) * np.where(was > -np.inf, was - now, 0.0)).sum(1)
    return {**flips(pair, np.arange(pair.n)), "kl": mean(kl, pair.clusters)}
