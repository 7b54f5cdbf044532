"""Handwritten digits that are part of scikit-learn."""

import torch
from torch import Tensor

from lit_xai.data.images import ImageDataModule

_TEST_IMAGES = 360


class Digits(ImageDataModule):
    """1797 handwritten digits of 8 x 8 pixels and 17 gray levels, part of scikit-learn: nothing to download.

    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998).
    scikit-learn has no test set of them; here it is the last fifth (360 images). They are not shuffled first: digits of
    one writer are neighbors, and the test should be on writers not trained on. Arguments and errors are those of
    :class:`~lit_xai.data.images.ImageDataModule`.

    Example:
        >>> digits = Digits(batch_size=32)
        >>> digits.setup("fit")
        >>> x, y = next(iter(digits.train_dataloader()))
        >>> x.shape, x.dtype, y.shape, y.dtype
        (torch.Size([32, 1, 8, 8]), torch.float32, torch.Size([32]), torch.int64)
        >>> digits.num_classes, digits.input_shape, digits.mean
        (10, (1, 8, 8), (0.3054,))
    """

    class_names = [str(digit) for digit in range(10)]
    input_shape = (1, 8, 8)
    pixel_mean = (0.3054,)
    pixel_std = (0.3755,)
    pixel_max = 16

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the training or the test images, uint8 ``(N, 1, 8, 8)`` between 0 and 16, and their labels."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        part = slice(None, -_TEST_IMAGES) if train else slice(-_TEST_IMAGES, None)
        # scikit-learn stores whole numbers from 0 to 16 as float64.
        images = torch.from_numpy(digits.images[part]).to(torch.uint8)
        return images.unsqueeze(1), torch.from_numpy(digits.target[part]).to(torch.int64)
