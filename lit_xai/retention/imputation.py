"""Noisy linear imputation: fill removed pixels of images with the weighted means of their neighbours.

A pixel set to one color is an edge that the network never saw in training, and what it answers then is about the edge.
Y. Rong et al. 2022, A Consistent and Efficient Evaluation Strategy for Attribution Methods,
https://arxiv.org/abs/2202.00449.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_xai.network.describing import describe

_MOST_ITERATIONS = 2000
_BETWEEN_CHECKS = 4  # each check waits for the device


def impute(images: Tensor, removed: Tensor, noise: Tensor | None = None, *, tolerance: float = 1e-4) -> Tensor:
    """Return images with removed pixels as the weighted means of their eight neighbours.

    The four next to a pixel weigh twice as much as the four diagonal ones; at the border the missing ones are left out
    of the mean. Neighbours may be removed too, so this is one linear system for each image, whose channels share the
    matrix. It is symmetric and positive definite, and is solved for all images at once by conjugate gradients, without
    writing down a matrix.

    Args:
        images: ``(N, C, H, W)``, of floats.
        removed: which pixels to fill, ``(N, H, W)``, the same in all channels.
        noise: what is added to them, ``(N, C, H, W)``; the paper draws it with a standard deviation of 0.01, since a
            network could tell pixels without noise by their smoothness.
        tolerance: the root mean square of the residual at which to stop, in standard deviations of the image.

    Returns:
        ``(N, C, H, W)``; pixels that were not removed are those of ``images``.

    Raises:
        ValueError: the shapes do not fit, or nothing is left of an image.

    Example:
        >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> middle = torch.zeros(1, 3, 3, dtype=torch.bool)
        >>> middle[0, 1, 1] = True
        >>> impute(image + 9 * middle, middle)[0, 0]
        tensor([[0., 1., 2.],
                [3., 4., 5.],
                [6., 7., 8.]])
    """
    gone = _check(images, removed)[:, None]
    free = gone.to(images.dtype)
    known = images * (1 - free)
    filled = _solve(known, free, _guess(known, 1 - free), tolerance * _spread(images))
    return torch.where(gone, filled if noise is None else filled + noise, images)


def _check(images: Tensor, removed: Tensor) -> Tensor:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(f"images expected floats (N, C, H, W), but got {describe(images)}.")
    if removed.dtype != torch.bool or removed.shape != (len(images), *images.shape[2:]):
        shape = (len(images), *images.shape[2:])
        raise ValueError(f"removed expected booleans of shape {shape}, but got {describe(removed)}.")
    if removed.flatten(1).all(1).any():
        raise ValueError("removed expected one or more pixels left of each image, but got all of an image.")
    return removed


def _spread(images: Tensor) -> Tensor:
    """Return the standard deviation of each image, ``(N, 1, 1, 1)``; of a constant one a thousandth of its value."""
    means, squares = (part.mean((1, 2, 3), keepdim=True) for part in (images, images.square()))
    smallest = 1e-6 * squares.clamp(min=torch.finfo(images.dtype).tiny)
    return torch.maximum(squares - means.square(), smallest).sqrt()


def _guess(known: Tensor, left: Tensor) -> Tensor:
    """Return a first guess of every pixel: the mean of what is left in the smallest block around it that has any."""
    if max(known.shape[2:]) == 1:
        return known / left
    sums, shares = (F.avg_pool2d(part, 4, ceil_mode=True, count_include_pad=False) for part in (known, left))
    means = torch.where(shares > 0, sums / shares.clamp(min=1e-9), _guess(sums, shares))
    return F.interpolate(means, scale_factor=4)[..., : known.shape[2], : known.shape[3]]


def _solve(known: Tensor, free: Tensor, guess: Tensor, tolerance: Tensor) -> Tensor:
    """Solve for the free pixels by conjugate gradients, each channel of each image by itself.

    Args:
        known: ``(N, C, H, W)``, 0 where pixels are free.
        free: 1 where they are, ``(N, 1, H, W)``.
        guess: where to begin.
        tolerance: of the residual's root mean square, ``(N, 1, 1, 1)``.
    """
    grid = _Grid(known)
    known, free, guess = (grid.flat(part) for part in (known, free, guess))
    # The pixel's own weight: those of the neighbours that it has. The sums also hold a third of the pixel itself.
    own = free * grid.smooth(grid.framed(grid.flat(known.new_ones(())))) / 12

    def residual_of(values: Tensor, framed: Tensor) -> Tensor:
        return (own * values).addcmul_(grid.smooth(framed), free, value=-1 / 12)

    solution = guess * free
    residual = -residual_of(solution, grid.framed(solution + known))
    framed = grid.framed(residual)
    direction = grid.inner(framed)
    size = _dot(residual, residual)
    enough = tolerance.square().expand(-1, grid.channels, 1, 1).reshape(-1, 1) * free.sum(1, keepdim=True)
    for iteration in range(_MOST_ITERATIONS):
        if iteration % _BETWEEN_CHECKS == 0 and bool((size <= enough).all()):
            break
        changed = residual_of(direction, framed)
        # A solved system has a direction of 0, and stays as it is.
        step = size / _dot(direction, changed).clamp(min=1e-30)
        solution.addcmul_(step, direction)
        residual.addcmul_(step, changed, value=-1)
        before, size = size, _dot(residual, residual)
        direction.mul_(size / before.clamp(min=1e-30)).add_(residual)
    return grid.images(solution)


class _Grid:
    """All channels of all images in one vector, with a column and a row of zeros between them.

    The neighbours of a pixel are then at the same distances everywhere, and sums over them run through memory in order.
    """

    def __init__(self, images: Tensor) -> None:
        self.shape, self.channels = images.shape, images.shape[1]
        self._row = images.shape[3] + 1
        self._margin = self._row + 1

    def flat(self, images: Tensor) -> Tensor:
        """Return ``(N, C, H, W)``, or what broadcasts to it, as ``(N * C, (H + 1) * (W + 1))``."""
        return F.pad(images.expand(self.shape), (0, 1, 0, 1)).reshape(self.shape[0] * self.channels, -1)

    def images(self, flat: Tensor) -> Tensor:
        """Undo :meth:`flat`."""
        height, width = self.shape[2:]
        return flat.reshape(*self.shape[:2], height + 1, width + 1)[..., :height, :width]

    def framed(self, flat: Tensor) -> Tensor:
        """Return a copy as one vector with zeros at both ends, for the neighbours of its ends."""
        return F.pad(flat.reshape(-1), (self._margin, self._margin))

    def inner(self, framed: Tensor) -> Tensor:
        """Return the view of what is between these ends."""
        return framed[self._margin : -self._margin].view(self.shape[0] * self.channels, -1)

    def smooth(self, framed: Tensor) -> Tensor:
        """Return sums over 3 x 3 pixels with weights 1, 2, 1 in both directions.

        Over 12 these are the weights of the neighbours, and 4 / 12 of the pixel itself.
        """
        row = self._row
        sums = (framed[: -2 * row] + framed[2 * row :]).add_(framed[row:-row], alpha=2)
        return (sums[:-2] + sums[2:]).add_(sums[1:-1], alpha=2).view(self.shape[0] * self.channels, -1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)  # batched matrix products of single rows take eight times as long
