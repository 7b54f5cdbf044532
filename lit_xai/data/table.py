"""The base of data modules whose samples are rows of feature columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lit_xai.data.categories import Columns, category_codes, find_categories, one_hot
from lit_xai.data.in_memory import InMemoryDataModule
from lit_xai.data.split import count_of, split_indices
from lit_xai.data.tensor_rows import TensorRows
from lit_xai.network.check import refusal

Module = TypeVar("Module", bound="TableDataModule")


@dataclass
class Table:
    """Feature columns and labels, of all samples.

    Args:
        features: ``(N, features)``, finite numbers: an array, a tensor, nested lists or a data frame. Kept as
            float64, in which the data module normalizes them; its batches are float32.
        labels: class indices ``(N,)`` or zeros and ones ``(N, classes)``, kept as int64, or the values of a regression
            ``(N,)`` or ``(N, outputs)``, kept as float32.
        feature_names: one per column.
        class_names: one per class; default the indices as text, and none for a regression.
        categories: of the categorical features, by name: their columns hold indices into it. The data module makes
            a column of zeros and ones of each category. See :meth:`from_columns` for text.

    Raises:
        ValueError: features that are no table of finite numbers, labels that are not one per row or name no class,
            as many names as there are not columns or classes, or a column that holds no index of its categories.

    Example:
        >>> Table([[5.1, 3.5], [6.2, 2.9]], [0, 1], ["length", "width"]).class_names
        ['0', '1']
    """

    features: Any
    labels: Any
    feature_names: Sequence[str] | None = None
    class_names: Sequence[str] | None = None
    categories: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        self.features = _as_features(self.features)
        n, columns = self.features.shape
        self.labels = _as_labels(self.labels, n)
        if self.feature_names is not None:
            self.feature_names = _as_names("feature_names", self.feature_names, columns)
        _check_categories(self.categories or {}, list(self.feature_names or []), self.features)
        if not self.labels.is_floating_point():
            low, high = int(self.labels.min()), int(self.labels.max())
            classes = high + 1 if self.labels.ndim == 1 else self.labels.shape[1]
            names = range(classes) if self.class_names is None else self.class_names
            self.class_names = [str(name) for name in names]
            last = len(names) - 1 if self.labels.ndim == 1 else 1
            if low < 0 or high > last:
                raise ValueError(f"labels expected classes from 0 to {last}, but got {low} to {high}.")

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Sequence[Any]],
        labels: Any,
        class_names: Sequence[str] | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
    ) -> "Table":
        """Return the table of named columns: numbers are features as they are, and text is categories.

        Args:
            columns: values by name: lists or arrays, or a data frame.
            labels: as in the constructor; or text, whose different values are the classes.
            class_names: one per class.
            categories: of some features, where not all of them occur in the column, or where they are numbers.

        Raises:
            ValueError: a column has a missing value, or one that is not among its categories; and what the
                constructor refuses.

        Example:
            >>> table = Table.from_columns({"age": [30, 41], "job": ["nurse", "cook"]}, ["no", "yes"])
            >>> table.features.tolist(), table.categories, table.class_names
            ([[30.0, 1.0], [41.0, 0.0]], {'job': ['cook', 'nurse']}, ['no', 'yes'])
        """
        known = {name: [str(one) for one in values] for name, values in (categories or {}).items()}
        encoded: dict[str, Any] = {}
        for name in columns:
            values = np.asarray(columns[name])
            if values.dtype.kind in "biuf" and name not in known:
                encoded[str(name)] = values
                continue
            texts = _as_texts(str(name), columns[name])
            known.setdefault(str(name), find_categories(texts))
            encoded[str(name)] = category_codes(str(name), texts, known[str(name)])
        answers = np.asarray(labels)
        if answers.dtype.kind in "OU":
            texts = _as_texts("labels", labels)
            class_names = find_categories(texts) if class_names is None else list(class_names)
            labels = category_codes("labels", texts, class_names)
        features = np.stack([np.asarray(values, dtype=np.float64) for values in encoded.values()], 1)
        return cls(features, labels, list(encoded), class_names, known or None)


class TableDataModule(InMemoryDataModule):
    """Base of the data modules of tables: a dataset implements :meth:`read`, and the rest is done here.

    Batches are ``(x, y)``: features ``(N, columns)`` as float32, normalized with the training rows' statistics, and
    labels as int64 (classes) or float32 (a regression). For arrays that are there already, see :meth:`from_table`.

    A categorical feature becomes one column per category, of zeros and ones. The share of the training rows is
    subtracted from each, so that zero is the average row in all columns; they are not divided by anything, which
    would blow up rare categories.

    Args:
        batch_size: rows per batch (and per process).
        test_size: number of rows held out for the test; a float is a fraction.
        val_size: number of the remaining rows held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        normalize: whether to subtract each feature's mean and divide by its standard deviation over the training rows.
        num_workers: processes that load batches; the rows are in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Attributes:
        feature_names: one per column; like those that follow, known once the table has been read.
        feature_groups: the feature that each column belongs to, where there are categories; figures and reports add
            up the columns of one feature.
        categories: of each categorical feature, by its name.
        class_names: one per class; figures of the monitor show them.
        num_classes: their number.
        mean: per column, the number that was subtracted (zeros without ``normalize``).
        std: per column, the divisor (ones without ``normalize``, for a category, and where nothing ever changes).

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> class Flowers(TableDataModule):
        ...     def read(self):
        ...         from sklearn.datasets import load_iris
        ...         found = load_iris()
        ...         return Table(found.data, found.target, found.feature_names, found.target_names)
        >>> flowers = Flowers(batch_size=16)
        >>> flowers.setup("fit")
        >>> x, y = next(iter(flowers.train_dataloader()))
        >>> x.shape, flowers.class_names, flowers.feature_names[0]
        (torch.Size([16, 4]), ['setosa', 'versicolor', 'virginica'], 'sepal length (cm)')
    """

    feature_names: list[str] | None = None
    feature_groups: list[str] | None = None
    categories: dict[str, list[str]] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __init__(
        self,
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
        super().__init__(batch_size, val_size, train_size, num_workers, pin_memory, drop_last, seed)
        self.test_size = test_size
        self.normalize = normalize
        self._table: Table | None = None

    @classmethod
    def from_table(cls: type[Module], table: Table, **options: Any) -> Module:
        """Return the data module of a table.

        Args:
            table: features, labels and names.
            options: arguments of the constructor.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(100, 3))
            >>> data = TableDataModule.from_table(Table(x, x.sum(1)), batch_size=10)
            >>> data.setup()
            >>> len(data.train_dataset), len(data.val_dataset), len(data.test_dataset)
            (72, 8, 20)
        """
        found = cls(**options)
        found._table = table
        return found

    def read(self) -> Table:
        """Return all rows; a dataset overrides this.

        Called once in each process, at the first stage that is set up. Under DDP every process reads the same rows.
        """
        if self._table is None:
            raise MisconfigurationException(
                f"{type(self).__name__} has no table: implement read(), which returns a Table, or build the module with"
                " TableDataModule.from_table()."
            )
        return self._table

    def split(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the indices of the rows to train, validate and test on, drawn at random.

        Override it where the rows have an order, in time say, or come from the same subject.

        Args:
            n: number of rows.
        """
        testing = count_of("test_size", self.test_size, n)
        if testing == n:
            raise refusal("test_size", f"to leave some of the {n} rows to train on", self.test_size)
        others, test = split_indices(n, testing, seed=self.seed)
        # Of what the test left, so that another val_size leaves the test rows as they are.
        train, val = split_indices(len(others), self.val_size, self.train_size, self.seed)
        return others[train], others[val], test

    def training_datasets(self) -> tuple[TensorRows, TensorRows]:
        """Return the rows to train on and those to validate on."""
        return self._datasets[0], self._datasets[1]

    def testing_dataset(self) -> TensorRows:
        """Return the rows to test on."""
        return self._datasets[2]

    @cached_property
    def _datasets(self) -> tuple[TensorRows, ...]:
        # One table holds all three parts, and the test rows are normalized with the training rows' statistics.
        table = self.read()
        parts = self.split(len(table.features))
        if table.class_names is not None:
            self.class_names = list(table.class_names)
        columns = self._name_columns(table)
        # float64 until it is normalized: of large values, such as times, float32 keeps no digit that differs.
        features = columns.values
        mean, std = torch.zeros_like(features[0]), torch.ones_like(features[0])
        if self.normalize:
            mean, std = features[parts[0]].mean(0), features[parts[0]].std(0, correction=0)
            # A feature that never changes becomes zero instead of NaN.
            std[(std == 0) | columns.are_categories] = 1.0
        self.mean, self.std = tuple(mean.tolist()), tuple(std.tolist())
        features = ((features - mean) / std).float()
        return tuple(TensorRows(features[rows], table.labels[rows]) for rows in parts)

    def _name_columns(self, table: Table) -> Columns:
        """Return the columns of a network's input, and keep their names."""
        if table.feature_names is None:
            width = table.features.shape[1]
            return Columns(table.features, [], [], torch.zeros(width, dtype=torch.bool))
        columns = one_hot(table.features, table.feature_names, table.categories or {})
        self.feature_names = columns.names
        if table.categories:
            self.feature_groups = columns.groups
            self.categories = {name: list(known) for name, known in table.categories.items()}
        return columns


