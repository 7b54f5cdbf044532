"""Ratings of movies."""

import re
from pathlib import Path
from typing import Literal

from lit_xai.data.local_files import LocalFiles
from lit_xai.data.ratings import Ratings, RatingsDataModule
from lit_xai.data.typed_tsv import read_typed_tsv

ARTICLE = re.compile(r"^(.*), (The|A|An|Il|Lo|La|Le|Les|El|Los|Las|Das|Der|Die)(?= \(|$)")
"""An article behind a title, as lists put it."""


class MovieLens(LocalFiles, RatingsDataModule):
    """MovieLens 100k: 100,000 ratings from 1 to 5 of 1,682 movies by 943 users, with 19 genres.

    F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context" (2015), in the tab-separated form of
    the recommender library RecBole. The files ``ml-100k.inter`` and ``ml-100k.item`` belong in the folder ``ml-100k``
    of ``data_dir``.

    Args:
        data_dir: the folder that holds the dataset's own folder, or that folder itself.
        batch_size: ratings per batch (and per process).
        test_size: number of ratings held out for the test; a float is a fraction.
        val_size: number of the remaining ones held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        split_by: ``"random"``, or ``"time"``: the latest ratings of each user for the test.
        num_workers: processes that load batches; the ratings are in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: an argument is out of range, or a file is not the published one.

    Example:
        >>> MovieLens(data_dir="data").directory.as_posix()
        'data/ml-100k'
    """

    folder = "ml-100k"
    published = "the Python package recbole holds them, in recbole/dataset_example/ml-100k"
    checksums = {
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    }

    def __init__(
        self,
        data_dir: str | Path = "data",
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
        data_dir = str(data_dir)  # a Path among the hyperparameters would not load with `weights_only=True`
        super().__init__(
            batch_size, test_size, val_size, train_size, split_by, num_workers, pin_memory, drop_last, seed
        )
        self.data_dir = data_dir

    def read(self) -> Ratings:
        """Return all ratings, with titles, years and genres of the movies."""
        found = read_typed_tsv(self.directory / "ml-100k.inter")
        items = read_typed_tsv(self.directory / "ml-100k.item")
        numbers = [int(item) for item in items["item_id"]]
        titles = [
            as_spoken(" ".join(title)) + (f" ({year})" if year.isdecimal() else "")
            for title, year in zip(items["movie_title"], items["release_year"], strict=True)
        ]
        return Ratings(
            [int(user) for user in found["user_id"]],
            [int(item) for item in found["item_id"]],
            found["rating"],
            found["timestamp"],
            dict(zip(numbers, titles, strict=True)),
            dict(zip(numbers, items["class"], strict=True)),
        )


def as_spoken(title: str) -> str:
    """Return a title with its article in front, which lists of movies put behind.

    Example:
        >>> as_spoken("Shawshank Redemption, The"), as_spoken("Postino, Il"), as_spoken("Girl, Interrupted")
        ('The Shawshank Redemption', 'Il Postino', 'Girl, Interrupted')
    """
    return ARTICLE.sub(r"\2 \1", title)
