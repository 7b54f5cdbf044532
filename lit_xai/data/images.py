"""The base of image data modules: constants of the dataset, normalization, augmentation."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from lit_xai.data.augmentation import crop_and_flip, darken
from lit_xai.data.in_memory import InMemoryDataModule
from lit_xai.data.split import split_indices
from lit_xai.data.tensor_images import TensorImages
from lit_xai.network.check import is_number, refusal


class ImageDataModule(InMemoryDataModule):
    """Interface of the image data modules; a dataset sets the class attributes and implements :meth:`read`.

    Batches are ``(x, y)``: images ``(N, C, H, W)`` as float32, normalized, and labels ``(N,)`` as int64.

    Args:
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
        seed: seed of the split; the order of training batches follows ``seed_everything``.
        darken: the share of training images that are darkened, each by a random factor; 0 to 1.

    Attributes:
        mean: per channel, subtracted from pixels between 0 and 1 (zeros without ``normalize``).
        std: per channel, the divisor after that (ones without ``normalize``).
        class_names: one name per label.
        num_classes: their number.
        input_shape: of one image, ``(C, H, W)``.

    Raises:
        ValueError: an argument is out of range.
    """

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
        darken: float = 0.0,
    ) -> None:
        super().__init__(batch_size, val_size, train_size, num_workers, pin_memory, drop_last, seed)
        if not is_number(darken) or not 0 <= darken <= 1:
            raise refusal("darken", "a share of the training images, 0 to 1", darken)
        self.augment, self.darken = augment, darken
        channels = self.input_shape[0]
        self.mean = self.pixel_mean if normalize else (0.0,) * channels
        self.std = self.pixel_std if normalize else (1.0,) * channels

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return all training or all test images, uint8 ``(N, C, H, W)``, and their labels ``(N,)``."""
        raise NotImplementedError

    def training_datasets(self) -> tuple[TensorImages, TensorImages]:
        """Return the images to train on and those to validate on."""
        images, targets = self.read(train=True)
        train, val = split_indices(len(images), self.val_size, self.train_size, self.seed)
        return (
            self._dataset(images[train], targets[train], self._augmentations(images.shape[2])),
            self._dataset(images[val], targets[val]),
        )

    def testing_dataset(self) -> TensorImages:
        """Return the images to test on."""
        return self._dataset(*self.read(train=False))

    def _augmentations(self, height: int) -> Callable[[Tensor], Tensor] | None:
        shift = partial(crop_and_flip, padding=height // 8, flip=self.flip) if self.augment else None
        dim = partial(darken, share=self.darken) if self.darken else None
        if shift is not None and dim is not None:
            return partial(_both, first=shift, then=dim)
        return shift or dim

    def _dataset(
        self, images: Tensor, targets: Tensor, augment: Callable[[Tensor], Tensor] | None = None
    ) -> TensorImages:
        return TensorImages(images, targets, self.mean, self.std, self.pixel_max, augment)


def _both(images: Tensor, first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor]) -> Tensor:
    return then(first(images))  # a function of the module, for workers that are spawned
