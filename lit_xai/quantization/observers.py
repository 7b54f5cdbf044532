"""torchao's fake-quantize module for one tensor: the range follows the tensor, and the scale follows the range."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.packages import require
from lit_xai.network.untouched import fork_rng
from lit_xai.quantization.fake_quantize import fake_quantize, find_min_max

Site = dict[str, Any]
"""One tensor to quantize, as plain values: ``{"name", "layer", "low", "high", "channels"}``.

``channels`` is the number of a weight's output channels, 0 for an activation; ``low`` and ``high`` are the limits of
the integers. A weight also has ``"inputs"``, the name of the site that it is multiplied with. Recipes in checkpoints
hold these entries, so their names stay.
"""

AVERAGING = 0.01
"""How much a training batch moves the observed range of an activation after calibration."""


def observe_weight_(fake_quant: Any, values: Tensor, off: Tensor) -> None:
    """Move the range to that of a weight, and the scale with it.

    Args:
        fake_quant: from :func:`make_fake_quant`, with channels.
        values: ``(channels, ...)``.
        off: as for :func:`run_fake_quant`.
    """
    _observe_symmetric_(fake_quant, values, off)


def make_fake_quant(site: Site) -> nn.Module:
    """Return torchao's fake-quantize module for one site.

    torchao gives per-channel buffers their shapes with the first batch, which a checkpoint loaded before it would not
    fit: here they have their final shapes from the start.
    """
    kind, observer = _torchao()
    channels = site["channels"]
    symmetric = site["low"] < 0
    scheme = torch.per_channel_symmetric if channels else torch.per_tensor_symmetric
    options = {
        "dtype": torch.qint8 if symmetric else torch.quint8,
        "qscheme": scheme if symmetric else torch.per_tensor_affine,
        # A weight's range is that of the weight as it is now; only activations are averaged over batches.
        "averaging_constant": 1.0 if channels else AVERAGING,
        **({"ch_axis": 0} if channels else {}),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hint on reduce_range, for any range narrower than the dtype's
        fake_quant: nn.Module = kind(observer[bool(channels)], site["low"], site["high"], **options)
    if channels:
        observer_module: Any = fake_quant.activation_post_process
        # torchao's own values for a range without observations: is_calibrated() checks for finite ends.
        observer_module.min_val.resize_(channels).fill_(torch.inf)
        observer_module.max_val.resize_(channels).fill_(-torch.inf)
        fake_quant.register_buffer("scale", torch.ones(channels))
        fake_quant.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int))
    return fake_quant


def run_fake_quant(fake_quant: Any, values: Tensor, training: bool, off: Tensor) -> Tensor:
    """Return values quantized and dequantized; in training mode the range follows them first, if that is enabled.

    Infinities, as from a float16 step that the gradient scaler skips, do not move an activation's range: a moving
    average would never recover from them.

    Args:
        fake_quant: from :func:`make_fake_quant`.
        values: float32.
        training: whether the range may move.
        off: a tensor of zero, which the fused operator takes as its flag, on the values' device.
    """
    return (_symmetric if fake_quant.is_symmetric_quant else _affine)(fake_quant, values, training, off)


def recompute_scale_(fake_quant: Any, off: Tensor) -> None:
    """Compute the scale from the range, after that or the limits of the integers were set."""
    if fake_quant.is_symmetric_quant:
        observer = fake_quant.activation_post_process
        # The smallest step with which both ends fit: min >= quant_min * scale and max <= quant_max * scale. The zero
        # point is 0, so that 0 stays exactly 0.
        scale = torch.maximum(observer.min_val / fake_quant.quant_min, observer.max_val / fake_quant.quant_max)
        fake_quant.scale.copy_(scale.clamp(min=observer.eps).view_as(fake_quant.scale))
        fake_quant.zero_point.zero_()
    else:  # by the operator's own arithmetic, so that its next run gives the same numbers
        _affine(fake_quant, torch.zeros(1, device=fake_quant.scale.device), False, off)


def _affine(fake_quant: Any, values: Tensor, training: bool, off: Tensor) -> Tensor:
    """Quantize to unsigned integers, with a zero point."""
    enabled = fake_quant.observer_enabled if training else off
    # Off the CPU no Python branch may depend on values, as it would wait for the device. A sum is finite only if all
    # values are.
    if values.device.type != "cpu" or not values.numel():
        is_finite = values.detach().sum().isfinite() if training else off
        return _fused(fake_quant, values, enabled * is_finite)
    ends = find_min_max(values) if training and fake_quant.observer_enabled else None
    if ends is not None and not ends.isfinite().all():
        enabled = off
    # The fused operator computes range and scale, which depend on the two ends alone: it gets only those, as it takes
    # more than ten times as long as our own kernel on a whole tensor.
    _fused(fake_quant, values.detach().flatten()[:1] if ends is None else ends, enabled)
    return _on_cpu(fake_quant, values, ends)


def _fused(fake_quant: Any, values: Tensor, enabled: Tensor) -> Tensor:
    observer = fake_quant.activation_post_process
    out: Tensor = torch.fused_moving_avg_obs_fake_quant(
        values,
        enabled,
        fake_quant.fake_quant_enabled,
        observer.min_val,
        observer.max_val,
        fake_quant.scale,
        fake_quant.zero_point,
        observer.averaging_constant,
        fake_quant.quant_min,
        fake_quant.quant_max,
        0,
    )
    return out


def _symmetric(fake_quant: Any, values: Tensor, training: bool, off: Tensor) -> Tensor:
    """Quantize to signed integers, symmetric around 0.

    Not with the fused operator: it does not map 0 to 0 if all values have one sign, as in a channel of few weights, and
    it has no scale below 6e-5, which weights need that a BatchNorm over large activations was folded into.
    """
    ends = _observe_symmetric_(fake_quant, values, off) if training else None
    if values.device.type == "cpu":
        return _on_cpu(fake_quant, values, ends)
    limits = fake_quant.quant_min, fake_quant.quant_max
    if fake_quant.is_per_channel:
        out = torch.fake_quantize_per_channel_affine(values, fake_quant.scale, fake_quant.zero_point, 0, *limits)
    else:
        out = torch.fake_quantize_per_tensor_affine(values, fake_quant.scale, fake_quant.zero_point, *limits)
    return torch.where(fake_quant.fake_quant_enabled.bool(), out, values)


def _on_cpu(fake_quant: Any, values: Tensor, ends: Tensor | None) -> Tensor:
    if not fake_quant.fake_quant_enabled:
        return values
    zero_point = 0 if fake_quant.is_per_channel else int(fake_quant.zero_point)
    return fake_quantize(values, fake_quant.scale, zero_point, fake_quant.quant_min, fake_quant.quant_max, ends)


def _observe_symmetric_(fake_quant: Any, values: Tensor, off: Tensor) -> Tensor:
    """Move the range toward the values' minimum and maximum, and return these."""
    observer, is_weight = fake_quant.activation_post_process, fake_quant.is_per_channel
    ends = find_min_max(values, is_weight)
    # As in _affine, a Python branch on the CPU alone. Weights are small and many: each operation left out here counts.
    if values.device.type == "cpu" and not fake_quant.observer_enabled:
        return ends
    enabled = fake_quant.observer_enabled.bool()
    if not is_weight:  # a weight with NaN has to show in its range, see is_calibrated()
        enabled = enabled & ends.isfinite().all()
    for known, now in zip((observer.min_val, observer.max_val), ends.unbind(-1), strict=True):
        if not is_weight:  # the range of a weight is that of the weight now; for others later batches move the first's
            now = torch.where(known.isinf(), now, known.lerp(now, observer.averaging_constant))
        known.copy_(torch.where(enabled, now, known).view_as(known))
    recompute_scale_(fake_quant, off)
    return ends


def _torchao() -> tuple[Any, tuple[Any, Any]]:
    require("Quantization-aware training", "torchao")
    with quiet_import():
        from torchao.quantization.pt2e import (
            FusedMovingAvgObsFakeQuantize,
            MovingAverageMinMaxObserver,
            MovingAveragePerChannelMinMaxObserver,
        )
    return FusedMovingAvgObsFakeQuantize, (MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Silence an import that warns of missing GPU extensions, and undo its draws from the random generators."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with fork_rng(None), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
