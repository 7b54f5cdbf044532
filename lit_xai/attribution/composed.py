"""Normalizations and attention written in functions of one number, products and maxima, with torch's signatures."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def softmax(x: Tensor, dim: int | None = None, *_: Any, **options: Any) -> Tensor:
    """Compute ``torch.softmax``.

    Example:
        >>> softmax(torch.tensor([[0.0, 0.0]]), 1)
        tensor([[0.5000, 0.5000]])
    """
    if options.get("dtype") is not None:
        x = x.to(options["dtype"])
    dim = _implicit_dim(x) if dim is None else dim
    powers = (x - x.amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)


def log_softmax(x: Tensor, dim: int | None = None, *_: Any, **options: Any) -> Tensor:
    """Compute ``torch.log_softmax``.

    Example:
        >>> log_softmax(torch.tensor([[0.0, 0.0]]), 1)
        tensor([[-0.6931, -0.6931]])
    """
    if options.get("dtype") is not None:
        x = x.to(options["dtype"])
    return x - logsumexp(x, _implicit_dim(x) if dim is None else dim, keepdim=True)


def logsumexp(x: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Compute ``torch.logsumexp``.

    Example:
        >>> logsumexp(torch.zeros(1, 2), 1)
        tensor([0.6931])
    """
    most = x.amax(dim, keepdim=True)
    found = most + (x - most).exp().sum(dim, keepdim=True).log()
    return found if keepdim else found.squeeze(dim)


def div(x: Any, y: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Compute ``torch.div``: a division by data is a product with the reciprocal.

    Example:
        >>> div(torch.tensor(3.0), torch.tensor(2.0))
        tensor(1.5000)
    """
    if rounding_mode is not None:
        return {"floor": torch.floor, "trunc": torch.trunc}[rounding_mode](div(x, y))
    return x * (y.reciprocal() if isinstance(y, Tensor) else 1 / y)


def norm(x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    """Compute ``torch.norm`` of vectors.

    Example:
        >>> norm(torch.tensor([[3.0, 4.0]]), dim=1)
        tensor([5.])
    """
    p = options.get("ord", p)  # of torch.linalg.vector_norm
    order = 2.0 if p in ("fro", None) else float(p)
    dims = tuple(range(x.dim())) if dim is None else dim
    if math.isinf(order):
        return x.abs().amax(dims, keepdim)
    if order == 2:
        return x.square().sum(dims, keepdim).sqrt()
    return x.abs().pow(order).sum(dims, keepdim).pow(1 / order)


def layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Compute ``torch.nn.functional.layer_norm``.

    Example:
        >>> layer_norm(torch.tensor([[1.0, 3.0]]), (2,))
        tensor([[-1.0000,  1.0000]])
    """
    return _affine(_standardized(x, tuple(range(-len(shape), 0)), eps), weight, bias)


def rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Compute ``torch.nn.functional.rms_norm``.

    Example:
        >>> rms_norm(torch.tensor([[2.0, 2.0]]), (2,))
        tensor([[1., 1.]])
    """
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(x * (x.square().mean(tuple(range(-len(shape), 0)), keepdim=True) + eps).rsqrt(), weight, None)


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Compute ``torch.nn.functional.group_norm``.

    Example:
        >>> group_norm(torch.tensor([[[1.0], [3.0]]]), 1).flatten()
        tensor([-1.0000,  1.0000])
    """
    grouped = x.reshape(len(x), groups, -1)
    return _affine_by_channel(_standardized(grouped, (2,), eps).reshape(x.shape), weight, bias)


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Compute ``torch.nn.functional.instance_norm``.

    Example:
        >>> instance_norm(torch.tensor([[[1.0, 3.0]]])).flatten()
        tensor([-1.0000,  1.0000])
    """
    if use_input_stats or running_mean is None or running_var is None:
        return group_norm(x, x.shape[1], weight, bias, eps)
    return torch.nn.functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)


def glu(x: Tensor, dim: int = -1) -> Tensor:
    """Compute ``torch.nn.functional.glu``.

    Example:
        >>> glu(torch.tensor([[4.0, 0.0]]))
        tensor([[2.]])
    """
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute ``torch.nn.functional.scaled_dot_product_attention``.

    Example:
        >>> x = torch.ones(1, 2, 3)
        >>> torch.equal(scaled_dot_product_attention(x, x, x), x)
        True
    """
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_bool else scores + attn_mask
    return torch.nn.functional.dropout(softmax(scores, -1), dropout_p) @ value


def _standardized(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centered = x - x.mean(dims, keepdim=True)
    return centered * (centered.square().mean(dims, keepdim=True) + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _affine_by_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *(1 for _ in x.shape[2:]))
    return _affine(x, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape))


def _implicit_dim(x: Tensor) -> int:
    # torch's own choice where none is given, with a warning
    return 0 if x.dim() in (0, 1, 3) else 1


COMPOSED: dict[str, Callable[..., Tensor]] = {
    **{"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp, "div": div, "divide": div},
    **{"true_divide": div, "norm": norm, "linalg_vector_norm": norm, "layer_norm": layer_norm, "rms_norm": rms_norm},
    **{"group_norm": group_norm, "instance_norm": instance_norm, "glu": glu},
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
"""By torch's names."""
