"""Random crops, flips and brightness of a whole batch in one operation."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def crop_and_flip(images: Tensor, padding: int, flip: bool = False) -> Tensor:
    """Pad each image with black, cut a window of the original size at a random place, and mirror half of them.

    The augmentation of He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2. It draws from
    torch's global generator, which ``seed_everything`` and the ``DataLoader`` seed, in workers too.

    Args:
        images: ``(N, C, H, W)``, any dtype.
        padding: pixels added on each side, which is the largest shift.
        flip: whether each image is mirrored left to right with probability one half.

    Returns:
        ``(N, C, H, W)``, a new tensor.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> crop_and_flip(torch.ones(2, 1, 4, 4), padding=1).sum(dim=(1, 2, 3))
        tensor([9., 9.])
    """
    count, _, height, width = images.shape
    # A view of every possible window, from which one index operation takes one per image.
    windows = pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(0, 2 * padding + 1, (2, count))
    images = windows[torch.arange(count), :, top, left]
    if flip:
        mirrored = torch.nonzero(torch.rand(count) < 0.5).flatten()
        images[mirrored] = images[mirrored].flip(-1)
    return images


def darken(images: Tensor, share: float) -> Tensor:
    """Multiply a share of the images by a random factor between 0 (black) and 1 each.

    It draws from torch's global generator, like :func:`crop_and_flip`.

    Args:
        images: ``(N, C, H, W)``, black at 0, any dtype.
        share: the probability of each image, 0 to 1.

    Returns:
        ``(N, C, H, W)``, a new tensor of the same dtype.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> darken(torch.full((4, 1, 1, 1), 200, dtype=torch.uint8), share=0.5).flatten()
        tensor([ 99, 200,  18, 200], dtype=torch.uint8)
    """
    factors = torch.rand(len(images))
    factors = torch.where(torch.rand(len(images)) < share, factors, 1.0).view(-1, *[1] * (images.dim() - 1))
    dimmed = images * factors
    return dimmed.to(images.dtype) if images.is_floating_point() else dimmed.round().to(images.dtype)
