"""The probe: a few fixed samples, read by dataset index, that a run explains again and again."""

import contextlib
import copy
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
)

from lit_xai.network.calling import BatchToTarget, find_labels
from lit_xai.network.check import check_choice, check_integer
from lit_xai.network.rows import count, take
from lit_xai.network.trees import leaves
from lit_xai.network.untouched import fork_rng

Collate: TypeAlias = Callable[[list[Any]], Any]

LOADERS = ("train", "val", "test")


@dataclass(frozen=True)
class Probe:
    """The choice of the samples to explain.

    Args:
        n: number of samples, spread over the classes as evenly as possible.
        per_class: number of samples of each class instead.
        indices: dataset indices instead.
        loader: ``"train"``, ``"val"`` or ``"test"``; default the stage's own (in ``fit`` ``val`` if there is one).

    Raises:
        ValueError: a number below one, an unknown loader, or both ``per_class`` and ``indices``.

    Example:
        >>> Probe(per_class=1, loader="train")
        Probe(n=8, per_class=1, indices=None, loader='train')
    """

    n: int = 8
    per_class: int | None = None
    indices: Sequence[int] | None = None
    loader: str | None = None

    def __post_init__(self) -> None:
        for name in ("n", "per_class"):
            value = getattr(self, name)
            if value is not None:
                check_integer(f"probe: {name}", value)
        if self.per_class is not None and self.indices is not None:
            raise ValueError("probe: give per_class or indices, not both.")
        if self.indices is not None and not len(self.indices):
            raise ValueError("probe: indices expected one or more dataset indices, but got none.")
        if self.loader is not None:
            check_choice("probe: loader", self.loader, LOADERS)


def as_probe(given: Any) -> Probe:
    """Return a probe from a number of samples, a list of dataset indices, or a probe.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> as_probe([3, 5]).indices
        [3, 5]
    """
    if isinstance(given, Probe):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return Probe(n=given)
    if isinstance(given, (list, tuple)) and all(isinstance(index, int) for index in given):
        return Probe(indices=list(given))
    raise ValueError(f"probe expected a number of samples, a list of dataset indices or a Probe, but got {given!r}.")


def random_probe(loader: Any, n: int, seed: int = 0) -> Probe:
    """Return a probe of samples drawn at random, not spread over the classes; of a stream its first ones.

    Args:
        loader: that the probe is for.
        n: most samples.
        seed: of the choice; the global random state is neither read nor moved.

    Example:
        >>> probe = random_probe(DataLoader(list(range(100))), 3)
        >>> len(probe.indices), probe == random_probe(DataLoader(list(range(100))), 3)
        (3, True)
        >>> random_probe(DataLoader([7, 8]), 3).indices
        [0, 1]
    """
    if not reads_by_index(loader):
        return Probe(n=n)
    total = len(_first(loader).dataset)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return Probe(indices=sorted(order[:n].tolist())) if total else Probe(n=n)


def reads_by_index(loader: Any) -> bool:
    """Return whether a loader's samples have indices: those of a ``DataLoader`` over a map-style dataset do.

    Example:
        >>> reads_by_index(DataLoader([0, 1, 2])), reads_by_index([torch.zeros(2)])
        (True, False)
    """
    found = _first(loader)
    return isinstance(found, DataLoader) and not isinstance(found.dataset, IterableDataset)


