"""Texts in memory as token ids, read a whole batch at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lit_xai.data.tensor_rows import TensorRows

Batch = dict[str, Tensor]


class TextRows(TensorRows):
    """Token ids as rows of one tensor; batches are dicts, as networks of Hugging Face take them.

    Args:
        ids: of each text.
        labels: ``(N,)``, class indices.
        padding: the id that rows are filled up with.
        length: of every batch; default that of its longest text.

    Raises:
        ValueError: there is not one label per text.

    Example:
        >>> rows = TextRows([[5, 3], [4]], torch.tensor([1, 0]))
        >>> batch = rows.__getitems__([1, 0])
        >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist(), batch["labels"].tolist()
        ([[4, 0], [5, 3]], [[1, 0], [1, 1]], [0, 1])
    """

    def __init__(
        self, ids: Sequence[Sequence[int]], labels: Tensor, padding: int = 0, length: int | None = None
    ) -> None:
        self.lengths = torch.tensor([len(row) for row in ids], dtype=torch.int64)
        longest = max(int(self.lengths.max()) if len(ids) else 0, length or 0)
        filled = [[*row, *[padding] * (longest - len(row))] for row in ids]
        # Half the memory of int64, which batches have.
        super().__init__(torch.tensor(filled, dtype=torch.int32).reshape(len(ids), longest), labels)
        self.length = length

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]  # a dict is what these networks take
        """Return one text, filled up to the length of the longest."""
        return {name: value[0] for name, value in self._batch(torch.tensor([index]), self.inputs.shape[1]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:  # type: ignore[override]  # as above
        """Return ``input_ids`` and ``attention_mask`` ``(N, T)`` and ``labels`` ``(N,)`` of a batch of indices."""
        index = torch.as_tensor(indices)
        return self._batch(index, self.length or int(self.lengths[index].max()))

    def _batch(self, index: Tensor, length: int) -> Batch:
        ids = self.inputs.index_select(0, index)[:, :length].to(torch.int64)
        mask = torch.arange(length) < self.lengths[index][:, None]
        return {"input_ids": ids, "attention_mask": mask.to(torch.int64), "labels": self.targets.index_select(0, index)}

    @staticmethod
    def collate_fn(batch: Any) -> Batch:  # type: ignore[override]  # as above
        """Pass a finished batch on; a list of single texts is stacked, and cut to the longest of them."""
        if not isinstance(batch, list):
            return batch
        stacked = default_collate(batch)
        longest = int(stacked["attention_mask"].sum(1).max())
        return {name: value[:, :longest] if value.dim() == 2 else value for name, value in stacked.items()}
