"""The base of data modules whose samples are ratings of items by users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lit_xai.data.in_memory import InMemoryDataModule
from lit_xai.data.rating_rows import RatingRows
from lit_xai.data.split import count_of, split_indices
from lit_xai.network.check import check_choice, refusal

DAMPING = 10.0, 5.0
"""Ratings of zero difference that each user and each item is given beside its own, so that few ratings say little."""


@dataclass
class Ratings:
    """Ratings of items by users, with what is known of the items.

    Args:
        users: the id of who rated, one per rating: numbers or text. Ids are numbered from 0 in their sorted order.
        items: the id of what was rated, one per rating.
        values: the ratings, finite numbers.
        times: of the ratings, where known.
        titles: of items, by their id; others are called by their id.
        genres: of items, by their id: several names each.

    Attributes:
        pairs: numbers of user and item ``(N, 2)``, int64.
        user_ids: in the order of their numbers.
        item_ids: in the order of their numbers: those rated, and those that have a title or genres.
        item_names: titles in the order of their numbers.
        genre_names: sorted.
        genre_table: ``(items, genres)``, ones where an item is of a genre.

    Raises:
        ValueError: there are not as many of one as of the other, or a rating is no finite number.

    Example:
        >>> ratings = Ratings(["ann", "bob", "ann"], [7, 7, 3], [5, 3, 1], titles={7: "Alien"}, genres={7: ["Horror"]})
        >>> ratings.pairs.tolist(), ratings.item_names, ratings.genre_table.tolist()
        ([[0, 1], [1, 1], [0, 0]], ['3', 'Alien'], [[0.0], [1.0]])
    """

    users: Sequence[Any]
    items: Sequence[Any]
    values: Any
    times: Any = None
    titles: Mapping[Any, str] = field(default_factory=dict)
    genres: Mapping[Any, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.users)
        for name in ("items", "values", *(["times"] if self.times is not None else [])):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} expected one for each of {n} users, but got {len(getattr(self, name))}.")
        self.values = torch.tensor(np.asarray(self.values, dtype=np.float32))
        if not n or not self.values.isfinite().all():
            raise ValueError("values expected one or more finite numbers, but got none, or NaN or infinity.")
        self.times = None if self.times is None else torch.tensor(np.asarray(self.times, dtype=np.float64))
        self.user_ids = sorted(set(self.users))
        self.item_ids = sorted({*self.items, *self.titles, *self.genres})
        self.item_names = [str(self.titles.get(item, item)) for item in self.item_ids]
        user_numbers = {user: k for k, user in enumerate(self.user_ids)}
        item_numbers = {item: k for k, item in enumerate(self.item_ids)}
        self.pairs = torch.tensor(
            [(user_numbers[user], item_numbers[item]) for user, item in zip(self.users, self.items, strict=True)]
        )
        self.genre_names = sorted({genre for several in self.genres.values() for genre in several})
        columns = {genre: k for k, genre in enumerate(self.genre_names)}
        self.genre_table = torch.zeros(len(self.item_ids), len(columns))
        for item, several in self.genres.items():
            self.genre_table[item_numbers[item], [columns[genre] for genre in several]] = 1


class RatingsDataModule(InMemoryDataModule):
    """Base of the data modules of ratings: a dataset implements :meth:`read`, and the rest is done here.

    Batches are dicts of ``user``, ``item``, ``history``, ``seen``, ``genres`` and ``label``, see
    :class:`~lit_xai.data.rating_rows.RatingRows`; a network takes those that its ``forward`` names. A history holds how
    much better or worse than expected the user rated each item of the training split: the rating less the mean, the
    user's and the item's own deviation from it.

    Args:
        batch_size: ratings per batch (and per process).
        test_size: number of ratings held out for the test; a float is a fraction.
        val_size: number of the remaining ones held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        split_by: ``"random"``, or ``"time"``: the latest ratings of each user for the test, and the latest before them
            for validation.
        num_workers: processes that load batches; the ratings are in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Attributes:
        num_users: rows that a table of users needs; like those that follow, known once the ratings have been read.
        num_items: rows that a table of items needs.
        item_names: titles.
        genre_names: of the columns of ``genres``.
        input_features: names of the columns of each float input, by its name; figures of the monitor show them.
        mean: of the ratings to train on.

    Raises:
        ValueError: an argument is out of range, ratings without times are split by time, or, in a Trainer, the
            network's tables are smaller than the data.

    Example:
        >>> class Own(RatingsDataModule):
        ...     def read(self):
        ...         return Ratings(list("aabbccdd") * 2, [1, 2] * 8, [5, 1] * 8, genres={1: ["War"]})
        >>> own = Own(batch_size=4)
        >>> own.setup()
        >>> batch = next(iter(own.train_dataloader()))
        >>> {name: tuple(value.shape) for name, value in batch.items()}
        {'user': (4,), 'item': (4,), 'history': (4, 2), 'seen': (4, 2), 'genres': (4, 1), 'label': (4,)}
    """

    def __init__(
        self,
        batch_size: int = 512,
        test_size: int | float = 0.2,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        split_by: Literal["random", "time"] = "random",
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_size, train_size, num_workers, pin_memory, drop_last, seed)
        self.test_size = test_size
        self.split_by = check_choice("split_by", split_by, ("random", "time"))

    def read(self) -> Ratings:
        """Return all ratings; a dataset overrides this."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once, and refuse a network whose tables are too small for it."""
        super().setup(stage)
        network = getattr(getattr(self.trainer, "lightning_module", None), "network", None)
        if network is not None:
            check_tables(network, num_users=self.num_users, num_items=self.num_items, num_genres=len(self.genre_names))

    @cached_property
    def ratings(self) -> Ratings:
        """All ratings."""
        return self.read()

    @property
    def num_users(self) -> int:
        """Rows that a table of users needs."""
        return len(self.ratings.user_ids)

    @property
    def num_items(self) -> int:
        """Rows that a table of items needs."""
        return len(self.ratings.item_ids)

    @property
    def item_names(self) -> list[str]:
        """Titles."""
        return self.ratings.item_names

    @property
    def genre_names(self) -> list[str]:
        """Names of the columns of ``genres``."""
        return self.ratings.genre_names

    @property
    def input_features(self) -> dict[str, list[str]] | None:
        """Names of the columns of each float input, once the ratings have been read."""
        if "ratings" not in self.__dict__:
            return None
        return {"history": self.item_names, "seen": self.item_names, "genres": self.genre_names}

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the ratings to train, validate and test on."""
        n = len(self.ratings.values)
        testing = count_of("test_size", self.test_size, n)
        if testing == n:
            raise refusal("test_size", f"to leave some of the {n} ratings to train on", self.test_size)
        if self.split_by == "random":
            others, test = split_indices(n, testing, seed=self.seed)
            train, val = split_indices(len(others), self.val_size, self.train_size, self.seed)
            return others[train], others[val], test
        if self.ratings.times is None:
            raise refusal("split_by", "'random' for ratings without times", self.split_by)
        order = _latest_last(self.ratings.pairs[:, 0], self.ratings.times)
        others, test = order[: n - testing], order[n - testing :]
        validating = count_of("val_size", self.val_size, len(others))
        left = others[: len(others) - validating]
        return left[len(left) - count_of("train_size", self.train_size, len(left)) :], others[len(left) :], test

    @cached_property
    def effects(self) -> tuple[float, Tensor, Tensor]:
        """Mean of the training ratings, and the deviation from it of each user ``(users,)`` and item ``(items,)``."""
        train = self.parts[0]
        return damped_effects(self.ratings.pairs[train], self.ratings.values[train], self.num_users, self.num_items)

    def describe(self, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        """Return the inputs for users and items ``(N,)``, rated or not: a batch without labels."""
        return self._described.describe(user, item)

    @cached_property
    def _described(self) -> RatingRows:
        return self._rows(self.parts[0][:0])

    def training_datasets(self) -> tuple[RatingRows, RatingRows]:
        """Return the ratings to train on and those to validate on."""
        return self._rows(self.parts[0]), self._rows(self.parts[1])

    def testing_dataset(self) -> RatingRows:
        """Return the ratings to test on."""
        return self._rows(self.parts[2])

    @cached_property
    def histories(self) -> Tensor:
        """Of each user, how much better or worse than expected each item was rated, ``(users, items)``."""
        (mean, users, items), train = self.effects, self.parts[0]
        user, item = self.ratings.pairs[train].unbind(1)
        histories = torch.zeros(self.num_users, self.num_items)
        # Never exactly zero, which stands for no rating.
        surprise = self.ratings.values[train] - mean - users[user] - items[item]
        histories[user, item] = torch.where(surprise == 0, torch.finfo(torch.float32).tiny, surprise)
        return histories

    def _rows(self, indices: Tensor) -> RatingRows:
        ratings = self.ratings
        return RatingRows(ratings.pairs[indices], ratings.values[indices], self.histories, ratings.genre_table)


def damped_effects(pairs: Tensor, values: Tensor, users: int, items: int) -> tuple[float, Tensor, Tensor]:
    r"""Return the mean rating, and how much each user and each item deviates from it: the model of biases alone.

    Item effects are :math:`\sum_u (r_{ui} - \mu) / (\lambda + n_i)` and user effects those of what is left, as in
    Koren, "Factorization Meets the Neighborhood" (2008), section 2.1; predictions are the sum of all three.

    Args:
        pairs: users and items ``(N, 2)``.
        values: ratings ``(N,)``.
        users: their number.
        items: their number.

    Example:
        >>> mean, user, item = damped_effects(torch.tensor([[0, 0], [1, 0]]), torch.tensor([5.0, 3.0]), 2, 1)
        >>> mean, item.tolist(), user[0].item() > 0 > user[1].item()
        (4.0, [0.0], True)
    """
    mean, (user, item) = values.mean(), pairs.unbind(1)
    of_users, of_items = DAMPING
    rest = values - mean
    effect_of_items = torch.zeros(items).index_add(0, item, rest) / (item.bincount(minlength=items) + of_items)
    rest = rest - effect_of_items[item]
    effect_of_users = torch.zeros(users).index_add(0, user, rest) / (user.bincount(minlength=users) + of_users)
    return mean.item(), effect_of_users, effect_of_items


def check_tables(network: nn.Module, **sizes: int) -> None:
    """Refuse a network whose tables have fewer rows than the data has ids: they would be looked up beyond the end.

    Args:
        network: with attributes of these names, where it has such tables.
        sizes: ids in the data, by the attribute's name.

    Raises:
        ValueError: a table is too small; names the argument.

    Example:
        >>> network = nn.Module()
        >>> network.num_users = 900
        >>> check_tables(network, num_users=943)
        Traceback (most recent call last):
        ...
        ValueError: num_users expected at least 943, the ids in the data, but got 900: a table of embeddings has a row
        for each id.
    """
    for name, size in sizes.items():
        rows = getattr(network, name, None)
        if isinstance(rows, int) and rows < size:
            raise ValueError(
                f"{name} expected at least {size}, the ids in the data, but got {rows}: a table of embeddings has a row"
                " for each id."
            )


def _latest_last(users: Tensor, times: Tensor) -> Tensor:
    """Return the order of ratings by how late they come among those of their user, as a share of them."""
    order = np.lexsort((times.numpy(), users.numpy()))
    counts = np.bincount(users.numpy())
    within = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return torch.from_numpy(order[np.argsort(within, kind="stable")].astype(np.int64))
