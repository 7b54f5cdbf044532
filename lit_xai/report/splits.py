"""What a report says of the data: each split's samples, and what two of them have in common."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.network.calling import BatchToInputs, BatchToTarget, find_inputs, find_labels
from lit_xai.report.provenance import input_hashes, split_facts
from lit_xai.report.record import Array

SECONDS = 60.0
"""The longest that one split is read for its hash and its overlap with others."""


@dataclass
class Split:
    """One split of the data, and the checksums of its samples as they are read.

    Args:
        name: ``"train"``, ``"val"`` or ``"test"``.
        served: the decisions that were taken on it.
        batches: of its samples.
        network: that the inputs are of.
        batch_to_inputs: the network's inputs in a batch.
        batch_to_target: the labels in a batch.

    Attributes:
        is_whole: whether it was read to its end.
        is_drawn: whether its samples are drawn anew each time they are read, as augmented ones are.
    """

    name: str
    served: str
    batches: Iterable[Any]
    network: nn.Module
    batch_to_inputs: BatchToInputs = None
    batch_to_target: BatchToTarget = None
    is_whole: bool = False
    is_drawn: bool = False
    _hashes: list[Array] = field(default_factory=list)
    _labels: list[Any] = field(default_factory=list)

    @property
    def dataset(self) -> Any:
        """What the batches are drawn from, where they know it."""
        return getattr(self.batches, "dataset", None)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches, and note what is in them."""
        self._hashes, self._labels, self.is_whole = [], [], False
        for batch in self.batches:
            self._hashes.append(self._of(batch))
            labels = find_labels(batch, self.network, batch_to_target=self.batch_to_target)
            if labels is not None and not labels.is_floating_point() and labels.dim() == 1:
                self._labels.append(labels.detach().cpu().numpy())
            yield batch
        self.is_whole = True

    def _of(self, batch: Any) -> Array:
        with torch.no_grad():
            split = SplitInputs(find_inputs(batch, self.network, self.batch_to_inputs), any_dtype=True)
        return input_hashes(split)

    def read(self, seconds: float = SECONDS) -> None:
        """Read the split for itself, for so long at most."""
        end = time.monotonic() + seconds
        for _ in self:
            if time.monotonic() > end:
                break
        again = next(iter(self.batches), None)
        if again is not None and self._hashes:
            self.is_drawn = not np.array_equal(self._of(again), self._hashes[0])

    @property
    def hashes(self) -> Array:
        """The checksums of the samples that were read, ``(n,)``."""
        return np.concatenate(self._hashes) if self._hashes else np.empty(0, np.uint64)

    def facts(self, class_names: Sequence[str] = ()) -> dict[str, Any]:
        """Return what a report says of it."""
        labels = np.concatenate(self._labels) if self._labels else None
        labels = None if labels is None or len(labels) != len(self.hashes) else labels
        found = split_facts(self.name, self.hashes, labels, class_names, self.served)
        if not self.is_whole or self.is_drawn:
            del found["hash"]
        return found

    def notes(self) -> Iterator[str]:
        """Yield what the facts do not say."""
        if not self.is_whole:
            yield f"Of the {self.name} samples only the first {len(self.hashes):,} were looked at, for lack of time."
        elif self.is_drawn:
            yield (
                f"The {self.name} samples are drawn anew each time they are read, as augmented ones are: they have no"
                " hash, and what they have in common with others is not seen."
            )


def data_facts(splits: Sequence[Split], class_names: Sequence[str] = (), notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the data section of a report.

    Args:
        splits: that were read.
        class_names: of the classes.
        notes: further sentences.

    Example:
        >>> batches = [(torch.eye(3), torch.tensor([0, 1, 0]))]
        >>> train, test = (Split(name, "", batches, nn.Linear(3, 2)) for name in ("train", "test"))
        >>> train.read(), test.read()
        (None, None)
        >>> data_facts([train, test])["overlaps"]
        [{'first': 'train', 'second': 'test', 'n': 3}]
    """
    pairs = [(one, other) for place, one in enumerate(splits) for other in splits[place + 1 :]]
    return {
        "splits": [one.facts(class_names) for one in splits],
        "overlaps": [
            {"first": one.name, "second": other.name, "n": int(np.isin(other.hashes, one.hashes).sum())}
            for one, other in pairs
            if not one.is_drawn and not other.is_drawn
        ],
        "notes": [*(note for one in splits for note in one.notes()), *notes],
    }
