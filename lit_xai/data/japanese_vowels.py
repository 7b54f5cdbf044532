"""Utterances of nine speakers, as series of coefficients."""

from pathlib import Path

from lit_xai.data.local_files import LocalFiles
from lit_xai.data.series import Series, SeriesDataModule
from lit_xai.data.ts_files import read_ts


class JapaneseVowels(LocalFiles, SeriesDataModule):
    """640 utterances of two vowels by nine speakers, 370 of them for the test: who speaks?

    M. Kudo, J. Toyama and M. Shimbo, "Multidimensional Curve Classification Using Passing-Through Regions" (1999), as
    the UEA archive publishes them. A sample is 7 to 29 frames of 12 coefficients of a linear prediction of the sound,
    padded to ``length``. The two ``.ts`` files belong in the folder ``japanese-vowels`` of ``data_dir``.

    Args:
        data_dir: the folder that holds the dataset's own folder, or that folder itself.
        length: frames of every series in a batch; shorter ones are padded, longer ones cut at their end.
        batch_size: utterances per batch (and per process).
        val_size: number of training utterances held out for validation; a float is a fraction.
        train_size: number of the remaining ones to train on; a float is a fraction of them.
        normalize: whether to normalize each coefficient with the training utterances' statistics.
        num_workers: processes that load batches; the data is in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: an argument is out of range, or a file is not the published one.

    Example:
        >>> vowels = JapaneseVowels(data_dir="data")
        >>> vowels.num_classes, vowels.class_names[0], vowels.feature_names[11]
        (9, 'speaker 1', 'LPC 12')
    """

    class_names = [f"speaker {i}" for i in range(1, 10)]
    feature_names = [f"LPC {i}" for i in range(1, 13)]
    folder = "japanese-vowels"
    published = "the Python package aeon holds them, in aeon/datasets/data/JapaneseVowels"
    checksums = {
        "JapaneseVowels_TRAIN.ts": "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
        "JapaneseVowels_TEST.ts": "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
    }

    def __init__(
        self,
        data_dir: str | Path = "data",
        length: int = 29,
        batch_size: int = 32,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        normalize: bool = True,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        data_dir = str(data_dir)  # a Path among the hyperparameters would not load with `weights_only=True`
        super().__init__(length, batch_size, val_size, train_size, normalize, num_workers, pin_memory, drop_last, seed)
        self.data_dir = data_dir

    def read(self, train: bool) -> Series:
        """Return the training or the test utterances."""
        found = read_ts(self.directory / f"JapaneseVowels_{'TRAIN' if train else 'TEST'}.ts")
        return Series(found.series, found.labels)
