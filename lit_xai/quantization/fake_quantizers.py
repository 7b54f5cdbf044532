"""The fake-quantizers of one network, as one child module of it: only buffers, and no parameter or class changes.

The fake-quantize modules and observers are torchao's; :mod:`~lit_xai.quantization.rounding` decides which tensors they
are applied to while the network runs.
"""

import contextlib
import copy
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.quantization.folding import fold_batch_norms_, fold_signs
from lit_xai.quantization.integers import Integers
from lit_xai.quantization.observers import Site, make_fake_quant, recompute_scale_, run_fake_quant
from lit_xai.quantization.rounding import Placement, owners_of_weights
from lit_xai.quantization.running import Running
from lit_xai.quantization.tables import Lookup, fake_quantize_rows

NAME = "fake_quantizers"
"""The name of the child module."""


class FakeQuantizers(nn.Module):
    """Observe and fake-quantize the tensors of the network that it is a child of, while that network runs.

    In training mode ranges follow the tensors; in eval mode nothing changes. Its own forward returns its input, so that
    it may be part of a ``Sequential``.

    A BatchNorm that will be folded into the layer before it stays a BatchNorm in training: what it makes of the layer's
    output counts as that output. The grid of a weight that is symmetric around 0, per output channel, scales with the
    weight, so that the fold gives the same integers. One difference has to be made up for: integers reach further down
    than up (-64..63), so a channel that the BatchNorm will multiply with a negative number is quantized negated.

    Args:
        sites: the tensors to quantize.
        float_layers: names of the network's modules that compute in float.
        norms: names of layers and the BatchNorms after them that will be folded, see
            :func:`~lit_xai.quantization.folding.find_foldable`.
    """

    def __init__(
        self, sites: Iterable[Site], float_layers: Iterable[str] = (), norms: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__()
        self.float_layers = list(float_layers)
        self.norms = dict(norms)
        self.norms_frozen = False
        self.sites = {site["name"]: dict(site) for site in sites}
        # The name is part of every checkpoint's keys ("fake_quantizers.rounders..."): renaming it would make all
        # checkpoints of quantized networks unreadable.
        self.rounders = nn.ModuleDict({name: make_fake_quant(site) for name, site in self.sites.items()})
        self.off: Tensor
        # A buffer moves to the network's device with it; not persistent, so that it is no key of a checkpoint.
        self.register_buffer("off", torch.zeros(1, dtype=torch.long), persistent=False)
        self._integers: Integers | None = None
        self._record: Callable[[str, Tensor], object] | None = None
        self._running: dict[int, list[Running]] = {}
        self.register_load_state_dict_pre_hook(_refuse_other_shapes)

    @property
    def fake_quants(self) -> Mapping[str, Any]:
        """The fake-quantize modules by the names of their sites."""
        return self.rounders  # type: ignore[return-value]  # a ModuleDict is a mapping but for its base class

    def forward(self, inputs: Any) -> Any:
        """Return the input unchanged."""
        return inputs

    def _of_activations(self) -> list[Any]:
        return [fake_quant for name, fake_quant in self.fake_quants.items() if not self.sites[name]["channels"]]

    # --- for training loops -------------------------------------------------------------------------------------------

    def enable_fake_quant_(self, enabled: bool = True) -> None:
        """Have tensors quantized, or only observed."""
        unobserved = self.unobserved() if enabled else []
        for name, fake_quant in self.fake_quants.items():
            # An unknown range would round everything to integers.
            fake_quant.fake_quant_enabled.fill_(int(enabled and name not in unobserved))
        if enabled and self.is_calibrated():
            self.recompute_scales_()

    def is_enabled(self) -> bool:
        """Return whether tensors are quantized, not only observed."""
        return any(bool(fake_quant.fake_quant_enabled) for fake_quant in self.fake_quants.values())

    def enable_fake_quant_only_(self, names: Collection[str], bits: int | None = None) -> None:
        """Have only these sites quantized, in eval mode, their weights to a number of bits.

        Args:
            names: of the sites; those that were never observed stay in float.
            bits: of weights, 2 or more; default as they are.
        """
        names = {*names} - {*self.unobserved()}
        for name, fake_quant in self.fake_quants.items():
            fake_quant.fake_quant_enabled.fill_(int(name in names))
            if bits is not None and name in names and self.sites[name]["channels"]:
                # The scale has to follow the new limits, as it is range / limit.
                fake_quant.quant_min, fake_quant.quant_max = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
                recompute_scale_(fake_quant, self.off)

    def enable_observer_(self, enabled: bool = True) -> None:
        """Have the ranges of activations follow the tensors in training mode, or stay; weights' ranges always follow.

        Weights are at hand whenever the network runs, so their range never has to be an average.
        """
        for name, fake_quant in self.fake_quants.items():
            fake_quant.observer_enabled.fill_(int(enabled or self.sites[name]["channels"] > 0))

    def freeze_norms_(self, frozen: bool = True) -> None:
        """Have the BatchNorms that will be folded use their running statistics in training too, and keep them as is.

        They do so while the network runs, whatever mode they are in.
        """
        self.norms_frozen = frozen

    def norm_statistics(self, network: nn.Module) -> list[Tensor]:
        """Return the running statistics of the BatchNorms that will be folded, on which processes agree.

        Args:
            network: the module that these fake-quantizers are a child of.
        """
        norms: list[Any] = [network.get_submodule(name) for name in self.norms.values()]
        return [value for norm in norms for value in (norm.running_mean, norm.running_var)]

    def set_averaging_constant_(self, constant: float) -> None:
        """Set how much the next batch moves the ranges of activations: ``1 / n`` for the n-th gives their mean."""
        for fake_quant in self._of_activations():
            fake_quant.activation_post_process.averaging_constant = constant

    def unobserved(self) -> list[str]:
        """Return the names of sites that were never observed while others were: they stay in float.

        A network may compute in evaluation mode what it does not in training, a score say.
        """
        ranges = {name: fake_quant.activation_post_process for name, fake_quant in self.fake_quants.items()}
        missing = [name for name, one in ranges.items() if bool((one.min_val > one.max_val).all())]
        return missing if len(missing) < len(ranges) else []

    def is_calibrated(self) -> bool:
        """Return whether tensors have been observed, and all of them were finite."""
        unobserved = self.unobserved()
        observers = [one.activation_post_process for name, one in self.fake_quants.items() if name not in unobserved]
        return all(bool(torch.isfinite(observer.min_val).all()) for observer in observers)

    def ranges(self) -> list[Tensor]:
        """Return the buffers that hold the ranges of activations, which several processes have to agree on."""
        observers = [fake_quant.activation_post_process for fake_quant in self._of_activations()]
        return [value for observer in observers for value in (observer.min_val, observer.max_val)]

    def recompute_scales_(self) -> None:
        """Compute the scales of activations from their ranges, after these were set."""
        unobserved = self.unobserved()
        for name, fake_quant in self.fake_quants.items():
            if not self.sites[name]["channels"] and name not in unobserved:
                recompute_scale_(fake_quant, self.off)

    def round_(self, enabled: bool) -> None:
        """Call :meth:`enable_fake_quant_`, the name since 0.2."""
        _warn_renamed("round_", "enable_fake_quant_")
        self.enable_fake_quant_(enabled)

    def observe_(self, enabled: bool) -> None:
        """Call :meth:`enable_observer_`, the name since 0.2."""
        _warn_renamed("observe_", "enable_observer_")
        self.enable_observer_(enabled)

    def averaging_(self, constant: float) -> None:
        """Call :meth:`set_averaging_constant_`, the name since 0.2."""
        _warn_renamed("averaging_", "set_averaging_constant_")
        self.set_averaging_constant_(constant)

    # --- inside the network's forward ---------------------------------------------------------------------------------

    def fake_quantize(self, name: str, tensor: Tensor, layer: str, norm: nn.Module | None = None) -> Tensor:
        """Return a tensor with the values that the integers of its site can represent.

        A tensor without a site is returned unchanged: it comes from a branch that did not run when sites were planned.

        Args:
            name: of the site.
            tensor: of any dtype of floats.
            layer: the name of the layer that takes it.
            norm: the BatchNorm that will be folded into that layer.
        """
        if self._record is not None:
            self._record(name, tensor)
        if name not in self.sites:
            return tensor
        if self._integers is not None:
            return self._integers.dequantized(self.sites[name], tensor)
        values = tensor.float()  # ranges and scales are float32
        signs = fold_signs(norm, tensor) if norm is not None and self.sites[name]["channels"] else None
        if signs is not None:
            values = values * signs
        out = run_fake_quant(self.fake_quants[name], values, self.training, self.off)
        if signs is not None:
            out = out * signs
        return _given(out, tensor)

    def fake_quantize_rows(self, name: str, lookup: Lookup, layer: str) -> Tensor:
        """Return what was looked up in a table with the values that its integers can represent.

        Args:
            name: of the site.
            lookup: what is looked up.
            layer: the name of the layer that looks it up.
        """
        if self._record is not None:
            self._record(name, lookup.columns)
        if name not in self.sites:
            return lookup.rows
        if self._integers is not None:
            return self._integers.looked_up(self.sites[name], lookup)
        return _given(fake_quantize_rows(self.fake_quants[name], lookup, self.training, self.off), lookup.rows)

    def _quantize_bias(self, bias: Tensor, inputs: str, weight: str) -> Tensor:
        """Return a bias as int32, in which a product of integers is accumulated; unchanged before :meth:`convert_`.

        In steps as small as those of int32, quantizing a bias changes nothing that training could notice.
        """
        if self._record is not None and inputs in self.sites:
            self._record(f"{weight}/bias", bias.detach().float() / self.fake_quants[inputs].scale)
        if self._integers is None:
            return bias
        return self._integers.dequantized_bias(bias, inputs, weight)

    @contextlib.contextmanager
    def recording(self, record: Callable[[str, Tensor], object]) -> Iterator[None]:
        """Call a function with the name of each site and its tensor before it is quantized.

        For a bias the name is ``"<site of the weight>/bias"``, and the tensor is the bias in steps of the input.
        """
        self._record = record
        try:
            yield
        finally:
            self._record = None

    def convert_(self, weights: Mapping[str, Tensor]) -> None:
        """Store every weight as integers, and run the forward in operators that an exporter can write.

        Args:
            weights: the tensors from :meth:`recording`.
        """
        unobserved = self.unobserved()
        sites = [(self.sites[name], one) for name, one in self.fake_quants.items() if name not in unobserved]
        self._integers = Integers(sites, weights)

    def prepare_export_(self, network: nn.Module, run: Callable[[], object]) -> None:
        """Have an exporter write the network's forward in integers; see :class:`~lit_xai.runtime.onnx.PreparesExport`.

        Args:
            network: the module to export.
            run: calls it once, so that every weight is recorded.

        Raises:
            ValueError: no ranges have been observed yet.
        """
        if not self.is_calibrated():
            raise ValueError(
                f"{type(network).__name__} expected ranges that were observed on data, but got none yet: train it, or"
                " call quantize() with a loader."
            )
        if not self.is_enabled():  # of a checkpoint from within calibration, whose ranges have no scales yet
            self.enable_fake_quant_(True)
        fold_paired_(network)
        weights: dict[str, Tensor] = {}
        with self.recording(lambda name, tensor: weights.update({name: tensor})):
            run()
        self.convert_(weights)

    def follow_fold_(self, scales: Mapping[str, Tensor]) -> None:
        """Move the ranges and scales of weights with them, see :class:`~lit_xai.quantization.folding.FollowsFold`."""
        for name, site in self.sites.items():
            if not site["channels"] or site["layer"] not in scales:
                continue
            fake_quant, factor = self.fake_quants[name], scales[site["layer"]].abs()
            observer = fake_quant.activation_post_process
            for value in (observer.min_val, observer.max_val, fake_quant.scale):
                value.copy_(value.double() * factor.to(value.device))
            # Not the observer's eps, which would coarsen the grid behind a BatchNorm over large activations; just no
            # division by 0 where the BatchNorm multiplies with 0.
            fake_quant.scale.clamp_(min=torch.finfo(torch.float32).tiny ** 0.5)
        self.norms = {layer: norm for layer, norm in self.norms.items() if layer not in scales}

    def enter(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        """Start to quantize; a forward pre-hook of the network."""
        runs = self._running.setdefault(threading.get_ident(), [])
        if runs and runs[0].is_over():  # a forward that Ctrl-C ended calls no hook
            runs[0].stop()
            runs.clear()
        if not runs:
            modules = dict(network.named_modules())
            norms = {layer: modules[norm] for layer, norm in self.norms.items()}
            placement = Placement(
                lambda name, tensor, layer: self.fake_quantize(name, tensor, layer, norms.get(layer)),
                owners_of_weights(network),
                self.float_layers,
                self._quantize_bias,
                self.norms.values(),
                self.fake_quantize_rows,
            )
            frozen = norms.values() if self.norms_frozen else ()
            runs.append(Running(network, placement, sys._getframe(1), frozen))
            runs[0].start()
        else:
            # The network calls itself: the outer forward quantizes, and the inner ones are only counted.
            runs.append(runs[0])

    def leave(self, network: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """Stop quantizing, also after an error; a forward hook of the network."""
        runs = self._running.get(threading.get_ident())
        if not runs:  # another forward pre-hook raised before ours was called
            return None
        running = runs.pop()
        if runs:
            return None
        del self._running[threading.get_ident()]
        running.stop()
        return running.placement.finish(result)

    def _apply(self, function: Any, recurse: bool = True) -> "FakeQuantizers":
        """Move to the network's device, but not to its dtype: the operators need ranges and scales in float32."""

        def moved(tensor: Tensor) -> Tensor:
            result: Tensor = function(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        super()._apply(moved, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Frames and hooks cannot be pickled.
        return {**self.__dict__, "_running": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> "FakeQuantizers":
        # Without what is running now: it holds frames and hooks, which cannot be copied.
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return copied


def _given(out: Tensor, tensor: Tensor) -> Tensor:
    """Return a quantized tensor in the dtype it was given in, and as an object of its own."""
    if not torch.is_autocast_enabled(tensor.device.type):  # autocast casts operands itself
        out = out.to(tensor.dtype)
    # Placement takes the very tensor that it gave for one without a site, so a site that is only observed returns
    # another object.
    return out.view_as(out) if out is tensor else out


def _warn_renamed(old: str, new: str) -> None:
    warnings.warn(
        f"{old}() is now {new}(): the old name will be removed in the next release.", FutureWarning, stacklevel=3
    )


def insert_fake_quantizers_(
    network: nn.Module,
    sites: Iterable[Site],
    float_layers: Iterable[str] = (),
    norms: Iterable[tuple[str, str]] = (),
) -> FakeQuantizers:
    """Give a network fake-quantizers, which observe but do not quantize yet.

    Args:
        network: the module, without fake-quantizers.
        sites: the tensors to quantize, from :func:`~lit_xai.quantization.quantization.plan_quantization`.
        float_layers: names of modules that compute in float, from the same plan.
        norms: names of layers and the BatchNorms that will be folded into them, from the same plan.

    Raises:
        ValueError: the network has fake-quantizers, or a submodule of that name.
    """
    if hasattr(network, NAME):
        kind = "some already" if find_fake_quantizers(network) is not None else f"a submodule called {NAME!r}"
        raise ValueError(f"network expected a module without fake-quantizers, but {type(network).__name__} has {kind}.")
    fake_quantizers = FakeQuantizers(sites, float_layers, norms).train(network.training)
    fake_quantizers.enable_fake_quant_(False)
    fake_quantizers.to(next((p.device for p in network.parameters()), torch.device("cpu")))
    network.add_module(NAME, fake_quantizers)
    network.register_forward_pre_hook(fake_quantizers.enter)
    # always_call, so that an exception in the forward leaves no mode active.
    network.register_forward_hook(fake_quantizers.leave, always_call=True)
    return fake_quantizers


def remove_fake_quantizers_(network: nn.Module) -> None:
    """Remove the fake-quantizers of a network, or of a submodule, if there are any; weights stay, in float."""
    owner = next((m for m in network.modules() if isinstance(m._modules.get(NAME), FakeQuantizers)), None)
    if owner is None:
        return
    removed = owner._modules.pop(NAME)
    for hooks, extra in (
        (owner._forward_pre_hooks, owner._forward_pre_hooks_with_kwargs),
        (owner._forward_hooks, owner._forward_hooks_always_called),
    ):
        for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is removed]:
            del hooks[key]
            extra.pop(key, None)


def find_fake_quantizers(network: nn.Module) -> FakeQuantizers | None:
    """Return the fake-quantizers of a network, or of its first submodule that has some."""
    return next((m for m in network.modules() if isinstance(m, FakeQuantizers)), None)


def fold_paired_(network: nn.Module) -> None:
    """Fold the BatchNorms that the fake-quantizers of a network let pass, as its exported file will have them.

    Args:
        network: the module to change, or one with such a submodule; without fake-quantizers nothing happens.
    """
    for owner in [module for module in network.modules() if isinstance(module._modules.get(NAME), FakeQuantizers)]:
        fake_quantizers: Any = owner._modules[NAME]
        fold_batch_norms_(owner, list(fake_quantizers.norms.items()))


def _refuse_other_shapes(
    module: FakeQuantizers, weights: Mapping[str, Any], prefix: str, _: Any, strict: bool, *lists: list[str]
) -> None:
    """Report scales and zero points of another shape, to which torch would resize the buffers."""
    for name, site in module.sites.items():
        for buffer in ("scale", "zero_point"):
            saved = weights.get(f"{prefix}rounders.{name}.{buffer}")
            if isinstance(saved, Tensor) and saved.shape not in [(1,), (max(site["channels"], 1),)]:
                lists[-1].append(f"size mismatch for {prefix}rounders.{name}.{buffer}: {tuple(saved.shape)}.")


def weight_bits(network: nn.Module) -> dict[str, int]:
    """Return the bits of each layer's weights, of layers whose weights are fake-quantized.

    Example:
        >>> from lit_xai.quantization.quantization import quantize
        >>> weight_bits(quantize(nn.Sequential(nn.Linear(4, 3)), [torch.randn(8, 4)], bits=4, progress=False))
        {'0': 4}
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, FakeQuantizers):
            prefix = name.rpartition(".")[0]
            for site in module.sites.values():
                if site["channels"]:
                    layer = f"{prefix}.{site['layer']}" if prefix else str(site["layer"])
                    found[layer] = (site["high"] - site["low"]).bit_length()
    return found
