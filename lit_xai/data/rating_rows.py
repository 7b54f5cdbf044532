"""Ratings in memory, with what is known of the user and the item beside each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lit_xai.data.tensor_rows import TensorRows


class RatingRows(TensorRows):
    """Samples of a user, an item and a rating; a batch holds the user's history and the item's genres as well.

    A batch is a dict of ``user`` and ``item`` ``(N,)``, ``history`` and ``seen`` ``(N, items)``, ``genres``
    ``(N, genres)`` and ``label`` ``(N,)``, of which a network takes those that its ``forward`` names. The history says
    what the user thought of each item, ``seen`` which ones they rated at all: what people choose tells as much as what
    they say of it. The rated item itself is in neither, or its rating could be read there.

    Args:
        pairs: users and items ``(N, 2)``.
        ratings: ``(N,)``.
        histories: of each user, ``(users, items)``: what the user's training ratings were, zero where there is none.
        genres: of each item, ``(items, genres)``.

    Example:
        >>> histories = torch.tensor([[1.0, -1.0, 0.0]])
        >>> rows = RatingRows(torch.tensor([[0, 1]]), torch.tensor([4.0]), histories, torch.ones(3, 1))
        >>> batch = rows.__getitems__([0])
        >>> batch["history"], batch["seen"], batch["label"]
        (tensor([[1., 0., 0.]]), tensor([[1., 0., 0.]]), tensor([4.]))
    """

    def __init__(self, pairs: Tensor, ratings: Tensor, histories: Tensor, genres: Tensor) -> None:
        super().__init__(pairs, ratings)
        self.histories = histories
        self.lengths = (histories != 0).sum(1)
        self.genres = genres

    def __getitem__(self, index: int) -> Any:
        """Return one sample."""
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return the batch of these indices."""
        index = torch.as_tensor(indices)
        user, item = self.inputs[index].unbind(1)
        return {**self.describe(user, item), "label": self.targets[index]}

    def describe(self, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        """Return the inputs for users and items ``(N,)``: a batch without labels.

        Both are divided by the root of the history's length, so that long ones do not drown what else is known.
        """
        history, rows = self.histories.index_select(0, user), torch.arange(len(user))
        others = self.lengths[user] - (history[rows, item] != 0).long()
        history[rows, item] = 0
        scale = others.clamp(min=1).rsqrt()[:, None]
        known = {
            "history": history * scale,
            "seen": (history != 0) * scale,
            "genres": self.genres.index_select(0, item),
        }
        return {"user": user, "item": item, **known}

    @staticmethod
    def collate_fn(batch: Any) -> Any:
        """Pass a finished batch on; a list of single samples is stacked."""
        return default_collate(batch) if isinstance(batch, list) else batch
