"""Images in memory, handed out as normalised batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate


class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    r"""Images held as bytes, normalised a batch at a time: :math:`(x / x_{max} - mean) / std`, per channel.

    A ``DataLoader`` asks ``__getitems__`` for a whole batch where a dataset has one, also behind the distributed
    sampler that Lightning injects; give it :meth:`collate_fn`, which passes the ready batch on.

    Args:
        images: ``(N, C, H, W)``, uint8.
        targets: ``(N,)``, class labels, kept as int64.
        mean: one value per channel, in units of pixels between 0 and 1.
        std: one value per channel, in the same units.
        pixel_max: the byte that stands for a pixel of 1.
        augment: maps a batch of bytes ``(N, C, H, W)`` to another of the same shape, before normalisation.

    Raises:
        ValueError: if the images are not bytes of that shape, or the other arguments do not fit them.

    Example:
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> dataset = TensorImages(images, torch.tensor([3, 7]), mean=[0.5], std=[0.25])
        >>> x, y = dataset.__getitems__([1, 0])
        >>> x.flatten().tolist(), y.tolist()
        ([2.0, -2.0], [7, 3])
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        pixel_max: int = 255,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"`images` must be uint8 (N, C, H, W), but got {images.dtype} {tuple(images.shape)}.")
        if targets.shape != images.shape[:1]:
            raise ValueError(
                f"`targets` must be one label per image, but got {tuple(targets.shape)} for {len(images)}."
            )
        channels = images.shape[1]
        if len(mean) != channels or len(std) != channels:
            raise ValueError(f"`mean` and `std` must have {channels} values (channels), but got {mean} and {std}.")
        self.images = images
        self.targets = targets.to(torch.int64)
        self.augment = augment
        # In units of the stored bytes, so that a batch takes one subtraction and one division.
        self._offset = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1) * pixel_max
        self._scale = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1) * pixel_max

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one image ``(C, H, W)``, normalised, and its label."""
        return self._ready(self.images[index, None])[0], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the images ``(N, C, H, W)``, normalised, and labels ``(N,)`` of a batch of indices."""
        index = torch.as_tensor(indices)
        # `index_select` copies whole images; `images[index]` copies byte by byte and takes four times as long.
        return self._ready(self.images.index_select(0, index)), self.targets.index_select(0, index)

    def _ready(self, images: Tensor) -> Tensor:
        if self.augment is not None:
            images = self.augment(images)
        return images.to(torch.float32).sub_(self._offset).div_(self._scale)

    @staticmethod
    def collate_fn(batch: Any) -> tuple[Tensor, Tensor]:
        """Pass a ready batch on; a list of single samples (``ConcatDataset`` asks one by one) is stacked."""
        return tuple(default_collate(batch)) if isinstance(batch, list) else batch
