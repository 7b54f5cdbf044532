"""What figures and files may hold of samples, and what a renderer gets where it must not see them."""

from __future__ import annotations

import numpy as np
import torch

from lit_xai.render.shares import ArrayLike

SAMPLES = ("show", "maps_only", "none")
"""Samples and their maps, their maps alone, or neither."""

LEFT_OUT = {
    "maps_only": "inputs, and baselines made of samples, are left out of figures and files (samples='maps_only').",
    "none": "inputs, maps and figures are left out, and numbers alone are written (samples='none').",
}
"""What is left out, in words."""


def blank(inputs: ArrayLike) -> ArrayLike:
    """Return zeros in the place of inputs, of their shape and dtype: what any renderer can draw and none can leak.

    Args:
        inputs: of a network, ``(N, ...)``.

    Example:
        >>> blank(torch.tensor([[3, 1]]))
        tensor([[0, 0]])
    """
    return torch.zeros_like(inputs) if isinstance(inputs, torch.Tensor) else np.zeros_like(inputs)
