"""One tensor that is rounded: torchao's module, whose range follows what is seen and whose scale follows the range."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.untouched import fork_rng
from lit_xai.quantization.fake_quantize import fake_quantize, find_ends

Site = dict[str, Any]
"""One tensor that is rounded: ``{"name", "layer", "low", "high", "channels"}``, plain values.

``channels`` is the number of a weight's output channels, 0 for an activation; ``low`` and ``high`` are the limits of
the integers. A weight has ``"inputs"`` as well, the site of what it is multiplied with.
"""

AVERAGING = 0.01
"""How much a training batch moves the observed range of an activation, once it is warmed up."""


def make_rounder(site: Site) -> nn.Module:
    """Make torchao's module for one site; its buffers have their final shapes from the start."""
    kind, observer = _torchao()
    channels = site["channels"]
    symmetric = site["low"] < 0
    scheme = torch.per_channel_symmetric if channels else torch.per_tensor_symmetric
    options = {
        "dtype": torch.qint8 if symmetric else torch.quint8,
        "qscheme": scheme if symmetric else torch.per_tensor_affine,
        "averaging_constant": 1.0 if channels else AVERAGING,
        **({"ch_axis": 0} if channels else {}),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hint on reduce_range, for any range that is not the type's whole
        rounder: nn.Module = kind(observer[bool(channels)], site["low"], site["high"], **options)
    if channels:
        seen: Any = rounder.activation_post_process
        seen.min_val.resize_(channels).fill_(torch.inf)
        seen.max_val.resize_(channels).fill_(-torch.inf)
        rounder.register_buffer("scale", torch.ones(channels))
        rounder.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int))
    return rounder


def round_with(rounder: Any, values: Tensor, training: bool, off: Tensor) -> Tensor:
    """Return values as integers can hold them; in training mode the range follows them first, if that is enabled.

    What overflows, as in a step of float16 that its scaler leaves out, moves no activation's range: it would never come
    back.

    Args:
        rounder: from :func:`make_rounder`.
        values: float32.
        training: whether the range may move.
        off: a tensor of zero: a flag on the values' device.
    """
    return (_around_0 if rounder.is_symmetric_quant else _from_0)(rounder, values, training, off)


def renew_scale_(rounder: Any, off: Tensor) -> None:
    """Compute the scale that belongs to a range, after that or the limits of the integers were set."""
    if rounder.is_symmetric_quant:
        observer = rounder.activation_post_process
        scale = torch.maximum(observer.min_val / rounder.quant_min, observer.max_val / rounder.quant_max)
        rounder.scale.copy_(scale.clamp(min=observer.eps).view_as(rounder.scale))
        rounder.zero_point.zero_()
    else:  # by the operator's own arithmetic: they do not move then when it runs next
        _from_0(rounder, torch.zeros(1, device=rounder.scale.device), False, off)


def _from_0(rounder: Any, values: Tensor, training: bool, off: Tensor) -> Tensor:
    """Round to integers from 0 on."""
    enabled = rounder.observer_enabled if training else off
    if values.device.type != "cpu" or not values.numel():
        is_finite = values.detach().sum().isfinite() if training else off
        return _fused(rounder, values, enabled * is_finite)
    ends = find_ends(values) if training and rounder.observer_enabled else None
    if ends is not None and not ends.isfinite().all():
        enabled = off
    # By torch's own arithmetic the range follows, and the scale with it: of the ends, which are all it depends on.
    _fused(rounder, values.detach().flatten()[:1] if ends is None else ends, enabled)
    return _rounded_quickly(rounder, values, ends)


def _fused(rounder: Any, values: Tensor, enabled: Tensor) -> Tensor:
    observer = rounder.activation_post_process
    out: Tensor = torch.fused_moving_avg_obs_fake_quant(
        values,
        enabled,
        rounder.fake_quant_enabled,
        observer.min_val,
        observer.max_val,
        rounder.scale,
        rounder.zero_point,
        observer.averaging_constant,
        rounder.quant_min,
        rounder.quant_max,
        0,
    )
    return out


def _around_0(rounder: Any, values: Tensor, training: bool, off: Tensor) -> Tensor:
    """Round to integers on both sides of 0.

    The fused operator does not keep 0 at 0 where all values are of one sign, as of a channel of few weights, and has no
    scale below 6e-5, as of weights that a BatchNorm over large activations was folded into.
    """
    ends = _observe_symmetric_(rounder, values, off) if training else None
    if values.device.type == "cpu":
        return _rounded_quickly(rounder, values, ends)
    limits = rounder.quant_min, rounder.quant_max
    if rounder.is_per_channel:
        out = torch.fake_quantize_per_channel_affine(values, rounder.scale, rounder.zero_point, 0, *limits)
    else:
        out = torch.fake_quantize_per_tensor_affine(values, rounder.scale, rounder.zero_point, *limits)
    return torch.where(rounder.fake_quant_enabled.bool(), out, values)


def _rounded_quickly(rounder: Any, values: Tensor, ends: Tensor | None) -> Tensor:
    if not rounder.fake_quant_enabled:
        return values
    zero_point = 0 if rounder.is_per_channel else int(rounder.zero_point)
    return fake_quantize(values, rounder.scale, zero_point, rounder.quant_min, rounder.quant_max, ends)


def _observe_symmetric_(rounder: Any, values: Tensor, off: Tensor) -> Tensor:
    """Have a range follow what is seen, and return the ends of that."""
    observer, enabled = rounder.activation_post_process, rounder.observer_enabled.bool()
    ends = find_ends(values, rounder.is_per_channel)
    if not rounder.is_per_channel:  # of a weight that is lost the range is lost as well, and says so
        enabled = enabled & ends.isfinite().all()
    for known, now in zip((observer.min_val, observer.max_val), ends.unbind(-1), strict=True):
        moved = torch.where(known.isinf(), now, known.lerp(now, observer.averaging_constant))
        known.copy_(torch.where(enabled, moved, known).view_as(known))
    renew_scale_(rounder, off)
    return ends


def _torchao() -> tuple[Any, tuple[Any, Any]]:
    with quiet_import():
        from torchao.quantization.pt2e import (
            FusedMovingAvgObsFakeQuantize,
            MovingAverageMinMaxObserver,
            MovingAveragePerChannelMinMaxObserver,
        )
    return FusedMovingAvgObsFakeQuantize, (MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import what complains of GPU extensions that are not there, and draws random numbers, without a trace of it."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with fork_rng(None), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
