"""A quantized network of which some layers are put back to float, and the noise that each of its layers makes alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import Inputs, OutputSpec, call_network, module_names
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import match_layers
from lit_xai.network.untouched import untouched
from lit_xai.quantization.fake_quantizers import (
    NAME,
    FakeQuantizers,
    find_fake_quantizers,
    insert_fake_quantizers_,
    remove_fake_quantizers_,
)
from lit_xai.quantization.observers import Site
from lit_xai.quantization.quantization import calibrate_, run_placement
from lit_xai.quantization.rounding import Place, Placement, Quantize, owners_of_weights
from lit_xai.quantization.tables import Lookup

Calls = Callable[[], Iterable[Inputs]]
"""Yields the inputs of a few calls, the same ones each time."""


@dataclass(frozen=True)
class Part:
    """A quantized network with some of its layers in float.

    Args:
        network: the module, in eval mode.
        sites: the names of the tensors that are quantized because of each layer that computes in integers.
        places: the places of these.
    """

    network: nn.Module
    sites: dict[str, list[str]]
    places: dict[str, frozenset[Place]]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that compute in integers, in the order in which they run."""
        return tuple(self.sites)


class PartlyQuantized:
    """Puts layers of a quantized network back to float, with the very ranges that it has.

    A layer in float changes which tensors are quantized around it: a tensor that another layer now needs as integers
    by itself is observed on some inputs, in float, as all others were.

    Args:
        quantized: a calibrated network, from :func:`~lit_xai.quantization.quantization.quantize`, say; its
            fake-quantizers are its own and not those of a submodule. It is left unchanged.
        calls: yields the inputs to observe on.
        output: the logits in its output.

    Raises:
        ValueError: the network has no fake-quantizers of its own, or they were never calibrated.

    Example:
        >>> from lit_xai.quantization.quantization import quantize
        >>> quantized = quantize(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), [torch.randn(8, 4)], progress=False)
        >>> PartlyQuantized(quantized, lambda: [torch.randn(8, 4)]).without(["0"]).layers
        ('1',)
    """

    def __init__(self, quantized: nn.Module, calls: Calls, output: OutputSpec = None) -> None:
        fake_quantizers: Any = getattr(quantized, NAME, None)
        if not isinstance(fake_quantizers, FakeQuantizers) or not fake_quantizers.is_calibrated():
            raise ValueError(
                f"quantized expected a network from quantize(), but {type(quantized).__name__} is in float or was never"
                " calibrated."
            )
        self._calls, self._output = calls, output
        self._network = copy_network(quantized)
        self._old = find_fake_quantizers(self._network)
        assert self._old is not None
        remove_fake_quantizers_(self._network)
        limits = [(site["low"], site["high"]) for site in self._old.sites.values() if not site["channels"]]
        self._limits = limits[0] if limits else None
        known = self._old.sites
        placement = self._placement(
            self._network, self._old.float_layers, lambda name, t, _: t.view_as(t) if name in known else t
        )
        self._run(self._network, placement)
        # By place: without a layer, the number in the name of a function's site may be that of another call.
        places = {name: placement.place_of[name] for name in self._old.sites if name in placement.place_of}
        self._sites: dict[Place, Site] = {place: self._old.sites[name] for name, place in places.items()}
        self._states = {place: self._old.fake_quants[name].state_dict() for name, place in places.items()}

    def without(self, layers: Iterable[str] = ()) -> Part:
        """Return a copy with these layers, and their submodules, in float as well.

        Args:
            layers: names, or patterns and classes, as ``ignored_layers`` of
                :func:`~lit_xai.quantization.quantization.quantize` takes them.
        """
        network = copy_network(self._network)
        ignored = {id(m) for one in match_layers(network, list(layers), "ignored_layers") for m in one.modules()}
        more = [name for name, module in module_names(network).items() if id(module) in ignored]
        assert self._old is not None
        float_layers = list(dict.fromkeys([*self._old.float_layers, *more]))
        sites, placement = self._placed(network, float_layers)
        fake_quantizers = insert_fake_quantizers_(network, sites.values(), float_layers, self._old.norms.items())
        places = {name: placement.place_of[name] for name in sites}
        if any(place not in self._states for place in places.values()):
            calibrate_(network, fake_quantizers, self._calls(), output=self._output)
        for name, fake_quant in fake_quantizers.fake_quants.items():
            if places[name] in self._states:
                fake_quant.load_state_dict(self._states[places[name]])
            else:  # observed in float, where it does not matter what else is quantized: it holds for all other parts
                state = fake_quant.state_dict()
                self._states[places[name]] = {key: value.clone() for key, value in state.items()}
        for module in network.modules():
            module.training = False
        by_layer = _by_layer(sites, placement)
        return Part(
            network, by_layer, {layer: frozenset(places[name] for name in names) for layer, names in by_layer.items()}
        )

    def _placed(self, network: nn.Module, float_layers: Sequence[str]) -> tuple[dict[str, Site], Placement]:
        """Return the tensors to quantize with these layers in float, and how they were found."""
        sites: dict[str, Site] = {}

        def add_site(name: str, tensor: Tensor, layer: str) -> Tensor:
            known = self._sites.get(placement.place_of[name])
            if known is None:
                # A weight that was in float has no range that training gave it.
                if self._limits is None or name.endswith("/weight"):
                    return tensor
                known = {"layer": layer, "low": self._limits[0], "high": self._limits[1], "channels": 0}
            sites[name] = {**known, "name": name}
            return tensor.view_as(tensor)

        placement = self._placement(network, float_layers, add_site)
        self._run(network, placement)
        for name, inputs in placement.inputs_of.items():
            if name in sites and inputs:
                sites[name]["inputs"] = inputs
        return sites, placement

    def _placement(self, network: nn.Module, float_layers: Sequence[str], quantize: Quantize) -> Placement:
        assert self._old is not None

        def quantize_rows(name: str, lookup: Lookup, layer: str) -> Tensor:
            quantize(name, lookup.columns, layer)
            return lookup.rows

        passing, owners = self._old.norms.values(), owners_of_weights(network)
        return Placement(quantize, owners, float_layers, passing=passing, quantize_rows=quantize_rows)

    def _run(self, network: nn.Module, placement: Placement) -> None:
        run_placement(network, placement, next(iter(self._calls())), "forward", self._output)