def _check_categories(categories: Mapping[str, Sequence[str]], names: list[str], features: Tensor) -> None:
    """Refuse a categorical column that holds no indices into its categories."""
    for name, known in categories.items():
        if name not in names:
            raise refusal("categories", f"names of features ({', '.join(names) or 'none are given'})", name)
        column = features[:, names.index(name)]
        outside = (column != column.round()) | (column < 0) | (column >= len(known))
        if outside.any():
            expected = f"indices from 0 to {len(known) - 1} in the column of {name!r}"
            raise refusal("categories", expected, float(column[outside][0]))


def _as_texts(name: str, values: Sequence[Any]) -> list[str]:
    # As objects: NumPy would write a NaN among text as the text "nan".
    listed = np.asarray(values, dtype=object).tolist()
    for row, value in enumerate(listed):
        if value is None or value != value:  # NaN, as frames write what is missing
            raise refusal(name, "a category in every row", value, f"Fill in or drop row {row} first.")
    return [str(value) for value in listed]


def _as_features(given: Any) -> Tensor:
    try:
        features = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"features expected numbers (N, features), but got {type(given).__name__}: {error}. Categories that are"
            " text go through Table.from_columns()."
        ) from None
    if features.ndim != 2 or not features.size:
        raise ValueError(f"features expected numbers (N, features), but got shape {features.shape}.")
    columns = np.flatnonzero(~np.isfinite(features).all(axis=0))
    if columns.size:
        raise ValueError(
            f"features expected finite numbers, but got NaN or infinity in {len(columns)} columns, first in column"
            f" {columns[0]}: fill in or drop missing values first."
        )
    return torch.from_numpy(features.copy())  # a frame's own memory may be read-only


def _as_labels(given: Any, n: int) -> Tensor:
    labels = np.asarray(given)
    if labels.ndim not in (1, 2) or len(labels) != n or labels.dtype.kind not in "biuf":
        raise ValueError(
            f"labels expected one class index or number for each of {n} rows, but got {labels.dtype} of shape"
            f" {labels.shape}."
        )
    return torch.from_numpy(labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64))


def _as_names(argument: str, names: Sequence[str], expected: int) -> list[str]:
    if len(names) != expected:
        raise ValueError(f"{argument} expected {expected} names, but got {len(names)}.")
    return [str(name) for name in names]
