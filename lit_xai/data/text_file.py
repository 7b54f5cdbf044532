"""A CSV file of texts of one's own as a data module."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lit_xai.data.csv_columns import CsvColumns, read_csv
from lit_xai.data.split import count_of, some_of, split_groups
from lit_xai.data.texts import TextDataModule, Texts
from lit_xai.network.check import Name, check_choice, refusal


class TextFile(TextDataModule):
    """The texts of a CSV file, whose first line names the columns.

    Args:
        path: of the file.
        text: the column of texts.
        label: the column of classes.
        group: a column whose equal values stay in one part of the split, such as an author's name.
        test_path: of a file with the test texts; otherwise ``test_size`` of the texts are drawn at random.
        class_names: of all classes; default the different labels of the first file, in alphabetical order.
        delimiter: between values.
        batch_size: texts per batch (and per process).
        test_size: number of texts held out for the test; a float is a fraction.
        val_size: number of the remaining texts held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        tokenizer: the folder of a tokenizer; by default one is trained, as for
            :class:`~lit_xai.data.texts.TextDataModule`.
        vocab_size: of a tokenizer that is trained.
        lowercase: whether a tokenizer that is trained drops case and accents.
        max_length: longer texts are cut to so many tokens.
        pad_to: ``"longest"`` text of the batch, or ``"max_length"``.
        num_workers: processes that load batches.
        pin_memory: whether batches are copied to page-locked memory.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an argument is out of range; or, when it is read, a column is missing, a text is empty, or a label
            is unknown.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "mine.csv")
        ...     _ = path.write_text("text,label\\n" + "a good film,good\\na bad film,bad\\n" * 20)
        ...     mine = TextFile(path, vocab_size=50)
        ...     mine.setup("fit")
        >>> mine.class_names, len(mine.train_dataset)
        (['bad', 'good'], 29)
    """

    def __init__(
        self,
        path: str | Path,
        text: str = "text",
        label: str = "label",
        group: str | None = None,
        test_path: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        delimiter: str = ",",
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
        # Plain values: they are hyperparameters in the checkpoint.
        path, test_path = str(path), None if test_path is None else str(test_path)
        tokenizer = None if tokenizer is None else str(tokenizer)
        class_names = None if class_names is None else [str(name) for name in class_names]
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
        self.path, self.test_path, self.delimiter = path, test_path, delimiter
        self.text, self.label, self.group = text, label, group
        self._classes = class_names
        self._training_rows: int | None = None  # of the first file, where the test has one of its own

    def read(self) -> Texts:
        """Return all texts, those of the test file last."""
        rows = self._columns(self.path)
        names = self._classes or sorted(set(rows.columns[self.label]))
        if self.test_path is not None:
            self._training_rows = len(rows)
            rows = rows.followed_by(self._columns(self.test_path))
        groups = None if self.group is None else rows.columns[self.group]
        return Texts(rows.columns[self.text], self._labels(rows, names), names, groups, rows.place)

    def _columns(self, path: str) -> CsvColumns:
        """Return the columns of a file that are used, and refuse one that lacks any."""
        rows = read_csv(Path(os.path.expanduser(path)), self.delimiter)
        used = {"text": self.text, "label": self.label, "group": self.group}
        for argument, name in used.items():
            if name is not None:
                check_choice(argument, name, rows.columns)
        return CsvColumns({name: rows.columns[name] for name in used.values() if name is not None}, rows.places)

    def _labels(self, rows: CsvColumns, names: Sequence[str]) -> list[int]:
        if len(names) < 2:
            raise refusal(f"Column {self.label!r}", "two or more classes", list(names))
        places = {name: i for i, name in enumerate(names)}
        for row, value in enumerate(rows.columns[self.label]):
            if value not in places or not value:
                raise ValueError(
                    f"Column {self.label!r} expected one of {', '.join(filter(None, names))}, but got {value!r} in"
                    f" {rows.place(row)}."
                )
        return [places[value] for value in rows.columns[self.label]]

    def split(self, texts: Texts) -> tuple[Tensor, Tensor, Tensor]:
        """Return the indices of the texts to train, validate and test on; a test file's texts are the test."""
        n = self._training_rows
        if n is None:
            return super().split(texts)
        groups = list(range(n)) if texts.groups is None else list(texts.groups)[:n]
        train, val = split_groups(groups, count_of("val_size", self.val_size, n), self.seed)
        some = some_of(train, count_of("train_size", self.train_size, len(train)), self.seed)
        return some, val, torch.arange(n, len(texts.texts))
