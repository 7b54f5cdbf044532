"""The similarity of two explanations of one sample."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def maps_of(attributions: Mapping[str, Tensor], is_layer: bool = False, whole: bool = False) -> Tensor:
    """Return attributions as one row of numbers per sample, in which positions stand for places of the input.

    Channels of images and widths of embeddings are summed: a pruned layer has fewer of them, and what a pixel or a
    token counts for is their sum.

    Args:
        attributions: by input, ``(N, ...)`` each, as :class:`~lit_xai.attribution.explanation.Explanation` has them.
        is_layer: whether they belong to a layer's activations: of ``(N, T, E)`` the width comes last.
        whole: whether they have no row per sample, and make one row together.

    Returns:
        ``(N, D)`` in double precision, on the CPU.

    Example:
        >>> maps_of({"": torch.ones(2, 3, 4, 4)}).shape, maps_of({"": torch.ones(2, 5, 8)}, is_layer=True).shape
        (torch.Size([2, 16]), torch.Size([2, 5]))
    """
    rows = []
    for values in attributions.values():
        values = values.detach().cpu().double()
        if whole:
            values = values[None]
        elif values.dim() > 3:
            values = values.sum(1)
        elif values.dim() == 3 and is_layer:
            values = values.sum(2)
        rows.append(values.reshape(len(values), -1))
    return torch.cat(rows, 1)


def signed_cosine(one: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the cosine of each pair of maps, 1 for equal ones and -1 for opposite ones.

    Args:
        one: ``(N, D)``.
        other: ``(N, D)``.
        mask: ``(N, D)``, False where there is nothing to explain, such as padding.

    Returns:
        ``(N,)``. A map of zeros explains nothing: it has 0 with any other map, and two of them have 1.

    Example:
        >>> signed_cosine(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[-2.0, 0.0], [1.0, 0.0]]))
        tensor([-1.,  0.], dtype=torch.float64)
    """
    one, other = (_masked(values, mask) for values in (one, other))
    # Scaled by the largest element first: squares of small attributions would vanish.
    one, other = (values / values.abs().amax(1, keepdim=True).clamp(min=_TINY) for values in (one, other))
    sizes = one.norm(dim=1) * other.norm(dim=1)
    cosine = (one * other).sum(1) / sizes.clamp(min=_TINY)
    return torch.where(is_zero(one) & is_zero(other), 1.0, cosine.clamp(-1, 1))


def signed_rank_correlation(one: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return Spearman's rank correlation of each pair of maps, in which the sign of attributions counts.

    Args:
        one: ``(N, D)``.
        other: ``(N, D)``.
        mask: as for :func:`signed_cosine`.

    Returns:
        ``(N,)``, with the same rule for maps of zeros; a map of one other value everywhere has no ranks, and 0.

    Example:
        >>> signed_rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 4.0, 9.0]])).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """
    rows = []
    for row, (a, b) in enumerate(zip(one.double(), other.double(), strict=True)):
        kept = slice(None) if mask is None else mask[row].bool()
        a, b = a[kept], b[kept]
        if a.any() and b.any():
            # Centred ranks of one value everywhere are zeros, which have no direction.
            ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (a, b)]
            rows.append(signed_cosine(ranks[0][None], ranks[1][None])[0] if ranks[0].any() else a.new_zeros(()))
        else:
            rows.append(a.new_tensor(float(not a.any() and not b.any())))
    return torch.stack(rows) if rows else one.new_zeros(0).double()


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 0, the mean of theirs for equal values."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return ((last + last - counts - 1).double() / 2)[inverse]


_TINY = 1e-300
"""Smaller than any number but 0 that attributions hold."""


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    values = values.double()
    return values if mask is None else values * mask.to(values)


def is_zero(maps: Tensor) -> Tensor:
    """Return which maps ``(N, D)`` are zero everywhere.

    Example:
        >>> is_zero(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        tensor([ True, False])
    """
    return ~maps.bool().any(1)


SIMILARITIES: dict[str, Callable[..., Tensor]] = {"cosine": signed_cosine, "rank": signed_rank_correlation}