def read_probe(
    loader: Any,
    probe: Probe,
    seed: int = 0,
    devices: set[torch.device] | None = None,
    batch_to_target: BatchToTarget = None,
) -> tuple[Any, list[int]]:
    """Read the probe's samples as one batch, without changing any random generator or the loader's own iterator.

    A ``DataLoader`` over a map-style dataset is read by index, one over an iterable dataset from its beginning (on a
    shallow copy, which leaves its position in the stream). From anything else that yields batches, and from a loader
    with ``batch_size=None`` (whose dataset yields them), rows of the first batch are taken. Generators that the dataset
    or its transforms hold are restored.

    Args:
        loader: usually a ``DataLoader``; the first one of a list or dict of them.
        probe: which samples.
        seed: of the generators while reading, so that random augmentation is the same each time.
        devices: devices whose generators to restore besides the CPU's.
        batch_to_target: the labels in a batch, for the spread over classes.

    Returns:
        The batch as the loader would have collated it, and the dataset indices (positions for an iterable dataset).

    Raises:
        ValueError: the loader is empty or can only be read once, an index is not in its dataset, or ``per_class`` is
            set and the labels are no classes.

    Example:
        >>> loader = DataLoader([(torch.tensor([float(i)]), i % 2) for i in range(6)], batch_size=3, shuffle=True)
        >>> batch, indices = read_probe(loader, Probe(per_class=1))
        >>> batch, indices
        ([tensor([[0.],
                [1.]]), tensor([0, 1])], [0, 1])
    """
    loader = _first(loader)
    # Other loaders that have a dataset (a prefetcher, say) may do more to a batch than collate it.
    dataset: Any = loader.dataset if isinstance(loader, DataLoader) else None
    collate = getattr(loader, "collate_fn", default_collate)
    # Starting a DataLoader's iterator draws from the global generator, so nothing here iterates over the loader itself
    # if its dataset has an index.
    with fork_rng(seed, devices), _kept_generators(dataset):
        if isinstance(dataset, IterableDataset):
            return _read_stream(copy.copy(dataset), loader, probe)
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            return _read_stream(loader, loader, probe)
        if len(dataset) == 0:
            raise ValueError("probe: the loader it reads from is empty.")
        if isinstance(loader, DataLoader) and loader.batch_sampler is None:
            if not isinstance(loader.sampler, BatchSampler):
                return _rows_of(collate(dataset[0]), probe)
            # With batch_size=None and a BatchSampler as the sampler, the dataset takes a list of indices.
            indices = _indices(dataset, probe, default_collate, batch_to_target)
            return collate(dataset[indices]), indices
        indices = _indices(dataset, probe, collate, batch_to_target)
        # As torch's own fetcher does: a dataset with this method reads a list of indices at once.
        many = getattr(dataset, "__getitems__", None)
        return collate(many(indices) if many else [dataset[index] for index in indices]), indices


@contextlib.contextmanager
def _kept_generators(dataset: Any) -> Iterator[None]:
    """Restore the random generators that a dataset or its transforms hold."""
    generators = list(_generators(dataset))
    states = [copy.deepcopy(_state_of(generator)) for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            if isinstance(generator, np.random.Generator):
                generator.bit_generator.state = state
            else:
                (generator.set_state if isinstance(generator, torch.Generator) else generator.setstate)(state)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, torch.Generator) else generator.getstate()


def _generators(value: Any, depth: int = 4) -> Iterator[Any]:
    if isinstance(value, (torch.Generator, random.Random, np.random.Generator)):
        yield value
    elif depth and not isinstance(value, (Tensor, np.ndarray, str, bytes, type)):
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        # Transforms are in short lists; a long list is data, and slow to search.
        for part in [*(parts if len(parts) <= 64 else ()), *getattr(value, "__dict__", {}).values()]:
            yield from _generators(part, depth - 1)


def _indices(dataset: Any, probe: Probe, collate: Collate, batch_to_target: BatchToTarget) -> list[int]:
    if probe.indices is not None:
        return _checked(probe.indices, len(dataset))
    return choose_indices(dataset, probe, collate, batch_to_target)


def _checked(indices: Sequence[int], n: int) -> list[int]:
    wrong = [index for index in indices if not 0 <= index < n]
    if wrong:
        raise ValueError(f"probe: indices expected 0 to {n - 1}, but got {wrong[0]}.")
    return [int(index) for index in indices]  # plain integers load with weights_only=True


def _first(loader: Any) -> Any:
    if isinstance(loader, Mapping):
        return _first(next(iter(loader.values()), None))
    if isinstance(loader, (list, tuple)) and loader and hasattr(loader[0], "__iter__") and not _is_batch(loader[0]):
        return _first(loader[0])
    if hasattr(loader, "flattened"):  # Lightning's CombinedLoader
        return _first(loader.flattened)
    if loader is None or (isinstance(loader, (list, tuple)) and not loader):
        raise ValueError("probe: there is no loader to read from.")
    return loader


def _is_batch(value: Any) -> bool:
    return isinstance(value, (Tensor, Mapping)) or (isinstance(value, (list, tuple)) and any(map(_is_batch, value)))


