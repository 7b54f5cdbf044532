"""Short descriptions of batches and outputs, for messages."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_xai.network.arguments import Arguments
from lit_xai.network.trees import leaves


def describe(value: Any) -> str:
    """Describe the structure of a batch or an output in a few words.

    Example:
        >>> import torch
        >>> describe({"image": torch.zeros(8, 3), "id": ["a", "b"]})
        'dict(image: Tensor[8, 3] float32, id: list(2 of str))'
    """
    if isinstance(value, Tensor):
        return f"Tensor{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Arguments):
        named = [f"{key}: {describe(part)}" for key, part in value.kwargs.items()]
        return f"({', '.join([*map(describe, value.args), *named])})"
    if isinstance(value, Mapping):
        return f"{type(value).__name__}({', '.join(f'{k}: {describe(v)}' for k, v in value.items())})"
    if isinstance(value, (tuple, list)) and any(isinstance(v, Mapping) or _holds_tensors(v) for v in value):
        return f"{type(value).__name__}({', '.join(describe(v) for v in value)})"
    if isinstance(value, (tuple, list)) and value:
        return f"{type(value).__name__}({len(value)} of {type(value[0]).__name__})"
    parts = ", ".join(f"{path}: {describe(part)}" for path, part in leaves(value))
    return f"{type(value).__name__}({parts})" if parts else type(value).__name__


def _holds_tensors(value: Any) -> bool:
    return any(True for _ in leaves(value))
