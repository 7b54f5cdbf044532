"""Samples in memory as two tensors, read a whole batch at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate


class TensorRows(Dataset[tuple[Tensor, Tensor]]):
    """Samples held as the rows of two tensors, read a batch at a time.

    A ``DataLoader`` asks ``__getitems__`` for a whole batch where a dataset has one, also behind the distributed
    sampler that Lightning injects; give it :meth:`collate_fn`, which passes the finished batch on.

    Args:
        inputs: ``(N, ...)``.
        targets: ``(N, ...)``, class labels or the values of a regression.

    Raises:
        ValueError: there is not one target per input.

    Example:
        >>> dataset = TensorRows(torch.tensor([[1.0], [2.0]]), torch.tensor([3, 7]))
        >>> x, y = dataset.__getitems__([1, 0])
        >>> x.tolist(), y.tolist()
        ([[2.0], [1.0]], [7, 3])
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if targets.shape[:1] != inputs.shape[:1]:
            raise ValueError(
                f"targets expected one row per sample, but got shape {tuple(targets.shape)} for {len(inputs)} samples."
            )
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one sample and its target."""
        # A clone, since prepare may write to it, as it may to the copy that index_select makes.
        return self.prepare(self.inputs[index, None].clone())[0], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the inputs ``(N, ...)`` and targets ``(N, ...)`` of a batch of indices."""
        index = torch.as_tensor(indices)
        # `index_select` copies whole rows; `inputs[index]` copies element by element and takes four times as long.
        return self.prepare(self.inputs.index_select(0, index)), self.targets.index_select(0, index)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Turn stored rows ``(N, ...)``, which are a copy, into what the network gets; here they are that already."""
        return inputs

    @staticmethod
    def collate_fn(batch: Any) -> tuple[Tensor, Tensor]:
        """Pass a finished batch on; a list of single samples (``ConcatDataset`` reads one by one) is stacked."""
        return tuple(default_collate(batch)) if isinstance(batch, list) else batch
