"""The base of data modules whose samples are series of one or several channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_xai.data.in_memory import InMemoryDataModule
from lit_xai.data.split import split_indices
from lit_xai.data.tensor_rows import TensorRows
from lit_xai.network.check import check_integer


@dataclass
class Series:
    """Series and labels of one part of a dataset, training or test.

    Args:
        values: one array or tensor ``(channels, length)`` of finite numbers per sample; lengths may differ. An array
            ``(N, channels, length)`` holds series of one length.
        labels: class indices ``(N,)``, kept as int64, or the values of a regression, kept as float32.

    Raises:
        ValueError: series that are not ``(channels, length)``, of different channels or with NaN, or labels that are
            not one per series.

    Example:
        >>> Series([np.ones((2, 5)), np.ones((2, 3))], [0, 1]).longest
        5
    """

    values: Sequence[Any]
    labels: Any

    def __post_init__(self) -> None:
        self.values = [torch.from_numpy(np.array(one, dtype=np.float64)) for one in self.values]
        channels = {one.shape[0] if one.ndim == 2 else tuple(one.shape) for one in self.values}
        if len(channels) != 1 or any(one.ndim != 2 or not one.numel() for one in self.values):
            shapes = sorted({tuple(one.shape) for one in self.values})[:3]
            raise ValueError(
                f"values expected series (channels, length) of the same channels, but got shapes {shapes}."
            )
        broken = [i for i, one in enumerate(self.values) if not one.isfinite().all()]
        if broken:
            raise ValueError(
                f"values expected finite numbers, but got NaN or infinity in {len(broken)} series, first in series"
                f" {broken[0]}: fill in or drop missing values first."
            )
        labels = np.asarray(self.labels)
        if len(labels) != len(self.values) or labels.dtype.kind not in "biuf":
            raise ValueError(
                f"labels expected one class index or number for each of {len(self.values)} series, but got"
                f" {labels.dtype} of shape {labels.shape}."
            )
        self.labels = torch.from_numpy(labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.values[0])

    @property
    def longest(self) -> int:
        """Positions of the longest series."""
        return max(one.shape[1] for one in self.values)


class SeriesDataModule(InMemoryDataModule):
    """Base of the data modules of series: a dataset implements :meth:`read`, and the rest is done here.

    Batches are ``(x, y)``: series ``(N, channels, length)`` as float32, normalized per channel with the statistics of
    the series to train on and then padded with zeros at their ends, and labels as int64 (classes) or float32 (a
    regression). Zero is a channel's mean and the baseline of most explainers, so that padding has no share of its own.

    Args:
        length: positions of every series in a batch; shorter ones are padded, longer ones cut at their end. By default
            those of the longest training series.
        batch_size: series per batch (and per process).
        val_size: number of training series held out for validation; a float is a fraction.
        train_size: number of the remaining ones to train on; a float is a fraction of them.
        normalize: whether to subtract each channel's mean and divide by its standard deviation over the training
            series.
        num_workers: processes that load batches; the series are in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Attributes:
        class_names: one per class; figures of the monitor show them.
        feature_names: one per channel; figures of the monitor show them.
        sample_rate: positions per second, ``None`` where unknown: figures then count positions.

    Raises:
        ValueError: an argument is out of range, or test series have other channels than those to train on.

    Example:
        >>> class Steps(SeriesDataModule):
        ...     class_names = ["up", "down"]
        ...     def read(self, train):
        ...         up = np.arange(6.0).reshape(1, 6)
        ...         return Series([up, -up[:, :4]] * 10, [0, 1] * 10)
        >>> steps = Steps(batch_size=4)
        >>> steps.setup("fit")
        >>> next(iter(steps.train_dataloader()))[0].shape
        torch.Size([4, 1, 6])
    """

    feature_names: list[str] | None = None
    sample_rate: float | None = None

    def __init__(
        self,
        length: int | None = None,
        batch_size: int = 32,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        normalize: bool = True,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_size, train_size, num_workers, pin_memory, drop_last, seed)
        self.length = None if length is None else check_integer("length", length)
        self.normalize = normalize

    def read(self, train: bool) -> Series:
        """Return all training or all test series; a dataset overrides this."""
        raise NotImplementedError

    def training_datasets(self) -> tuple[TensorRows, TensorRows]:
        """Return the series to train on and those to validate on."""
        return self._rows(self._series, self._split[0]), self._rows(self._series, self._split[1])

    def testing_dataset(self) -> TensorRows:
        """Return the series to test on, normalized and padded like those to train on."""
        series = self.read(train=False)
        if series.channels != self._series.channels:
            raise ValueError(
                f"The test series expected {self._series.channels} channels like those to train on, but got"
                f" {series.channels}."
            )
        return self._rows(series, torch.arange(len(series.values)))

    @cached_property
    def _series(self) -> Series:
        return self.read(train=True)

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        return split_indices(len(self._series.values), self.val_size, self.train_size, self.seed)

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, over the positions of the series to train on."""
        if not self.normalize:
            return torch.zeros(self._series.channels, 1), torch.ones(self._series.channels, 1)
        positions = torch.cat([self._series.values[i] for i in self._split[0].tolist()], dim=1)
        std = positions.std(1, correction=0, keepdim=True)
        # A channel that never changes becomes zero instead of NaN.
        return positions.mean(1, keepdim=True), torch.where(std > 0, std, 1.0)

    def _rows(self, series: Series, indices: Tensor) -> TensorRows:
        mean, std = self._statistics
        normalized = [(series.values[i] - mean) / std for i in indices.tolist()]
        length = self.length or self._series.longest
        return TensorRows(pad(normalized, self._series.channels, length), series.labels[indices])


def pad(series: Sequence[Tensor], channels: int, length: int) -> Tensor:
    """Return series ``(channels, L)`` as one tensor ``(N, channels, length)`` of float32, with zeros at their ends.

    Args:
        series: of any lengths; what is beyond ``length`` is cut off.
        channels: of each.
        length: of the result.

    Example:
        >>> pad([torch.ones(1, 2), torch.ones(1, 4)], channels=1, length=3)
        tensor([[[1., 1., 0.]],
        <BLANKLINE>
                [[1., 1., 1.]]])
    """
    padded = torch.zeros(len(series), channels, length)
    for row, one in zip(padded, series, strict=True):
        row[:, : one.shape[1]] = one[:, :length]
    return padded