def _by_layer(sites: dict[str, Site], placement: Placement) -> dict[str, list[str]]:
    by_layer: dict[str, list[str]] = {site["layer"]: [] for site in sites.values() if site["channels"]}
    for name in sites:
        # Of a tensor that no such layer is responsible for, nothing in float would rid the network.
        by_layer.get(placement.layer_of[name], []).append(name)
    return by_layer


def noise_alone(
    part: Part, inputs: Sequence[Inputs], output: OutputSpec = None, known: dict[Any, float] | None = None
) -> dict[str, float]:
    """Return the noise in the logits if each layer alone is quantized, all others in float: power of noise over signal.

    Args:
        part: the network.
        inputs: of a few calls.
        output: the logits in its output.
        known: results of other parts, which are looked up and added to.

    Example:
        >>> from lit_xai.quantization.quantization import quantize
        >>> x = torch.randn(8, 4)
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        >>> quantized = quantize(network, [x], bits={"1": 2}, progress=False)
        >>> noise = noise_alone(PartlyQuantized(quantized, lambda: [x]).without(), [x])
        >>> noise["0"] < 0.01 < noise["1"]
        True
    """
    known = {} if known is None else known
    fake_quantizers = find_fake_quantizers(part.network)
    assert fake_quantizers is not None  # as without() inserts them
    flags = {one: one.fake_quant_enabled.clone() for one in fake_quantizers.fake_quants.values()}
    noise = {}
    try:
        with untouched(part.network), torch.no_grad():
            fake_quantizers.enable_fake_quant_only_(())
            signal = [call_network(part.network, one, output=output).double() for one in inputs]
            power = sum(float(one.square().sum()) for one in signal)
            for layer, sites in part.sites.items():
                key = layer, part.places[layer]
                if key not in known:
                    fake_quantizers.enable_fake_quant_only_(sites)
                    logits = [call_network(part.network, one, output=output).double() for one in inputs]
                    wrong = sum(float((a - b).square().sum()) for a, b in zip(logits, signal, strict=True))
                    known[key] = wrong / power if power else wrong
                noise[layer] = known[key]
    finally:
        for one, flag in flags.items():
            one.fake_quant_enabled.copy_(flag)
    return noise
