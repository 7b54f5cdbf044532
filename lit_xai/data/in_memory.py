"""The base of data modules in memory: sizes, stages, loaders."""

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lit_xai.data.tensor_rows import TensorRows
from lit_xai.network.check import check_integer, refusal


class InMemoryDataModule(LightningDataModule):
    """Interface of data modules whose samples fit in memory, where a batch is one indexing operation.

    A subclass implements :meth:`training_datasets` and :meth:`testing_dataset`; images and tables have bases of their
    own, :class:`~lit_xai.data.ImageDataModule` and :class:`~lit_xai.data.TableDataModule`.

    Args:
        batch_size: samples per batch (and per process).
        val_size: number of training samples held out for validation; a float is a fraction.
        train_size: number of the remaining ones to train on; a float is a fraction of them.
        num_workers: processes that load batches; the data is in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Attributes:
        class_names: one name per label.
        num_classes: their number.

    Raises:
        ValueError: an argument is out of range.
    """

    class_names: list[str]

    def __init__(
        self,
        batch_size: int = 128,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # collects the arguments of every subclass' constructor too
        self.batch_size = check_integer("batch_size", batch_size)
        self.val_size = val_size
        self.train_size = train_size
        self.num_workers = check_integer("num_workers", num_workers, 0)
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        # The range of NumPy's RandomState, which draws the split.
        self.seed = check_integer("seed", seed, 0, 2**32 - 1)
        self.train_dataset: TensorRows | None = None
        self.val_dataset: TensorRows | None = None
        self.test_dataset: TensorRows | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def training_datasets(self) -> tuple[TensorRows, TensorRows]:
        """Return the samples to train on and those to validate on; called once."""
        raise NotImplementedError

    def testing_dataset(self) -> TensorRows:
        """Return the samples to test on; called once."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once."""
        # A stage of None, as in setup() without a Trainer, reads everything.
        if stage not in ("test", "predict") and self.train_dataset is None:
            train, val = self.training_datasets()
            if self.drop_last and len(train) < self.batch_size:
                expected = f"an integer from 1 to {len(train)}, the number of training samples, with drop_last=True"
                raise refusal("batch_size", expected, self.batch_size)
            self.train_dataset, self.val_dataset = train, val
        if stage not in ("fit", "validate") and self.test_dataset is None:
            self.test_dataset = self.testing_dataset()

    def train_dataloader(self) -> DataLoader:
        """Training samples, in a new random order every epoch."""
        dataset = self._read(self.train_dataset)
        return self._loader(dataset, shuffle=True, drop_last=self.drop_last)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation samples; no loader with ``val_size=0``, so that Lightning skips validation."""
        dataset = self._read(self.val_dataset)
        return self._loader(dataset) if len(dataset) else []

    def test_dataloader(self) -> DataLoader:
        """Test samples."""
        return self._loader(self._read(self.test_dataset))

    def predict_dataloader(self) -> DataLoader:
        """Test samples."""
        return self.test_dataloader()

    def _read(self, dataset: TensorRows | None) -> TensorRows:
        if dataset is None:
            raise MisconfigurationException(
                f"The data of {type(self).__name__} has not been read yet: call `prepare_data()` and `setup()` first,"
                " or pass the data module to a Trainer."
            )
        return dataset

    def _loader(self, dataset: TensorRows, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            collate_fn=dataset.collate_fn,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,  # starting a worker takes longer than an epoch in memory
            pin_memory=self.pin_memory,
        )
