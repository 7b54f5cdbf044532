"""Training and validation indices that are the same in every process and on every machine."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from lit_xai.network.check import is_number, refusal


def split_indices(n: int, val_size: int | float, train_size: int | float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split ``range(n)`` at random into disjoint training and validation indices.

    Args:
        n: number of samples.
        val_size: number of samples to validate on; a float is a fraction of ``n``.
        train_size: number of the others to train on; a float is a fraction of them.
        seed: another seed, another split; the global random state is neither read nor moved.

    Returns:
        The two index tensors, each int64.

    Raises:
        ValueError: a size is not a number in range, or there is nothing left to train on.

    Example:
        >>> split_indices(10, val_size=0.2, seed=0)
        (tensor([4, 9, 1, 6, 7, 3, 0, 5]), tensor([2, 8]))
    """
    validation = count_of("val_size", val_size, n)
    training = count_of("train_size", train_size, n - validation)
    if not training:
        raise ValueError(
            f"val_size and train_size expected to leave samples to train on, but got {val_size} and {train_size} for"
            f" {n} samples."
        )
    # numpy guarantees RandomState's stream for good, which it does not for its newer generators, nor torch for its own.
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n)).to(torch.int64)
    # Validation first, so that another train_size leaves the validation samples as they are.
    return order[validation : validation + training], order[:validation]


def count_of(name: str, size: int | float, n: int) -> int:
    """Return how many of ``n`` samples a size stands for.

    Args:
        name: of the argument.
        size: a number of samples, or as a float a fraction of ``n``.
        n: number of samples.

    Raises:
        ValueError: the size is neither a number of samples up to ``n`` nor a fraction.

    Example:
        >>> count_of("val_size", 0.25, 10), count_of("val_size", 3, 10)
        (2, 3)
    """
    if not is_number(size) or not 0 <= size <= (1 if isinstance(size, float) else n):
        expected = f"a number of samples up to {n} (an int) or a fraction from 0 to 1 (a float)"
        raise refusal(name, expected, size)
    if isinstance(size, int):
        return size
    return max(1, round(size * n)) if size and n else 0  # a fraction too small for one sample still means "some"


def split_groups(groups: Sequence[Hashable], size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split samples at random into two parts, so that samples of one group are in one part.

    Args:
        groups: of each sample.
        size: samples of the second part, or a few more: groups are added until there are as many.
        seed: another seed, another split.

    Returns:
        The two index tensors, each int64, in the samples' order.

    Example:
        >>> split_groups(["a", "a", "b", "c", "c"], size=2)
        (tensor([0, 1, 2]), tensor([3, 4]))
    """
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    names, second = list(members), list[int]()
    for k in np.random.RandomState(seed).permutation(len(names)):
        if len(second) >= size:
            break
        second += members[names[k]]
    taken = set(second)
    first = [i for i in range(len(groups)) if i not in taken]
    return torch.tensor(first, dtype=torch.int64), torch.tensor(sorted(second), dtype=torch.int64)


def some_of(indices: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return so many of the indices, drawn at random, in their order.

    Example:
        >>> some_of(torch.arange(10), 3)
        tensor([2, 4, 8])
    """
    if count == len(indices):
        return indices
    drawn = torch.from_numpy(np.random.RandomState(seed).permutation(len(indices))[:count])
    return indices[drawn.sort().values]


def shuffled(indices: Tensor, seed: int = 0) -> Tensor:
    """Return the indices in an order drawn at random, the same in every process.

    Example:
        >>> shuffled(torch.arange(10)[5:])
        tensor([7, 5, 6, 8, 9])
    """
    return indices[torch.from_numpy(np.random.RandomState(seed).permutation(len(indices)))]
