"""Samples per second of batched reading against per-sample collation, normalisation on, one thread.

Both read the same dataset through a ``DataLoader`` in the main process; the slower way hides ``__getitems__``, so that
torch fetches each sample and stacks them. Runs alternate, figures are medians of epochs, the ratio is the median of the
ratios of neighbouring runs. Ends with an error where batched reading is not at least 2.5 times as fast.
"""

import sys
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch.utils.data import DataLoader, Dataset

from lit_xai.data import CIFAR10, MNIST, Digits, ImageDataModule, TensorImages
from lit_xai.data.augmentation import crop_and_flip

IMAGES, BATCH_SIZE, RUNS, REQUIRED = 6_400, 128, 11, 2.5


class PerSample(Dataset):
    """The same samples, one at a time."""

    def __init__(self, dataset: TensorImages) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.dataset[index]


def images_of(data: type[ImageDataModule], augment: bool) -> TensorImages:
    """Random bytes in the shape and with the constants of a dataset: the time does not depend on the pixels."""
    channels, height, width = data.input_shape
    images = torch.randint(0, data.pixel_max + 1, (IMAGES, channels, height, width), dtype=torch.uint8)
    move = partial(crop_and_flip, padding=height // 8, flip=data.flip) if augment else None
    return TensorImages(images, torch.arange(IMAGES) % 10, data.pixel_mean, data.pixel_std, data.pixel_max, move)


def samples_per_second(loader: DataLoader) -> float:
    """One epoch."""
    start = perf_counter()
    count = sum(len(x) for x, _ in loader)
    return count / (perf_counter() - start)


def measure(dataset: TensorImages) -> tuple[float, float, float]:
    """Return the samples per second of both ways, and how many times as fast batches are."""
    single = DataLoader(PerSample(dataset), BATCH_SIZE, shuffle=True)
    batched = DataLoader(dataset, BATCH_SIZE, shuffle=True, collate_fn=dataset.collate_fn)
    samples_per_second(single), samples_per_second(batched)  # warm-up
    runs = [(samples_per_second(single), samples_per_second(batched)) for _ in range(RUNS)]
    slow, fast = zip(*runs, strict=True)
    return median(slow), median(fast), median(b / a for a, b in runs)


def main() -> None:
    """Print a row per dataset."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'':24}{'per sample':>14}{'batched':>14}{'ratio':>8}   (samples/s, batches of {BATCH_SIZE})")
    ratios = []
    for data in (Digits, MNIST, CIFAR10):
        for augment in (False, True):
            slow, fast, ratio = measure(images_of(data, augment))
            name = f"{data.__name__}{', augmented' if augment else ''}"
            print(f"{name:24}{slow:14,.0f}{fast:14,.0f}{ratio:8.1f}")
            ratios += [] if augment else [ratio]
    sys.exit(f"Batched reading must be at least {REQUIRED} times as fast." if min(ratios) < REQUIRED else 0)


if __name__ == "__main__":
    main()
