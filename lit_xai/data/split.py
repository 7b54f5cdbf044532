"""Training and validation indices that are the same in every process and on every machine."""

import numpy as np
import torch
from torch import Tensor


def split_indices(n: int, val_size: int | float, train_size: int | float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split ``range(n)`` at random into disjoint training and validation indices.

    Args:
        n: number of samples.
        val_size: how many to validate on; a float is a fraction of ``n``.
        train_size: how many of the others to train on; a float is a fraction of them.
        seed: another seed, another split; the global random state is neither read nor moved.

    Returns:
        The two index tensors, each int64.

    Raises:
        ValueError: if a size is not a number in range, or there is nothing left to train on.

    Example:
        >>> split_indices(10, val_size=0.2, seed=0)
        (tensor([4, 9, 1, 6, 7, 3, 0, 5]), tensor([2, 8]))
    """
    validation = _count("val_size", val_size, n)
    training = _count("train_size", train_size, n - validation)
    if not training:
        raise ValueError(
            f"`val_size` and `train_size` must leave images to train on, but got {val_size} and {train_size} for {n}."
        )
    # numpy guarantees RandomState's stream for good, which it does not for its newer generators, nor torch for its own.
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n)).to(torch.int64)
    return order[validation : validation + training], order[:validation]


def _count(name: str, size: int | float, n: int) -> int:
    is_number = isinstance(size, int | float) and not isinstance(size, bool)
    if not is_number or not 0 <= size <= (1 if isinstance(size, float) else n):
        raise ValueError(
            f"`{name}` must be a number of images up to {n} (an int) or a fraction between 0 and 1 (a float),"
            f" but got {size!r}."
        )
    if isinstance(size, int):
        return size
    return max(1, round(size * n)) if size and n else 0  # a fraction too small for one image still means "some"
