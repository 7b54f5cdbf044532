"""Find which values of a network a change kept: positions stand in for values, so that the kept ones identify
themselves.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def named_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the floating parameters and buffers of modules by name, a shared one under each of its names."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, module in modules.items()
        for held in (module._parameters, module._buffers)
        for name, value in held.items()
        if value is not None and value.is_floating_point()
    }


def positions_like(values: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield tensors shaped like the values that hold flat positions, exact in float64; do not write to them."""
    places: dict[torch.device, Tensor] = {}
    for value in values:
        if value.device not in places or len(places[value.device]) < value.numel():
            # Shared by all tensors of a device: one as large as the largest is enough.
            places[value.device] = torch.arange(value.numel(), dtype=torch.float64, device=value.device)
        yield places[value.device][: value.numel()].view(value.shape)


def kept_indices(positions: Tensor, shape: torch.Size) -> Iterator[tuple[int, tuple[int, list[int]]]]:
    """Yield, for each dimension that became shorter, its former size and the kept indices in ascending order.

    Sorted, because Torch-Pruning 1.6 keeps the right indices of a LayerNorm in the arbitrary order of a Python set.
    """
    for dim, size in enumerate(shape):
        if positions.shape[dim] != size:
            # One line through the tensor is enough: all values of a slice have the same index in this dimension.
            along = positions[tuple(slice(None) if d == dim else 0 for d in range(positions.dim()))]
            stride = math.prod(shape[dim + 1 :])
            yield dim, (size, sorted(int(place) // stride % size for place in along.tolist()))


def changed_attributes(before: Mapping[str, dict[str, Any]], after: Mapping[str, dict[str, Any]]) -> list[list[Any]]:
    """Return ``[module, attribute, old, new]`` for each integer or tuple of integers that differs."""
    return [
        [name, attribute, _plain(old), _plain(after[name][attribute])]
        for name, attributes in before.items()
        for attribute, old in attributes.items()
        # Sizes, such as out_channels and normalized_shape; a bool is a flag, which no cut changes.
        if isinstance(old, (int, tuple)) and not isinstance(old, bool) and after[name].get(attribute) != old
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
