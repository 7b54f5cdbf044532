"""What every image data module shares: attributes, split, loaders."""

from functools import partial

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from lit_xai.data.augmentation import crop_and_flip
from lit_xai.data.split import split_indices
from lit_xai.data.tensor_images import TensorImages


class ImageDataModule(LightningDataModule):
    """Interface of the image data modules; a data set fills in the class attributes and :meth:`read`.

    Batches are ``(x, y)``: images ``(N, C, H, W)`` as float32, normalised, and labels ``(N,)`` as int64.

    Args:
        batch_size: images per batch (and per process).
        val_size: how many training images to validate on instead; a float is a fraction.
        train_size: how many of the others to train on; a float is a fraction of them.
        normalize: whether to subtract the data set's mean and divide by its standard deviation, per channel;
            otherwise pixels lie between 0 and 1.
        augment: whether training images are randomly shifted by up to an eighth of their height (and mirrored, where
            a mirrored image still belongs to its class).
        num_workers: processes that load batches; the images are in memory, so 0 is mostly the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Attributes:
        mean: per channel, what is subtracted from pixels between 0 and 1 (zeros without ``normalize``).
        std: per channel, what they are then divided by (ones without ``normalize``).
        class_names: one name per label.
        num_classes: their number.
        input_shape: of one image, ``(C, H, W)``.

    Raises:
        ValueError: if an argument is out of range.
    """

    class_names: list[str]
    input_shape: tuple[int, int, int]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    pixel_max: int = 255
    flip: bool = False

    def __init__(
        self,
        batch_size: int = 128,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        normalize: bool = True,
        augment: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check_int("batch_size", batch_size, 1)
        _check_int("num_workers", num_workers, 0)
        _check_int("seed", seed, 0, 2**32 - 1)
        self.batch_size = batch_size
        self.val_size = val_size
        self.train_size = train_size
        self.augment = augment
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.seed = seed
        channels = self.input_shape[0]
        self.mean = self.pixel_mean if normalize else (0.0,) * channels
        self.std = self.pixel_std if normalize else (1.0,) * channels
        self.train_dataset: TensorImages | None = None
        self.val_dataset: TensorImages | None = None
        self.test_dataset: TensorImages | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return all training or all test images, uint8 ``(N, C, H, W)``, and their labels ``(N,)``."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once."""
        if stage not in ("test", "predict") and self.train_dataset is None:
            images, targets = self.read(train=True)
            train, val = split_indices(len(images), self.val_size, self.train_size, self.seed)
            if self.drop_last and len(train) < self.batch_size:
                raise ValueError(
                    f"`drop_last=True` leaves no training batch: `batch_size` must be at most the number of training"
                    f" images ({len(train)}), but got {self.batch_size}."
                )
            self.train_dataset = self._dataset(images[train], targets[train], augment=self.augment)
            self.val_dataset = self._dataset(images[val], targets[val])
        if stage not in ("fit", "validate") and self.test_dataset is None:
            self.test_dataset = self._dataset(*self.read(train=False))

    def _dataset(self, images: Tensor, targets: Tensor, augment: bool = False) -> TensorImages:
        shift = partial(crop_and_flip, padding=images.shape[2] // 8, flip=self.flip) if augment else None
        return TensorImages(images, targets, self.mean, self.std, self.pixel_max, shift)

    def train_dataloader(self) -> DataLoader:
        """Training images, in a new random order every epoch."""
        return self._loader(self.train_dataset, shuffle=True, drop_last=self.drop_last)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation images; no loader with ``val_size=0``, so that Lightning skips validation."""
        return [] if self.val_dataset is not None and not len(self.val_dataset) else self._loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        """Test images."""
        return self._loader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader:
        """Test images."""
        return self._loader(self.test_dataset)

    def _loader(self, dataset: TensorImages | None, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        if dataset is None:
            raise MisconfigurationException(
                f"The images of {type(self).__name__} are not read yet: call `prepare_data()` and `setup()` first,"
                " or pass the data module to a Trainer."
            )
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            collate_fn=dataset.collate_fn,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
        )


def _check_int(name: str, value: int, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        allowed = f"of at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"`{name}` must be an integer {allowed}, but got {value!r}.")
