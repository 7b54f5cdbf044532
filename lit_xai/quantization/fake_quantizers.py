"""The fake-quantisers of one network, as one child module of it: buffers alone, no parameter and no class changes.

What is observed and rounded are torchao's modules; which tensors they stand for is decided by
:mod:`~lit_xai.quantization.rounding` while the network runs.
"""

import contextlib
import copy
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.quantization.integers import Integers
from lit_xai.quantization.observers import Site, make_rounder, renew_scale_, round_with
from lit_xai.quantization.rounding import Placement, owners_of_weights
from lit_xai.quantization.running import Running

NAME = "fake_quantizers"
"""What the child module is called."""


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
        self.rounders = nn.ModuleDict({name: make_rounder(site) for name, site in self.sites.items()})
        self.off: Tensor
        self.register_buffer("off", torch.zeros(1, dtype=torch.long), persistent=False)
        self._integers: Integers | None = None
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
                renew_scale_(rounder, self.off)

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
        for rounder in self._of_activations():
            renew_scale_(rounder, self.off)

    # --- what runs inside the network's forward -----------------------------------------------------------------------

    def rounded(self, name: str, tensor: Tensor, layer: str) -> Tensor:
        """Return a tensor as integers of its site can hold it; the tensor itself where there is no such site."""
        if self._look is not None:
            self._look(name, tensor)
        if name not in self.sites:  # a branch of the forward that was not taken before
            return tensor
        if self._integers is not None:
            return self._integers.written(self.sites[name], tensor)
        rounder: Any = self.rounders[name]
        values = tensor.float()  # ranges and scales are float32
        out = round_with(rounder, values, self.training, self.off)
        if not torch.is_autocast_enabled(tensor.device.type):  # which makes of operands what it needs
            out = out.to(tensor.dtype)
        return out.view_as(out) if out is tensor else out

    def _rounded_bias(self, bias: Tensor, inputs: str, weight: str) -> Tensor:
        """Write a bias down as integers of 32 bits, which a product of integers is added up in."""
        if self._look is not None and inputs in self.sites:
            rounder: Any = self.rounders[inputs]
            self._look(f"{weight}/bias", bias.detach().float() / rounder.scale)
        if self._integers is None:
            return bias  # rounded to steps this small, nothing of it changes
        return self._integers.written_bias(bias, inputs, weight)

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

    def collect_integers_(self, weights: Mapping[str, Tensor]) -> None:
        """Keep every weight as integers, and have the forward written down as an exporter needs it.

        Args:
            weights: what :meth:`looked_at` showed.
        """
        self._integers = Integers([(self.sites[name], rounder) for name, rounder in self._named()], weights)

    def prepare_export_(self, network: nn.Module, run: Callable[[], object]) -> None:
        """Have the network's forward written down in integers, see :class:`~lit_xai.runtime.onnx.PreparesExport`.

        Args:
            network: whose forward it is.
            run: calls it once, which shows every weight.

        Raises:
            ValueError: no ranges were observed yet.
        """
        if not self.is_calibrated():
            raise ValueError(
                f"{type(network).__name__} expected ranges that were observed on data, but got none yet: train it, or"
                " take quantize() with a loader."
            )
        weights: dict[str, Tensor] = {}
        with self.looked_at(lambda name, tensor: weights.update({name: tensor})):
            run()
        self.collect_integers_(weights)

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
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return copied


def insert_fake_quantizers_(
    network: nn.Module, sites: Iterable[Site], float_layers: Iterable[str] = ()
) -> FakeQuantizers:
    """Give a network fake-quantisers, which observe but do not round yet.

    Args:
        network: that has none.
        sites: what to round, from :func:`~lit_xai.quantization.quantization.plan_quantization`.
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
