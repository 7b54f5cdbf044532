"""The fake-quantisers of one network, as one child module of it: buffers alone, no parameter and no class changes.

What is observed and rounded are torchao's modules; which tensors they stand for is decided by
:mod:`~lit_xai.functional.rounding` while the network runs.
"""

import contextlib
import io
import logging
import sys
import threading
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from lit_xai.functional.fake_quantize import fake_quantize, find_ends
from lit_xai.functional.rounding import Placement, owners_of_weights
from lit_xai.functional.untouched import fork_rng

NAME = "fake_quantizers"
"""What the child module is called."""

Site = dict[str, Any]
"""One tensor that is rounded: ``{"name", "layer", "low", "high", "channels"}``, plain values.

``channels`` is the number of a weight's output channels, 0 for an activation; ``low`` and ``high`` are the limits of
the integers. A weight has ``"inputs"`` as well, the site of what it is multiplied with.
"""

AVERAGING = 0.01
"""How much a training batch moves the observed range of an activation, once it is warmed up."""


class FakeQuantizers(nn.Module):
    """Observes and rounds the tensors of the network that it is a child of, while that runs.

    In training mode ranges follow what is seen; in eval mode nothing moves. Its own forward returns what it is given,
    so that it may stand in a ``Sequential``.

    Args:
        sites: what to round.
        float_layers: names of the network's modules that compute in float.
    """

    def __init__(self, sites: Iterable[Site], float_layers: Iterable[str] = ()) -> None:
        super().__init__()
        self.float_layers = list(float_layers)
        self.sites = {site["name"]: dict(site) for site in sites}
        self.rounders = nn.ModuleDict({name: _rounder(site) for name, site in self.sites.items()})
        self.off: Tensor
        self.register_buffer("off", torch.zeros(1, dtype=torch.long), persistent=False)
        self._integers: dict[str, tuple[Any, ...]] | None = None
        self._look: Callable[[str, Tensor], object] | None = None
        self._running: dict[int, list[Running]] = {}

    def forward(self, inputs: Any) -> Any:
        """Return what is given."""
        return inputs

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from self.rounders.items()

    def _of_activations(self) -> list[Any]:
        return [rounder for name, rounder in self._named() if not self.sites[name]["channels"]]

    # --- what a training loop sets ------------------------------------------------------------------------------------

    def round_(self, enabled: bool) -> None:
        """Have tensors rounded, or only looked at."""
        for _, rounder in self._named():
            rounder.fake_quant_enabled.fill_(int(enabled))
        if enabled and self.is_calibrated():
            self.renew_scales_()

    def round_alone_(self, names: Collection[str], bits: int) -> None:
        """Have only these sites rounded, in eval mode, and their weights to so many bits.

        Args:
            names: of the sites.
            bits: of weights, from 2 on.
        """
        for name, rounder in self._named():
            rounder.fake_quant_enabled.fill_(int(name in names))
            if name in names and self.sites[name]["channels"]:
                rounder.quant_min, rounder.quant_max = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
                _renew_symmetric_scale_(rounder)

    def observe_(self, enabled: bool) -> None:
        """Have activations' ranges follow what is seen in training mode, or stay; weights' are those of the moment."""
        for name, rounder in self._named():
            rounder.observer_enabled.fill_(int(enabled or self.sites[name]["channels"] > 0))

    def averaging_(self, constant: float) -> None:
        """Set how much the next batch moves activations' ranges: ``1 / n`` for the n-th gives their mean."""
        for rounder in self._of_activations():
            rounder.activation_post_process.averaging_constant = constant

    def is_calibrated(self) -> bool:
        """Return whether every activation was seen."""
        return all(bool(torch.isfinite(r.activation_post_process.min_val).all()) for _, r in self._named())

    def ranges(self) -> list[Tensor]:
        """Return the buffers that hold activations' ranges: what processes have to agree on."""
        observers = [rounder.activation_post_process for rounder in self._of_activations()]
        return [value for observer in observers for value in (observer.min_val, observer.max_val)]

    def renew_scales_(self) -> None:
        """Compute the scales that belong to the ranges, after these were set, where tensors are rounded."""
        training, self.training = self.training, False
        try:
            for rounder in self._of_activations():
                if rounder.is_symmetric_quant:
                    _renew_symmetric_scale_(rounder)
                else:  # by the operator's own arithmetic: they do not move then when it runs next
                    self._from_0(rounder, torch.zeros(1, device=rounder.scale.device))
        finally:
            self.training = training

    # --- what runs inside the network's forward -----------------------------------------------------------------------

    def rounded(self, name: str, tensor: Tensor, layer: str) -> Tensor:
        """Return a tensor as integers of its site can hold it; the tensor itself where there is no such site."""
        if self._look is not None:
            self._look(name, tensor)
        if name not in self.sites:  # a branch of the forward that was not taken before
            return tensor
        if self._integers is not None:
            return self._exported(name, tensor)
        rounder: Any = self.rounders[name]
        values = tensor.float()  # ranges and scales are float32
        out = (self._around_0 if rounder.is_symmetric_quant else self._from_0)(rounder, values)
        if not torch.is_autocast_enabled(tensor.device.type):  # which makes of operands what it needs
            out = out.to(tensor.dtype)
        return out.view_as(out) if out is tensor else out

    def _from_0(self, rounder: Any, values: Tensor) -> Tensor:
        """Round to integers from 0 on."""
        if values.device.type != "cpu" or not values.numel():
            return self._fused(rounder, values)
        ends = find_ends(values) if self.training and rounder.observer_enabled else None
        # By torch's own arithmetic the range follows, and the scale with it: of the ends, which are all it depends on.
        self._fused(rounder, values.detach().flatten()[:1] if ends is None else ends)
        return _rounded_quickly(rounder, values, ends)

    def _fused(self, rounder: Any, values: Tensor) -> Tensor:
        observer = rounder.activation_post_process
        out: Tensor = torch.fused_moving_avg_obs_fake_quant(
            values,
            rounder.observer_enabled if self.training else self.off,
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

    def _around_0(self, rounder: Any, values: Tensor) -> Tensor:
        """Round to integers on both sides of 0.

        The fused operator does not keep 0 at 0 where all values are of one sign, as of a channel of few weights, and
        has no scale below 6e-5, as of weights that a BatchNorm over large activations was folded into.
        """
        ends = _observe_symmetric_(rounder, values) if self.training else None
        if values.device.type == "cpu":
            return _rounded_quickly(rounder, values, ends)
        limits = rounder.quant_min, rounder.quant_max
        if rounder.is_per_channel:
            out = torch.fake_quantize_per_channel_affine(values, rounder.scale, rounder.zero_point, 0, *limits)
        else:
            out = torch.fake_quantize_per_tensor_affine(values, rounder.scale, rounder.zero_point, *limits)
        return torch.where(rounder.fake_quant_enabled.bool(), out, values)

    def _rounded_bias(self, bias: Tensor, inputs: str, weight: str) -> Tensor:
        """Write a bias down as integers of 32 bits, which a product of integers is added up in."""
        if self._look is not None and inputs in self.sites:
            rounder: Any = self.rounders[inputs]
            self._look(f"{weight}/bias", bias.detach().float() / rounder.scale)
        if self._integers is None or inputs not in self._integers:
            return bias  # rounded to steps this small, nothing of it changes
        _, per_channel, zero_point = self._integers[weight]
        scale = per_channel * self._integers[inputs][0]
        integers = torch.round(bias.detach().double() / scale.double()).clamp(-(2**31), 2**31 - 1).to(torch.int32)
        limits = torch.iinfo(torch.int32)
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            integers, scale, zero_point, 0, limits.min, limits.max, torch.int32
        )

    @contextlib.contextmanager
    def looked_at(self, look: Callable[[str, Tensor], object]) -> Iterator[None]:
        """Have a function called with each site's name and the tensor before it is rounded.

        Likewise with ``"<site of a weight>/bias"`` and how many steps of the input the bias is.
        """
        self._look = look
        try:
            yield
        finally:
            self._look = None

    def _exported(self, name: str, tensor: Tensor) -> Tensor:
        """Write down integers and their scale, which exporters know, rather than rounded floats."""
        assert self._integers is not None
        operators = torch.ops.quantized_decomposed
        if self.sites[name]["channels"]:
            values, scale, zero_point = self._integers[name]
            return operators.dequantize_per_channel(values, scale, zero_point, 0, -128, 127, torch.int8)
        scale, zero_point, low, high, dtype = self._integers[name]
        integers = operators.quantize_per_tensor(tensor, scale, zero_point, low, high, dtype)
        return operators.dequantize_per_tensor(integers, scale, zero_point, low, high, dtype)

    def collect_integers_(self, weights: Mapping[str, Tensor]) -> None:
        """Keep every weight as integers, and have the forward written down as an exporter needs it.

        Args:
            weights: what :meth:`looked_at` showed.
        """
        import torch.ao.quantization.fx._decomposed  # registers the operators

        found: dict[str, tuple[Any, ...]] = {}
        for name, rounder in self._named():
            scale, zero_point = rounder.scale.detach(), rounder.zero_point.detach()
            if self.sites[name]["channels"]:
                if f"{name}/bias" in weights:  # of a channel that is all but 0, it has to fit into 32 bits
                    scale = torch.maximum(scale, weights[f"{name}/bias"].abs() / 2**30)
                shape = (-1, *(1,) * (weights[name].dim() - 1))
                integers = torch.round(weights[name].detach().float() / scale.view(shape))
                integers = integers.clamp(rounder.quant_min, rounder.quant_max).to(torch.int8)
                found[name] = integers, scale, zero_point.long()
            else:
                dtype = torch.uint8 if rounder.dtype is torch.quint8 else torch.int8
                found[name] = float(scale), int(zero_point), rounder.quant_min, rounder.quant_max, dtype
        self._integers = found

    def enter(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        """Begin to round: before the network's forward."""
        runs = self._running.setdefault(threading.get_ident(), [])
        if runs and runs[0].is_over():
            runs[0].stop()
            runs.clear()
        if not runs:
            placement = Placement(self.rounded, owners_of_weights(network), self.float_layers, self._rounded_bias)
            runs.append(Running(network, placement, sys._getframe(1)))
            runs[0].start()
        else:
            runs.append(runs[0])

    def leave(self, network: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """Stop rounding: after the network's forward, whatever came of it."""
        runs = self._running.get(threading.get_ident())
        if not runs:  # a hook of the user's raised before it began
            return None
        running = runs.pop()
        if runs:
            return None
        del self._running[threading.get_ident()]
        running.stop()
        return running.placement.finish(result)

    def _apply(self, function: Any, recurse: bool = True) -> "FakeQuantizers":
        """Go where the network goes; ranges and scales stay in float32, as the operators need them."""

        def moved(tensor: Tensor) -> Tensor:
            found: Tensor = function(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        super()._apply(moved, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> "FakeQuantizers":
        # By its state: what is running now does not run in the copy.
        import copy

        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return copied


class Running:
    """One forward of a network: the functions it calls are seen, and which of its modules calls them.

    Args:
        network: whose modules are known by name.
        placement: what looks at the functions.
        frame: where the forward runs. A Ctrl-C leaves it without a hook being called: it is over then.
    """

    def __init__(self, network: nn.Module, placement: Placement, frame: types.FrameType | None = None) -> None:
        self.placement = placement
        self._frame, self._thread = frame, threading.get_ident()
        self._names = {id(m): name for name, m in network.named_modules()}
        self._stack = contextlib.ExitStack()

    def is_over(self) -> bool:
        """Return whether the forward is not under way any more."""
        if self._frame is None:
            return False
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is None

    def start(self) -> None:
        """Begin to look."""
        self.placement.is_over = self.is_over
        before = register_module_forward_pre_hook(self._before)
        self._stack.callback(before.remove)
        after = register_module_forward_hook(self._after, always_call=True)
        self._stack.callback(after.remove)
        self._stack.enter_context(self.placement)

    def stop(self) -> None:
        """Stop looking; does nothing the second time."""
        self._stack.close()

    def _before(self, module: nn.Module, args: Any) -> None:
        if id(module) in self._names and threading.get_ident() == self._thread:
            self.placement.path.append(self._names[id(module)])

    def _after(self, module: nn.Module, args: Any, result: Any) -> None:
        if id(module) in self._names and self.placement.path and threading.get_ident() == self._thread:
            self.placement.path.pop()


def insert_fake_quantizers_(
    network: nn.Module, sites: Iterable[Site], float_layers: Iterable[str] = ()
) -> FakeQuantizers:
    """Give a network fake-quantisers, which observe but do not round yet.

    Args:
        network: that has none.
        sites: what to round, from :func:`~lit_xai.functional.quantization.plan_quantization`.
        float_layers: likewise.

    Raises:
        ValueError: it has fake-quantisers, or a part of that name.
    """
    if hasattr(network, NAME):
        kind = "fake-quantisers already" if find_fake_quantizers(network) is not None else f"a part called {NAME!r}"
        raise ValueError(f"network expected one without fake-quantisers, but {type(network).__name__} has {kind}.")
    found = FakeQuantizers(sites, float_layers).train(network.training)
    found.round_(False)
    found.to(next((p.device for p in network.parameters()), torch.device("cpu")))
    network.add_module(NAME, found)
    network.register_forward_pre_hook(found.enter)
    network.register_forward_hook(found.leave, always_call=True)
    return found


def remove_fake_quantizers_(network: nn.Module) -> None:
    """Take the fake-quantisers of a network, or of a part of it, away, if there are; weights stay, in float."""
    owner = next((m for m in network.modules() if isinstance(m._modules.get(NAME), FakeQuantizers)), None)
    if owner is None:
        return
    found = owner._modules.pop(NAME)
    for hooks, extra in (
        (owner._forward_pre_hooks, owner._forward_pre_hooks_with_kwargs),
        (owner._forward_hooks, owner._forward_hooks_always_called),
    ):
        for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is found]:
            del hooks[key]
            extra.pop(key, None)


def find_fake_quantizers(network: nn.Module) -> FakeQuantizers | None:
    """Return the fake-quantisers of a network, or of the first of its parts that has some."""
    return next((m for m in network.modules() if isinstance(m, FakeQuantizers)), None)


def _rounder(site: Site) -> nn.Module:
    """Make torchao's module for one site; its buffers have their final shapes from the start."""
    fake_quantize, observer = _torchao()
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
        rounder = fake_quantize(observer[bool(channels)], site["low"], site["high"], **options)
    if channels:
        rounder.activation_post_process.min_val.resize_(channels).fill_(torch.inf)
        rounder.activation_post_process.max_val.resize_(channels).fill_(-torch.inf)
        rounder.register_buffer("scale", torch.ones(channels))
        rounder.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int))
    return rounder


def _rounded_quickly(rounder: Any, values: Tensor, ends: Tensor | None) -> Tensor:
    if not rounder.fake_quant_enabled:
        return values
    zero_point = 0 if rounder.is_per_channel else int(rounder.zero_point)
    return fake_quantize(values, rounder.scale, zero_point, rounder.quant_min, rounder.quant_max, ends)


def _observe_symmetric_(rounder: Any, values: Tensor) -> Tensor:
    """Have a range follow what is seen, and return the ends of that."""
    observer, enabled = rounder.activation_post_process, rounder.observer_enabled.bool()
    ends = find_ends(values, rounder.is_per_channel)
    for known, now in zip((observer.min_val, observer.max_val), ends.unbind(-1), strict=True):
        moved = torch.where(known.isinf(), now, known.lerp(now, observer.averaging_constant))
        known.copy_(torch.where(enabled, moved, known).view_as(known))
    _renew_symmetric_scale_(rounder)
    return ends


def _renew_symmetric_scale_(rounder: Any) -> None:
    observer = rounder.activation_post_process
    scale = torch.maximum(observer.min_val / rounder.quant_min, observer.max_val / rounder.quant_max)
    rounder.scale.copy_(scale.clamp(min=observer.eps).view_as(rounder.scale))
    rounder.zero_point.zero_()


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
