"""What a run writes down of its explanations: numbers by evaluation, samples, and the paragraph."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_xai.network.saving import save_arrays


@dataclass(frozen=True)
class Reading:
    """One evaluation of a run.

    Args:
        when: ``"epoch 3"`` or ``"step 500"``.
        step: its place on the loggers' axis.
        numbers: by name, as they are logged.
    """

    when: str
    step: int
    numbers: dict[str, float] = field(default_factory=dict)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values to a file, whole or not at all; NaN becomes null, which every reader takes.

    Args:
        path: of the file.
        values: to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(_finite(values), indent=2) + "\n")
    part.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_samples(folder: Path, columns: Mapping[str, Sequence[Any] | Tensor], maps: Mapping[str, Tensor]) -> None:
    """Write a line for each sample to ``samples.csv``, and their maps to ``samples.npz``.

    Args:
        folder: of the files.
        columns: of the table, one value per sample each.
        maps: further arrays, ``(N, ...)``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lists = {name: value.tolist() if isinstance(value, Tensor) else list(value) for name, value in columns.items()}
    part = folder / "samples.csv.tmp"
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(lists)
        writer.writerows(zip(*lists.values(), strict=True))
    part.replace(folder / "samples.csv")
    numbers = {name: value for name, value in columns.items() if isinstance(value, Tensor)}
    save_arrays(folder / "samples.npz", {**numbers, **maps})


def as_state(history: Sequence[Reading]) -> list[dict[str, Any]]:
    """Return readings as plain values, for a checkpoint."""
    return [asdict(reading) for reading in history]


def from_state(state: Sequence[Mapping[str, Any]]) -> list[Reading]:
    """Return the readings of a checkpoint.

    Example:
        >>> from_state(as_state([Reading("epoch 0", 5, {"similarity": 0.5})]))
        [Reading(when='epoch 0', step=5, numbers={'similarity': 0.5})]
    """
    return [Reading(one["when"], one["step"], dict(one["numbers"])) for one in state]


def share_rows(n: int, rank: int, world_size: int) -> list[int]:
    """Return the rows of one process; the first ones are repeated to make all shares equally large.

    Example:
        >>> share_rows(5, 1, 2)
        [1, 3, 0]
    """
    return [row % n for row in range(rank, -(-n // world_size) * world_size, world_size)]


def gathered(value: Tensor, gather: Any, world_size: int, n: int) -> Tensor:
    """Return the values of all ``n`` samples, of which each process has every ``world_size``-th.

    Args:
        value: of this process's samples, ``(rows, ...)``.
        gather: collective; returns ``(world_size, rows, ...)``.
        world_size: number of processes.
        n: number of samples; the ones that filled up the last rows are cut off.
    """
    with torch.no_grad():
        whole = value if world_size == 1 else gather(value.contiguous()).transpose(0, 1).flatten(0, 1)
    return whole[:n].detach().cpu()
