"""The choice of the samples whose explanations are compared."""

import torch
from torch import Tensor

from lit_xai.network.trees import leaves

POOL = 4096
"""Most samples that predictions are compared on, and that the explained ones are chosen from."""

MOST_BYTES = 256 * 2**20
"""Most memory that these may take."""


def pool_size(n: int, available: int | None, sample_bytes: int) -> int:
    """Return how many samples to hold: as many as memory allows, and no fewer than are explained.

    Args:
        n: how many are explained.
        available: how many there are; ``None`` if unknown.
        sample_bytes: of one sample.

    Example:
        >>> pool_size(256, 10_000, 4 * 28 * 28), pool_size(256, 10_000, 4 * 3 * 512 * 512), pool_size(256, 50, 8)
        (4096, 256, 50)
    """
    size = max(n, min(POOL, MOST_BYTES // max(1, sample_bytes)))
    return size if available is None else min(size, available)


def sample_bytes(batch: object, n: int) -> int:
    """Return the bytes of one sample in a batch of ``n``.

    Example:
        >>> sample_bytes({"x": torch.zeros(4, 10)}, 4)
        40
    """
    return sum(part.numel() * part.element_size() for _, part in leaves(batch)) // max(1, n)


def shuffled_indices(available: int, n: int, seed: int) -> list[int]:
    """Return ``n`` different indices of a dataset, in random order.

    Example:
        >>> sorted(shuffled_indices(4, 4, seed=0))
        [0, 1, 2, 3]
    """
    return torch.randperm(available, generator=torch.Generator().manual_seed(seed))[:n].tolist()


def largest_remainder(counts: Tensor, n: int) -> Tensor:
    """Return how many of ``n`` samples each class gets, in proportion to its count.

    Each gets the whole part of its share, and the classes with the largest remainders one more.

    Args:
        counts: of each class, ``(K,)``.
        n: at most their sum.

    Example:
        >>> largest_remainder(torch.tensor([50, 30, 20]), 11)
        tensor([6, 3, 2])
    """
    share = counts.double() * n / counts.sum().clamp(min=1)
    given = share.floor().long()
    order = (share - given).argsort(descending=True, stable=True)
    given[order[: n - int(given.sum())]] += 1
    return given


def choose_places(predictions: Tensor | None, available: int, n: int) -> list[int]:
    """Return the places of the samples to explain, in proportion to the classes that the reference predicts.

    Args:
        predictions: of the reference, ``(available,)``; ``None`` where there are no classes.
        available: number of samples, in random order.
        n: how many to choose.

    Returns:
        The first ones of each class; simply the first ones where there are more than ``n / 2`` classes.

    Example:
        >>> choose_places(torch.tensor([0, 0, 0, 0, 0, 1, 1, 0, 1]), 9, 4)
        [0, 1, 2, 5]
    """
    n = min(n, available)
    if predictions is None:
        return list(range(n))
    classes, inverse, counts = predictions.cpu().unique(return_inverse=True, return_counts=True)
    if len(classes) > n / 2:
        return list(range(n))
    given = largest_remainder(counts, n)
    chosen = [(inverse == k).nonzero().flatten()[: int(given[k])] for k in range(len(classes))]
    return sorted(torch.cat(chosen).tolist())