def _read_stream(stream: Any, loader: Any, probe: Probe) -> tuple[Any, list[int]]:
    if probe.indices is not None:
        raise ValueError("probe: indices expected a dataset with an index, but the loader reads from a stream.")
    if stream is loader and hasattr(stream, "__next__"):
        raise ValueError(
            "probe: the loader can be read only once, and what the probe takes would be missing from the run: give one"
            " that restarts with each iter(), such as a DataLoader."
        )
    # Without a batch_size the dataset yields whole batches.
    ready = stream is loader or getattr(loader, "batch_size", None) is None
    items = list(islice(iter(stream), 1 if ready else probe.n))
    if not items:
        raise ValueError("probe: the loader it reads from is empty.")
    collate = getattr(loader, "collate_fn", default_convert if ready else default_collate)
    return _rows_of(items[0] if stream is loader else collate(items[0] if ready else items), probe)


def _rows_of(batch: Any, probe: Probe) -> tuple[Any, list[int]]:
    if probe.per_class is not None:
        raise ValueError("probe: per_class expected a dataset of single samples, but the loader reads whole batches.")
    n = count(batch)
    rows = list(range(min(probe.n, n))) if probe.indices is None else _checked(probe.indices, n)
    return take(batch, rows, n), rows


def choose_indices(
    dataset: Any, probe: Probe, collate: Collate = default_collate, batch_to_target: BatchToTarget = None
) -> list[int]:
    """Return dataset indices, taking the classes in turn, and each class in the order of the dataset.

    Labels are taken from where datasets usually keep them (``targets``, ``labels``, a ``TensorDataset``'s second
    tensor), or read from the first samples.

    Args:
        dataset: map-style.
        probe: number of samples, or of samples per class.
        collate: makes a batch of a list of samples, as the loader does.
        batch_to_target: the labels in a batch, see :func:`~lit_xai.network.calling.find_labels`.

    Raises:
        ValueError: ``per_class`` is set and the dataset has no integer labels.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> dataset = TensorDataset(torch.zeros(6, 1), torch.tensor([1, 1, 1, 0, 0, 2]))
        >>> choose_indices(dataset, Probe(n=4))
        [3, 0, 5, 4]
    """
    labels = _stored_labels(dataset)
    if labels is None:
        # Reading a sample may decode and augment an image, so labels of a part of the dataset have to do.
        few = min(len(dataset), 32 * max(probe.n, probe.per_class or 0))
        labels = _read_labels(dataset, few, collate, batch_to_target)
    if labels is None:
        if probe.per_class is not None:
            raise ValueError("probe: per_class expected integer labels, but the dataset has none: give n or indices.")
        return list(range(min(probe.n, len(dataset))))
    places: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        places.setdefault(label, []).append(index)
    if probe.per_class is not None:
        return [index for label in sorted(places) for index in places[label][: probe.per_class]]
    in_turn = (
        places[label][turn] for turn in range(len(labels)) for label in sorted(places) if turn < len(places[label])
    )
    return list(islice(in_turn, probe.n))


def _stored_labels(dataset: Any) -> Tensor | None:
    if isinstance(dataset, Subset):
        labels = _stored_labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    # Of three tensors or more the second may be another input.
    pair = dataset.tensors[1:] if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2 else ()
    for found in (getattr(dataset, "targets", None), getattr(dataset, "labels", None), *pair):
        try:
            labels = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError, KeyError):
            continue
        if _are_classes(labels) and len(labels) == len(dataset):
            return labels
    return None


def _read_labels(dataset: Any, n: int, collate: Collate, batch_to_target: BatchToTarget) -> Tensor | None:
    found = []
    for index in range(n):
        labels = find_labels(collate([dataset[index]]), batch_to_target=batch_to_target)
        # A graph has a label for each node, and a sample may be a whole batch.
        if labels is None or not _are_classes(labels) or len(labels) != 1:
            return None
        found.append(labels)
    return torch.cat(found)


def _are_classes(labels: Tensor) -> bool:
    return labels.dim() == 1 and not labels.is_floating_point()


def fingerprint(batch: Any) -> str:
    """Return a short hash of every tensor in a batch: names, types, shapes and values.

    Example:
        >>> fingerprint(torch.zeros(3)) == fingerprint(torch.zeros(3)) != fingerprint(torch.ones(3))
        True
    """
    digest = hashlib.sha256()
    for name, value in leaves(batch):
        raw = value.detach().cpu().contiguous()
        # The same bytes under another name, type or shape are another batch.
        digest.update(f"{name} {raw.dtype} {tuple(raw.shape)}".encode())
        digest.update(raw.flatten().view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    return digest.hexdigest()[:16]
