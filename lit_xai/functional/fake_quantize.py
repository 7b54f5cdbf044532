"""Rounding of floats to what integers can hold, on a CPU: in a few passes over memory."""

from typing import Any

import torch
from torch import Tensor


def observe_(tensor: Tensor, fake_quantizer: Any) -> None:
    """Have a fake-quantiser of torchao see a tensor: its range and scale follow, by its own arithmetic.

    Args:
        tensor: of float32 and on the CPU, not empty.
        fake_quantizer: a ``FusedMovingAvgObsFakeQuantize``, per tensor, or per channel of the first dimension.
    """
    per_channel, observer = fake_quantizer.is_per_channel, fake_quantizer.activation_post_process
    seen = tensor.detach().reshape(len(tensor), -1) if per_channel else tensor.detach()
    ends = torch.stack([seen.amin(1), seen.amax(1)], 1) if per_channel else torch.stack([seen.amin(), seen.amax()])
    on, off = torch.ones(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    torch.fused_moving_avg_obs_fake_quant(  # of the ends alone, which are all that a range depends on
        ends,
        on,
        off,
        observer.min_val,
        observer.max_val,
        fake_quantizer.scale,
        fake_quantizer.zero_point,
        observer.averaging_constant,
        fake_quantizer.quant_min,
        fake_quantizer.quant_max,
        0,
        per_channel,
        fake_quantizer.is_symmetric_quant,
    )


def fake_quantize(tensor: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """Return a tensor rounded to multiples of ``scale``, as many as integers of a range stand for.

    Numbers and gradients are those of ``torch.fake_quantize_per_tensor_affine``, which takes more than ten times as
    long on a CPU: what was rounded hands its gradient on, what was cut off at an end has none.

    Args:
        tensor: of float32.
        scale: of one number, or of one for each channel, the tensor's first dimension.
        zero_point: the integer that stands for 0.
        low: the smallest integer.
        high: the largest.

    Example:
        >>> fake_quantize(torch.tensor([-9.0, -0.3, 0.3, 9.0]), torch.tensor([0.5]), 0, low=-4, high=3)
        tensor([-2.0000, -0.5000,  0.5000,  1.5000])
    """
    step: Any = scale.item() if scale.numel() == 1 else scale.view(-1, *(1,) * (tensor.dim() - 1))
    rounded: Tensor = _FakeQuantize.apply(tensor, step, low - zero_point, high - zero_point)[0]  # type: ignore[no-untyped-call]  # torch's
    return rounded


class _FakeQuantize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, step: Any, low: int, high: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        steps = (tensor * (1 / step)).round_()
        return steps.clamp(low, high).mul_(step), steps

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, ctx.low, ctx.high = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (steps,) = ctx.saved_tensors
        # In one pass, and with a gradient of its own: where low <= steps <= high, which are whole numbers.
        return torch.ops.aten.hardtanh_backward(gradient, steps, ctx.low - 0.5, ctx.high + 0.5), None, None, None
