"""Image data modules that read files."""

from pathlib import Path

from torch import Tensor

from lit_xai.data.data_files import DataFiles
from lit_xai.data.images import ImageDataModule


class ImageFilesDataModule(DataFiles, ImageDataModule):
    """Interface of image data modules that read files; a dataset sets attributes and implements :meth:`read_files`.

    Args:
        data_dir: the folder that holds the dataset's own folder, or that folder itself.
        batch_size: images per batch (and per process).
        val_size: number of training images held out for validation; a float is a fraction.
        train_size: number of the remaining ones to train on; a float is a fraction of them.
        normalize: whether to subtract the dataset's mean and divide by its standard deviation, per channel;
            otherwise pixels lie between 0 and 1.
        augment: whether training images are randomly shifted by up to an eighth of their height (and mirrored, where
            a mirrored image still belongs to its class).
        num_workers: processes that load batches; the images are in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        download: whether missing files are downloaded; they are checked against known checksums.
        url: address of the folder to download from, if it is not the dataset's public one.
        seed: seed of the split; the order of training batches follows ``seed_everything``.
        darken: the share of training images that are darkened, each by a random factor; 0 to 1.

    Raises:
        ValueError: an argument is out of range, or a file is damaged.
        FileNotFoundError: files are missing and ``download`` is off.
        OSError: a download fails.
    """

    def __init__(
        self,
        data_dir: str | Path = "data",
        batch_size: int = 128,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        normalize: bool = True,
        augment: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        download: bool = False,
        url: str | None = None,
        seed: int = 0,
        darken: float = 0.0,
    ) -> None:
        data_dir = str(data_dir)  # a Path among the hyperparameters would not load with `weights_only=True`
        self.place_files(data_dir, download, url)
        super().__init__(
            batch_size, val_size, train_size, normalize, augment, num_workers, pin_memory, drop_last, seed, darken
        )

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return all training or all test images, uint8 ``(N, C, H, W)``, and their labels ``(N,)``."""
        images, targets = self.read_files(train)
        part = f"The {'training' if train else 'test'} files in '{self.directory}'"
        if images.shape[1:] != self.input_shape or len(images) != len(targets):
            raise ValueError(
                f"{part} expected images of shape {self.input_shape} and as many labels, but got {len(images)} images"
                f" of shape {tuple(images.shape[1:])} and {len(targets)} labels: put the original files there."
            )
        if targets.max() >= self.num_classes:
            raise ValueError(
                f"{part} expected labels below {self.num_classes}, but got {int(targets.max())}:"
                " put the original files there."
            )
        return images, targets

    def read_files(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the content of the training or the test files: uint8 ``(N, C, H, W)`` and labels ``(N,)``."""
        raise NotImplementedError
