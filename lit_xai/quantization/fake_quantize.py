"""Rounding of floats to what integers can hold, on a CPU: in a few passes over memory."""

from typing import Any

import torch
from torch import Tensor


def find_ends(tensor: Tensor, per_channel: bool = False) -> Tensor:
    """Return the smallest and the largest number of a tensor, ``(2,)``, or of each channel, ``(channels, 2)``.

    Args:
        tensor: of one number or more.
        per_channel: whether of each; channels are the first dimension.

    Example:
        >>> find_ends(torch.tensor([[1.0, 3.0], [-2.0, 2.0]])), find_ends(torch.eye(2), per_channel=True)
        (tensor([-2.,  3.]), tensor([[0., 1.],
                [0., 1.]]))
    """
    seen = tensor.detach()
    if not per_channel:
        return torch.stack([seen.amin(), seen.amax()])
    seen = seen.reshape(len(seen), -1)
    return torch.stack([seen.amin(1), seen.amax(1)], 1)  # aminmax takes fifty times as long along a dimension


def fake_quantize(
    tensor: Tensor, scale: Tensor, zero_point: int, low: int, high: int, ends: Tensor | None = None
) -> Tensor:
    """Return a tensor rounded to multiples of ``scale``, as many as integers of a range stand for.

    Numbers and gradients are those of ``torch.fake_quantize_per_tensor_affine``, which takes more than ten times as
    long on a CPU: what was rounded hands its gradient on, what was cut off at an end has none.

    Args:
        tensor: of float32.
        scale: of one number, or of one for each channel, the tensor's first dimension.
        zero_point: the integer that stands for 0.
        low: the smallest integer.
        high: the largest.
        ends: from :func:`find_ends`, where they are known: where neither is cut off nothing is, and half of the passes
            are not needed.

    Example:
        >>> fake_quantize(torch.tensor([-9.0, -0.3, 0.3, 9.0]), torch.tensor([0.5]), 0, low=-4, high=3)
        tensor([-2.0000, -0.5000,  0.5000,  1.5000])
    """
    step: Any = scale.item() if scale.numel() == 1 else scale.view(-1, *(1,) * (tensor.dim() - 1))
    low, high = low - zero_point, high - zero_point
    if ends is not None and _is_within(ends, scale, low, high):
        rounded = _Round.apply(tensor, step)
    else:
        rounded, _ = _RoundAndCut.apply(tensor, step, low, high)
    return rounded


def _is_within(ends: Tensor, scale: Tensor, low: int, high: int) -> bool:
    steps = (ends * scale.reciprocal().unsqueeze(-1)).round_()
    return low <= steps.amin().item() and steps.amax().item() <= high


class _Round(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, step: Any) -> Tensor:
        return (tensor * (1 / step)).round_().mul_(step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _RoundAndCut(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, step: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
        steps = (tensor * (1 / step)).round_()
        return steps.clamp(low, high).mul_(step), steps

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, ctx.low, ctx.high = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None, None, None]:
        (steps,) = ctx.saved_tensors
        # In one pass, and with a gradient of its own: where low <= steps <= high, which are whole numbers.
        return torch.ops.aten.hardtanh_backward(gradient, steps, ctx.low - 0.5, ctx.high + 0.5), None, None, None
