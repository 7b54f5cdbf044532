"""A CSV file of one's own as a data module."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_xai.data.categories import category_codes, find_categories
from lit_xai.data.column_reading import ColumnReader, to_number
from lit_xai.data.csv_columns import CsvColumns, read_csv
from lit_xai.data.split import split_indices
from lit_xai.data.table import Table, TableDataModule
from lit_xai.network.check import check_choice, check_flag, refusal

FEW = 10
"""Different whole numbers in a target that is taken for classes."""


class TableFile(TableDataModule):
    """The rows of a CSV file, whose first line names the columns.

    A column whose values are all numbers is a number, and every other one a category, with a column of zeros and ones
    for each of its values. Categories, and what missing values are filled with, are those of the training rows.

    Args:
        path: of the file.
        target: the column to predict.
        test_path: of a file with the test rows; otherwise ``test_size`` of the rows are drawn at random.
        regression: whether the target's values are numbers to predict; by default text and up to ten whole numbers are
            classes, and all else is a regression.
        categorical: columns of numbers that are names, such as post codes.
        ignore: columns to leave out.
        missing: what becomes of rows that lack a value: ``"refuse"``, or ``"fill"`` for the median (numbers) or a
            category ``"missing"``.
        missing_values: the texts that stand for no value.
        unknown: what becomes of a category that no training row has: ``"refuse"``, or ``"column"`` for a category
            ``"unknown"``.
        min_count: training rows that a category needs to be known; rarer ones train the column of unknown ones,
            which otherwise stays as it was initialized.
        delimiter: between values.
        batch_size: rows per batch (and per process).
        test_size: number of rows held out for the test; a float is a fraction.
        val_size: number of the remaining rows held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        normalize: whether numbers are normalized with the training rows' statistics.
        num_workers: processes that load batches.
        pin_memory: whether batches are copied to page-locked memory.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an argument is out of range; or, when it is read, a value is missing, unknown or no number.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "people.csv")
        ...     _ = path.write_text("age,job,income\\n" + "30,nurse,low\\n41,cook,high\\n" * 20)
        ...     people = TableFile(path, target="income")
        ...     people.setup("fit")
        >>> people.feature_names, people.feature_groups, people.class_names
        (['age', 'job=cook', 'job=nurse'], ['age', 'job', 'job'], ['high', 'low'])
    """

    def __init__(
        self,
        path: str | Path,
        target: str,
        test_path: str | Path | None = None,
        regression: bool | None = None,
        categorical: Sequence[str] = (),
        ignore: Sequence[str] = (),
        missing: Literal["refuse", "fill"] = "refuse",
        missing_values: Sequence[str] = ("", "?", "NA", "N/A", "NaN", "nan", "null"),
        unknown: Literal["refuse", "column"] = "refuse",
        min_count: int = 1,
        delimiter: str = ",",
        batch_size: int = 128,
        test_size: int | float = 0.2,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        normalize: bool = True,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        # Plain values: they are hyperparameters in the checkpoint.
        path, test_path = str(path), None if test_path is None else str(test_path)
        categorical, ignore, missing_values = list(categorical), list(ignore), list(missing_values)
        super().__init__(
            batch_size, test_size, val_size, train_size, normalize, num_workers, pin_memory, drop_last, seed
        )
        self.path, self.test_path, self.target, self.delimiter = path, test_path, target, delimiter
        self.regression = regression if regression is None else check_flag("regression", regression)
        self.categorical, self.ignore = categorical, ignore
        self._reader = ColumnReader(missing, missing_values, unknown, min_count)
        self._training_rows: int | None = None  # of the first file, where the test has one of its own

    def read(self) -> Table:
        """Return all rows, those of the test file last."""
        rows = read_csv(Path(os.path.expanduser(self.path)), self.delimiter)
        if self.test_path is not None:
            self._training_rows = len(rows)
            rows = rows.followed_by(read_csv(Path(os.path.expanduser(self.test_path)), self.delimiter))
        for argument, names in (("target", [self.target]), ("categorical", self.categorical), ("ignore", self.ignore)):
            for name in names:
                check_choice(argument, name, rows.columns)
        training = self.split(len(rows))[0].tolist()
        features: dict[str, np.ndarray] = {}
        categories: dict[str, list[str]] = {}
        for name, values in rows.columns.items():
            if name == self.target or name in self.ignore:
                continue
            if name not in self.categorical and self._reader.are_numbers(name, values, rows.place):
                features[name] = self._reader.numbers(name, values, training, rows.place)
            else:
                features[name], categories[name] = self._reader.categories(name, values, training, rows.place)
        if not features:
            raise ValueError(f"'{self.path}' expected columns beside {self.target!r}, but got none to learn from.")
        labels, classes = self._labels(rows)
        return Table(np.stack(list(features.values()), 1), labels, list(features), classes, categories)

    def split(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the indices of the rows to train, validate and test on; a test file's rows are the test."""
        if self._training_rows is None:
            return super().split(n)
        train, val = split_indices(self._training_rows, self.val_size, self.train_size, self.seed)
        return train, val, torch.arange(self._training_rows, n)

    def _labels(self, rows: CsvColumns) -> tuple[np.ndarray, list[str] | None]:
        values = rows.columns[self.target]
        for row, value in enumerate(values):
            if value in self._reader.missing_values:
                raise ValueError(
                    f"Column {self.target!r} expected a value in every row, since it is the target, but got {value!r}"
                    f" in {rows.place(row)}: drop the row."
                )
        numbers = [to_number(value) for value in values]
        whole = all(number is not None and number.is_integer() for number in numbers)
        are_classes = None in numbers or (whole and len(set(numbers)) <= FEW)
        if are_classes if self.regression is None else not self.regression:
            known = values[: self._training_rows]
            classes = find_categories(known)
            if len(classes) < 2:
                raise refusal(f"Column {self.target!r}", "two or more classes, since it is the target", classes)
            for row in range(len(known), len(values)):
                if values[row] not in classes:
                    raise ValueError(
                        f"Column {self.target!r} expected one of {', '.join(classes)}, the classes of '{self.path}',"
                        f" but got {values[row]!r} in {rows.place(row)}."
                    )
            return np.array(category_codes(self.target, values, classes)), classes
        if None in numbers:
            row = numbers.index(None)
            raise ValueError(
                f"Column {self.target!r} expected numbers, but got {values[row]!r} in {rows.place(row)}: set"
                " regression=False if it holds classes."
            )
        return np.array(numbers, dtype=np.float64), None
