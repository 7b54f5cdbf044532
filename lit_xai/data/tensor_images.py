"""Images in memory, read as normalized batches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_xai.data.tensor_rows import TensorRows


class TensorImages(TensorRows):
    r"""Images held as bytes, normalized a batch at a time: :math:`(x / x_{max} - mean) / std`, per channel.

    Args:
        images: ``(N, C, H, W)``, uint8.
        targets: ``(N,)``, class labels, kept as int64.
        mean: one value per channel, in units of pixels between 0 and 1.
        std: one value per channel, in the same units.
        pixel_max: the byte that stands for a pixel of 1.
        augment: maps a batch of bytes ``(N, C, H, W)`` to another of the same shape, before normalization.

    Raises:
        ValueError: the images are not bytes of that shape, or the other arguments do not fit them.

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
            raise ValueError(f"images expected uint8 (N, C, H, W), but got {images.dtype} {tuple(images.shape)}.")
        if targets.shape != images.shape[:1]:
            raise ValueError(
                f"targets expected one label per image, but got shape {tuple(targets.shape)} for {len(images)} images."
            )
        channels = images.shape[1]
        if len(mean) != channels or len(std) != channels:
            raise ValueError(f"mean and std expected {channels} values (channels), but got {mean} and {std}.")
        super().__init__(images, targets.to(torch.int64))
        self.augment = augment
        # In units of the stored bytes, so that a batch takes one subtraction and one division.
        self._offset = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1) * pixel_max
        self._scale = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1) * pixel_max

    @property
    def images(self) -> Tensor:
        """The images as they are stored, uint8 ``(N, C, H, W)``."""
        return self.inputs

    def prepare(self, inputs: Tensor) -> Tensor:
        """Augment and normalize bytes ``(N, C, H, W)``."""
        if self.augment is not None:
            inputs = self.augment(inputs)
        return inputs.to(torch.float32).sub_(self._offset).div_(self._scale)
