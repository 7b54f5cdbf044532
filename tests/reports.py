"""Records of reports without a run: what networks might have answered."""

from typing import Any

import numpy as np

from lit_xai.report.record import Candidate, Explained, Record

NASTY = '<b>"R&D"</b> שלום العربية'
"""A name that a page has to escape, with letters that run from right to left."""


def right_at(labels, share, classes, rng, strength=4.0):
    """Return logits that are right for a share of samples."""
    predicted = np.where(rng.random(len(labels)) < share, labels, rng.integers(classes, size=len(labels)))
    return (strength * np.eye(classes)[predicted] + rng.normal(0, 1, (len(labels), classes))).astype(np.float32)


def changed(logits, share, rng):
    """Return logits of which a share is another sample's."""
    moved = rng.random(len(logits)) < share
    return np.where(moved[:, None], rng.permutation(logits), logits + rng.normal(0, 0.1, logits.shape)).astype(
        np.float32
    )


def explanations(
    n, names, rng, networks=10, explainer="IntegratedGradients", mean=0.7, faithful=None, **arguments: Any
):
    similarity = {name: np.clip(rng.normal(mean - 0.1 * i, 0.1, n), -1, 1) for i, name in enumerate(names)}
    null = np.clip(rng.normal(0.02, 0.08, (networks, n)), -1, 1)
    arguments = {"baseline": "zero", "steps": 32, "references": {"8 bits": 0.98, "3 bits": 0.6}, **arguments}
    return Explained(explainer, np.arange(n), similarity, null, arguments, faithful or {})


def faithful_curves(n, names, seed=0):
    """Return deletion, insertion and change of networks, some samples of which do not count."""
    rng = np.random.default_rng(seed)
    found = {}
    for place, name in enumerate(names):
        counts = rng.random(n) > 0.1
        curves = {"deletion": rng.normal(-0.2, 0.1, n), "insertion": rng.normal(0.2 + 0.05 * place, 0.1, n)}
        found[name] = {key: np.where(counts, one, np.nan).astype(np.float32) for key, one in curves.items()}
        found[name]["change"] = rng.uniform(0.05, 1, n).astype(np.float32)
    return found


def record(
    n=600,
    classes=3,
    task="classes",
    labels=True,
    groups=True,
    explained=True,
    faithful=False,
    latency=True,
    costs=True,
    change=0.01,
    seed=0,
    **facts: Any,
) -> Record:
    """Return a record of dense, pruned and int8, of which the parts may be missing."""
    rng = np.random.default_rng(seed)
    if task == "values":
        truth = rng.normal(size=(n, 1))
        outputs = [truth + rng.normal(0, 0.3, (n, 1))]
        outputs += [outputs[0] + rng.normal(0, 0.05, (n, 1)) for _ in range(2)]
    else:
        truth = rng.integers(classes, size=n)
        first = right_at(truth, 0.9, classes, rng)
        outputs = [first, changed(first, change, rng), changed(first, change, rng)]
        if task == "binary":
            outputs = [one[:, 1:2] - one[:, :1] for one in outputs]
    names = ("dense", "pruned", f"int8 {NASTY}")
    rounds = [np.abs(rng.normal(ms, 0.05 * ms, 30)) for ms in (4.0, 2.5, 1.1)]
    prices = [
        {"size kB": kb, "MACs": macs, "parameters": macs / 10} for kb, macs in ((812, 2e7), (330, 6e6), (90, 6e6))
    ]
    curves = faithful_curves(min(n, 128), names) if faithful else None
    told = {"faithfulness": {"steps": 11, "orders": 3, "removed": "zero"}} if faithful else {}
    networks = tuple(
        Candidate(name, one.astype(np.float32), price if costs else {}, ms if latency else None)
        for name, one, price, ms in zip(names, outputs, prices, rounds, strict=True)
    )
    return Record(
        networks,
        task,
        truth if labels else None,
        rng.integers(3, size=n) if groups else None,
        explained=(explanations(min(n, 128), names[1:], rng, faithful=curves, **told),) if explained else (),
        group_names=("north", "south", NASTY),
        class_names=tuple(f"class {i}" for i in range(classes)) if classes < 5 else (),
        facts=facts,
    )


FACTS: dict[str, Any] = {
    "title": f"Digits, {NASTY}",
    "subject": "Reads the digits of a form.",
    "requirements": {"accuracy": "drop<=0.02", "flips": "<=0.05", "retention": ">=0.4", "latency": "ratio<=0.5"},
    "stated": "before",
    "reading": 1,
    "limits": ["The forms are of one office."],
    "identity": {"reference sha256": "ab" * 32, "git commit": "1234567", "dirty": False, "command": f"fit {NASTY}"},
    "environment": {"torch": "2.8", "threads": 2, "CPU flags": ["avx2", "vnni"], "deterministic": True},
    "data": {
        "splits": [
            {"name": "train", "n": 1000, "served": "training", "classes": {str(i): 10 for i in range(40)}},
            {"name": "test", "n": 600, "served": "this report", "hash": "cd" * 32, "groups": {NASTY: 3}},
        ],
        "overlaps": [{"first": "train", "second": "test", "n": 0}],
    },
    "changes": [{"what": "pruned to 30% of the MACs", "protocol": "StructuredPruning", "impact": "-0.2 points"}],
    "faithfulness": [
        {"network": "dense", "explainer": "IntegratedGradients", "measure": "insertion minus deletion", "value": 0.41},
        {"network": "int8", "explainer": "IntegratedGradients", "value": 0.39, "low": 0.35, "high": 0.43, "n": 128},
    ],
    "tables": [{"title": "Channels by layer", "columns": ["layer", "before", "after"], "rows": [["conv1", 32, 12]]}],
    "card": {"license": "apache-2.0", "tags": ["demo"]},
}
"""Facts of every kind."""
