"""What a verdict and a report are made of: outputs, explanations and latencies of networks, sample by sample."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from annotated_types import MinLen
from numpy.typing import NDArray
from typing_extensions import TypedDict

from lit_xai.network.saving import load_arrays, save_arrays
from lit_xai.retention.record import write_json
from lit_xai.structure.schema import check_schema, closed

Array = NDArray[Any]

ARRAYS, FACTS = "samples.npz", "facts.json"
"""The files of a record."""

TASKS = ("classes", "binary", "values")

FAITHFUL = ("deletion", "insertion", "change")
"""What is known of how faithful the explanation of a sample is."""


@dataclass(frozen=True)
class Candidate:
    """One network: the reference, or what was made of it.

    Args:
        name: ``"dense"``, ``"pruned"``, ``"int8"``.
        outputs: logits, or the values of a regression, ``(N, outputs)``.
        costs: numbers by name, such as ``"size kB"``, ``"MACs"``, ``"parameters"``.
        latency: milliseconds of each round, in which all networks were run one after the other, ``(rounds,)``.
    """

    name: str
    outputs: Array
    costs: dict[str, float] = field(default_factory=dict)
    latency: Array | None = None


@dataclass(frozen=True)
class Explained:
    """The explanations of all networks by one explainer.

    Args:
        explainer: the method's name.
        samples: the places of the samples that were explained, ``(n,)``.
        similarity: of each network but the reference to it, ``(n,)``, by name.
        null: similarity of untrained networks, ``(networks, n)``; empty if there are none.
        arguments: baseline, steps, completeness error, for the reader.
        faithful: of each network, by its name: ``"deletion"`` and ``"insertion"``, its explanations less random orders,
            and the ``"change"`` of its prediction that both are shares of, ``(n,)``. NaN of samples that do not count;
            empty where it was not measured.
    """

    explainer: str
    samples: Array
    similarity: dict[str, Array]
    null: Array
    arguments: dict[str, Any] = field(default_factory=dict)
    faithful: dict[str, dict[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What was measured of a reference and of what was made of it.

    Args:
        networks: the reference first, and last the one that is judged.
        task: ``"classes"``, ``"binary"`` or ``"values"``.
        labels: of each sample, ``(N,)`` or, of values, ``(N, outputs)``; ``None`` without.
        groups: the place of each sample's group in ``group_names``, ``(N,)``.
        clusters: samples that belong together have the same number, ``(N,)``.
        explained: by each explainer.
        group_names: of the groups.
        class_names: of the classes.
        facts: plain values: identity, environment, data, changes, requirements.
    """

    networks: tuple[Candidate, ...]
    task: str
    labels: Array | None = None
    groups: Array | None = None
    clusters: Array | None = None
    explained: tuple[Explained, ...] = ()
    group_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.reference.outputs)

    @property
    def reference(self) -> Candidate:
        """What the others are held against."""
        return self.networks[0]

    @property
    def candidate(self) -> Candidate:
        """The one that is judged."""
        return self.networks[-1]

    def save(self, folder: Path) -> None:
        """Write it to two files in a folder: arrays, and plain values as JSON.

        Raises:
            OSError: they cannot be written.

        Example:
            >>> import tempfile
            >>> record = Record((Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))), "classes")
            >>> folder = Path(tempfile.mkdtemp())
            >>> record.save(folder)
            >>> Record.load(folder).candidate.name
            'pruned'
        """
        arrays = {f"outputs/{i}": one.outputs for i, one in enumerate(self.networks)}
        arrays |= {f"latency/{i}": one.latency for i, one in enumerate(self.networks) if one.latency is not None}
        named = {"labels": self.labels, "groups": self.groups, "clusters": self.clusters}
        arrays |= {name: value for name, value in named.items() if value is not None}
        for i, one in enumerate(self.explained):
            arrays |= {f"explained/{i}/samples": one.samples, f"explained/{i}/null": one.null}
            arrays |= {f"explained/{i}/similarity/{self._place(k)}": v for k, v in one.similarity.items()}
            for name, values in one.faithful.items():
                arrays |= {f"explained/{i}/{measure}/{self._place(name)}": values[measure] for measure in FAITHFUL}
        plain = {
            "version": 1,
            "task": self.task,
            "networks": [
                {"name": one.name, "costs": {name: float(cost) for name, cost in one.costs.items()}}
                for one in self.networks
            ],
            "explained": [{"explainer": one.explainer, "arguments": one.arguments} for one in self.explained],
            "group_names": list(self.group_names),
            "class_names": list(self.class_names),
            "arrays": sorted(arrays),
            "facts": self.facts,
        }
        save_arrays(
            folder / ARRAYS, {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in arrays.items()}, False
        )
        write_json(folder / FACTS, plain)

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read what :meth:`save` wrote, or refuse it.

        Raises:
            OSError: a file is missing.
            ValueError: a file is damaged, or is none of these; one sentence.
        """
        path = folder / FACTS
        read = read_json(path)
        check_schema(read, _Facts, f"record in {path}")
        plain = cast(_Facts, read)
        arrays: dict[str, Array] = load_arrays(folder / ARRAYS, plain["arrays"])
        try:
            return _assembled(plain, arrays)
        except (KeyError, IndexError) as error:
            raise ValueError(f"{folder / ARRAYS} expected the arrays of {FACTS}, but lacks {error}.") from None

    def _place(self, name: str) -> int:
        return next(i for i, one in enumerate(self.networks) if one.name == name)


@closed
class _Network(TypedDict):
    name: str
    costs: dict[str, float]


@closed
class _Explained(TypedDict):
    explainer: str
    arguments: dict[str, Any]


@closed
class _Facts(TypedDict):
    version: int
    task: str
    networks: Annotated[list[_Network], MinLen(2)]
    explained: list[_Explained]
    group_names: list[str]
    class_names: list[str]
    arrays: list[str]
    facts: dict[str, Any]


def _assembled(plain: _Facts, arrays: Mapping[str, Array]) -> Record:
    names = [one["name"] for one in plain["networks"]]
    networks = tuple(
        Candidate(one["name"], arrays[f"outputs/{i}"], one["costs"], arrays.get(f"latency/{i}"))
        for i, one in enumerate(plain["networks"])
    )
    explained = tuple(
        Explained(
            one["explainer"],
            arrays[f"explained/{i}/samples"],
            {n: arrays[key] for p, n in enumerate(names) if (key := f"explained/{i}/similarity/{p}") in arrays},
            arrays[f"explained/{i}/null"],
            one["arguments"],
            {
                n: {measure: arrays[f"explained/{i}/{measure}/{p}"] for measure in FAITHFUL}
                for p, n in enumerate(names)
                if f"explained/{i}/{FAITHFUL[0]}/{p}" in arrays
            },
        )
        for i, one in enumerate(plain["explained"])
    )
    record = Record(
        networks,
        plain["task"],
        arrays.get("labels"),
        arrays.get("groups"),
        arrays.get("clusters"),
        explained,
        tuple(plain["group_names"]),
        tuple(plain["class_names"]),
        plain["facts"],
    )
    _check(record)
    return record


def _check(record: Record) -> None:
    """Raise if the parts of a record do not fit each other."""
    outputs = record.reference.outputs.shape
    for one in record.networks:
        if one.outputs.ndim != 2 or one.outputs.shape != outputs or not outputs[0]:
            raise ValueError(f"The outputs of {one.name} expected shape {outputs}, but got {one.outputs.shape}.")
    for name in ("labels", "groups", "clusters"):
        value = getattr(record, name)
        if value is not None and len(value) != record.n:
            raise ValueError(f"{name} expected one for each of {record.n} samples, but got {len(value)}.")
    if record.task not in TASKS:
        raise ValueError(f"task expected one of {TASKS}, but got {record.task!r}.")


def finite(value: float) -> float | None:
    """Return a number for JSON, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def read_json(path: Path) -> Any:
    """Return the plain values of a file.

    Raises:
        OSError: there is no such file.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} expected JSON, but cannot be read: {error}.") from None
