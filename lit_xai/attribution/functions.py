"""The functions that DeepLift has rules for, and a call of one, taken apart.

Functions are known by torch's names, without the ``_`` of those that write to their argument: ``torch.relu``,
``Tensor.relu_`` and ``torch.nn.functional.relu`` compute the same.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.composed import COMPOSED

ONE_NUMBER = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
        *("hardtanh", "_threshold", "threshold", "rrelu", "prelu", "sigmoid", "log_sigmoid", "logsigmoid", "tanh"),
        *("softplus", "softsign", "hardshrink", "softshrink", "tanhshrink", "exp", "exp2", "expm1", "log", "log2"),
        *("log10", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "abs", "sin", "cos", "tan", "asin", "acos"),
        *("atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "erfc", "pow", "__rpow__", "__rdiv__", "clamp"),
        *("clamp_min", "clamp_max", "clip", "floor", "ceil", "round", "trunc", "sign", "frac"),
    }
)
PRODUCTS = frozenset(
    {
        *("mul", "multiply", "matmul", "__rmatmul__", "mm", "bmm", "mv", "dot", "einsum", "baddbmm", "addmm", "addbmm"),
        *("addcmul", "linear", "bilinear", "conv1d", "conv2d", "conv3d", "outer", "tensordot", "inner"),
    }
)
MAXIMA = frozenset(
    {
        *(f"{kind}max_pool{n}d{end}" for kind in ("", "adaptive_") for n in (1, 2, 3) for end in ("", "_with_indices")),
        *("max", "amax", "maximum", "fmax"),
    }
)
MINIMA = frozenset({"min", "amin", "minimum", "fmin"})
# Functions of torch.nn.functional whose bodies call nothing but functions that have a rule.
OPENED = frozenset(
    {"multi_head_attention_forward", "normalize", "softmin", "local_response_norm"}
    | {f"lp_pool{n}d" for n in (1, 2, 3)}
)

# Functions whose gradient is right as it stands, to keep them out of messages.
LINEAR = frozenset(
    {
        *("add", "sub", "__rsub__", "rsub", "neg", "negative", "positive", "mean", "sum", "cumsum", "cat", "stack"),
        *(
            "concat",
            "reshape",
            "view",
            "view_as",
            "reshape_as",
            "flatten",
            "unflatten",
            "ravel",
            "permute",
            "transpose",
        ),
        *("movedim", "swapaxes", "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "repeat_interleave", "tile"),
        *("chunk", "split", "unbind", "narrow", "select", "index_select", "gather", "__getitem__", "__get__", "roll"),
        *("flip", "rot90", "pad", "interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle", "unfold", "fold"),
        *("contiguous", "clone", "to", "float", "double", "half", "bfloat16", "type", "type_as", "copy_", "detach"),
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "batch_norm"),
        *(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
        *(f"conv_transpose{n}d" for n in (1, 2, 3)),
        *("dim", "size", "numel", "stride", "is_contiguous", "__len__", "is_floating_point", "requires_grad_", "item"),
        *("is_inference", "__bool__", "__float__", "__int__", "as_tensor", "data_ptr", "element_size", "tolist"),
        *("embedding", "masked_fill", "tril", "triu", "diagonal", "channel_shuffle", "zero_", "fill_"),
    }
)

RULED = ONE_NUMBER | PRODUCTS | MAXIMA | MINIMA | OPENED | frozenset(COMPOSED)
"""All functions with a rule."""


class Call:
    """A function with its arguments, some of which depend on the samples."""

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self._where = list(_dependent(args, kwargs))

    def depends(self) -> bool:
        """Return whether any argument depends on the samples."""
        return torch.is_grad_enabled() and bool(self._where)

    def values(self) -> list[Tensor]:
        """Return the arguments that depend on the samples."""
        return [_at(self.args, self.kwargs, where) for where in self._where]

    def plain(self) -> Any:
        """Call the function as it is."""
        return self.func(*self.args, **self.kwargs)

    def plain_detached(self) -> Tensor:
        """Return the function's value alone."""
        with torch.no_grad():
            return self.plain()

    def traced(self, data: list[int], *values: Tensor) -> tuple[list[Tensor], Any]:
        """Call the function on leaves of a graph of its own; return these and the result.

        Args:
            data: which of the dependent arguments are leaves; the others are constants.
            values: of the leaves, default the arguments' own.
        """
        own = self.values()
        given = [value.detach() for value in own]
        leaves = [value.detach().requires_grad_() for value in (values or [own[i] for i in data])]
        for i, leaf in zip(data, leaves, strict=True):
            given[i] = leaf
        args, kwargs = _replaced(self.args, self.kwargs, dict(zip(self._where, given, strict=True)))
        with torch.enable_grad():
            return leaves, self.func(*args, **kwargs)


def _dependent(args: Any, kwargs: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for key, value in (*enumerate(args), *kwargs.items()):
        if _depends(value):
            yield (key,)
        elif isinstance(value, (tuple, list)):
            yield from ((key, i) for i, part in enumerate(value) if _depends(part))


def _depends(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def _at(args: Any, kwargs: dict[str, Any], where: tuple[Any, ...]) -> Any:
    value = kwargs[where[0]] if isinstance(where[0], str) else args[where[0]]
    return value[where[1]] if len(where) > 1 else value


def _replaced(args: Any, kwargs: dict[str, Any], values: dict[tuple[Any, ...], Tensor]) -> Any:
    def new(key: Any, value: Any) -> Any:
        if isinstance(value, (tuple, list)) and any(where[0] == key for where in values):
            return [values.get((key, i), part) for i, part in enumerate(value)]
        return values.get((key,), value)

    return [new(i, value) for i, value in enumerate(args)], {key: new(key, value) for key, value in kwargs.items()}
