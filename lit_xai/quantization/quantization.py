"""Networks that compute in integers: planned, prepared for training, calibrated without, described."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from lit_xai.network.calling import (
    BatchToInputs,
    Inputs,
    OutputSpec,
    call_network,
    check_call,
    find_inputs,
    find_logits,
    find_network,
    module_names,
)
from lit_xai.network.copying import copy_network, uncompiled_
from lit_xai.network.describing import describe
from lit_xai.network.layers import match_layers
from lit_xai.network.probing import to_device
from lit_xai.network.spelling import nearest
from lit_xai.network.untouched import untouched
from lit_xai.quantization.fake_quantizers import FakeQuantizers, find_fake_quantizers, insert_fake_quantizers_
from lit_xai.quantization.folding import find_foldable, fold_batch_norms_
from lit_xai.quantization.observers import AVERAGING, Site
from lit_xai.quantization.rounding import Placement, owners_of_weights
from lit_xai.quantization.running import Running

CPUS = ("any", "vnni", "arm64")
"""What the integers have to run on: without VNNI, x86 adds two products of 8 bits in 16, which 7 in weights keep from
overflowing (ONNX Runtime's ``reduce_range``)."""

ACTIVATIONS = ("unsigned", "symmetric")

Plan = dict[str, Any]
"""What is rounded, plain values: ``{"sites": [...], "float_layers": [...], "scheme": {...}}``."""


def plan_quantization(
    network: nn.Module,
    example_inputs: Inputs,
    *,
    bits: int | Mapping[str, int] = 8,
    cpu: str = "any",
    activations: str = "unsigned",
    ignored_layers: Iterable[str | type] = (),
    call: str = "forward",
    output: OutputSpec = None,
) -> Plan:
    """Return what of a network is to be rounded, by running it once; it is left as it is.

    Weights are rounded per output channel to integers on both sides of 0, everything else per tensor to 0..255
    (`Krishnamoorthi 2018 <https://arxiv.org/abs/1806.08342>`_). Where, says :mod:`~lit_xai.quantization.rounding`.

    Args:
        network: whose BatchNorms are folded already.
        example_inputs: what it is called with.
        bits: of weights, 2 to 8: of all, or by layers' names and patterns with ``*``, the first that fits. Runtimes
            compute in 8 bits all the same: fewer show what a network bears, they do not make it faster. With 2, four
            values a weight, networks often fail, also when trained for it: give it to single layers that bear it.
        cpu: ``"any"``: 8 bits in weights become 7, and results are right on every x86; ``"vnni"`` or ``"arm64"``: all
            8, for CPUs with AVX-512 VNNI, AVX-VNNI or AMX, and for ARM.
        activations: ``"unsigned"``, or ``"symmetric"``: -128..127 around 0, as GPU runtimes want it.
        ignored_layers: what stays in float: names, patterns or classes; a module's parts go with it.
        call: the method that is called.
        output: where the logits are in what it returns.

    Raises:
        ValueError: an argument is wrong, or nothing can be rounded.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> [site["name"] for site in plan_quantization(network, torch.zeros(2, 4))["sites"]]
        ['0/linear/input', '0/linear/weight', '2/linear/input', '2/linear/weight']
    """
    network = find_network(network)
    check_scheme(bits, cpu, activations)
    if call != "forward":
        raise ValueError(
            f"call expected 'forward', as a network rounds while that runs, but got {call!r}: give module= the part"
            " whose forward it calls."
        )
    by_layer = _bits_by_layer(network, bits)
    if find_fake_quantizers(network) is not None:
        raise ValueError(
            f"network expected one without fake-quantisers, but {type(network).__name__} has some already."
        )
    ignored = set(map(id, _with_parts(match_layers(network, ignored_layers, "ignored_layers"))))
    float_layers = [name for name, module in module_names(network).items() if id(module) in ignored]
    low, high = (0, 255) if activations == "unsigned" else (-128, 127)
    sites: dict[str, Site] = {}

    def note(name: str, tensor: Tensor, layer: str) -> Tensor:
        is_weight = name.endswith("/weight")
        used = min(by_layer.get(layer, by_layer.get("*", 8)), 7 if cpu == "any" else 8)
        sites[name] = {
            "name": name,
            "layer": layer,
            "low": -(2 ** (used - 1)) if is_weight else low,
            "high": 2 ** (used - 1) - 1 if is_weight else high,
            "channels": len(tensor) if is_weight else 0,
        }
        return tensor.view_as(tensor)

    running = Running(network, Placement(note, owners_of_weights(network), float_layers))
    with untouched(network), torch.no_grad():
        running.start()
        try:
            call_network(network, example_inputs, call, lambda result: _finished(running, result, output))
        finally:
            running.stop()
    for name, inputs in running.placement.inputs_of.items():
        sites[name]["inputs"] = inputs
    if not any(site["channels"] for site in sites.values()):
        raise ValueError(
            f"{type(network).__name__} calls no convolution or linear layer that can be quantised: give ignored_layers="
            " less, or another module=."
        )
    plain = {_plain(entry): n for entry, n in bits.items()} if isinstance(bits, Mapping) else bits
    scheme = {"bits": plain, "cpu": cpu, "activations": activations}
    return {"sites": list(sites.values()), "float_layers": float_layers, "scheme": scheme}


def _finished(running: Running, result: Any, output: OutputSpec) -> Tensor:
    running.stop()
    return find_logits(running.placement.finish(result), output)


def check_scheme(bits: Any, cpu: Any, activations: Any) -> None:
    """Refuse a scheme that is none; raises ``ValueError`` on the argument that is wrong."""
    for name, value in bits.items() if isinstance(bits, Mapping) else [("", bits)]:
        if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 8:
            shown = f"bits[{_plain(name)!r}]" if name else "bits"
            raise ValueError(f"{shown} expected an integer from 2 to 8, but got {value!r}.")
    for argument, value, known in (("cpu", cpu, CPUS), ("activations", activations, ACTIVATIONS)):
        if value not in known:
            hint = nearest(str(value), known)
            raise ValueError(f"{argument} expected one of {', '.join(known)}, but got {value!r}.{hint}")


def _bits_by_layer(network: nn.Module, bits: int | Mapping[str, int]) -> dict[str, int]:
    """Return the bits of each layer that is meant by name, pattern or class; of all others those of ``"*"``."""
    if not isinstance(bits, Mapping):
        return {"*": bits}
    names = {id(module): name for name, module in module_names(network).items()}
    found: dict[str, int] = {"*": bits.get("*", 8)}
    for entry, n in bits.items():
        for module in _with_parts(match_layers(network, [entry], "bits")):
            found.setdefault(names[id(module)], n)
    return found


def _plain(entry: str | type) -> str:
    return entry if isinstance(entry, str) else f"{entry.__module__}.{entry.__qualname__}"


def _with_parts(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [part for module in modules for part in module.modules()]


def prepare_(network: nn.Module, plan: Plan) -> FakeQuantizers:
    """Make a network observe the tensors of a plan, and round them once told to; returns what does.

    It keeps its modules, names, parameters and hooks, and gets one child module more, with buffers alone. A deep copy
    of it is one that rounds as well.

    Args:
        network: the module to change.
        plan: from :func:`plan_quantization`.

    Raises:
        ValueError: it is prepared already.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> rounds = prepare_(network, plan_quantization(network, torch.zeros(2, 4)))
        >>> _ = network(torch.rand(16, 4))  # in training mode: ranges are observed
        >>> rounds.round_(True)
        >>> is_quantized(network), [name for name, _ in network.named_parameters()]
        (True, ['0.weight', '0.bias', '2.weight', '2.bias'])
    """
    return insert_fake_quantizers_(find_network(network), plan["sites"], plan["float_layers"])


def quantize(
    network: nn.Module,
    loader: Iterable[Any],
    *,
    batches: int = 16,
    bits: int | Mapping[str, int] = 8,
    cpu: str = "any",
    activations: str = "unsigned",
    ignored_layers: Iterable[str | type] = (),
    batch_to_inputs: BatchToInputs = None,
    call: str = "forward",
    output: OutputSpec = None,
    progress: bool = True,
) -> nn.Module:
    """Return a copy that computes as in integers, without training: BatchNorms folded, ranges seen on a few batches.

    The copy is in eval mode; :func:`~lit_xai.runtime.onnx.export_onnx` writes it with integer weights. A range
    is the mean of what each batch spans. Of a network that is compiled, or whose parts are, the copy is not: functions
    inside have to be seen.

    Args:
        network: the module to copy; it stays as it is.
        loader: yields batches.
        batches: how many to look at.
        bits: see :func:`plan_quantization`, also for the rest.
        cpu: likewise.
        activations: likewise.
        ignored_layers: likewise.
        batch_to_inputs: what of a batch the network is called with.
        call: the method that is called.
        output: where the logits are in what it returns.
        progress: whether to show a progress bar.

    Raises:
        ValueError: an argument is wrong, the loader is empty, nothing can be quantised, or the outputs are not finite.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> loader = [torch.rand(8, 1, 8, 8) for _ in range(4)]
        >>> quantized = quantize(network, loader, progress=False)
        >>> with torch.no_grad():
        ...     float((quantized(loader[0]) - network.eval()(loader[0])).abs().max()) < 0.05
        True
    """
    if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
        raise ValueError(f"batches expected a positive integer, but got {batches!r}.")
    if not isinstance(network, nn.Module):
        raise ValueError(f"network expected a module, but got {describe(network)}.")
    if isinstance(loader, Tensor):
        raise ValueError(f"loader expected batches, such as a DataLoader's, but got {describe(loader)}: give [tensor].")
    check_scheme(bits, cpu, activations)
    with torch.inference_mode(False):
        return _quantized(
            uncompiled_(copy_network(find_network(network))),
            _first(loader, batches, progress),
            {"bits": bits, "cpu": cpu, "activations": activations, "ignored_layers": ignored_layers},
            batch_to_inputs,
            call,
            output,
        )


def _quantized(
    copied: nn.Module,
    loader: Iterable[Any],
    scheme: dict[str, Any],
    batch_to_inputs: BatchToInputs,
    call: str,
    output: OutputSpec,
) -> nn.Module:
    device = next((t.device for t in (*copied.parameters(), *copied.buffers())), torch.device("cpu"))
    inputs = (find_inputs(to_device(batch, device), copied, batch_to_inputs, call) for batch in loader)
    example = next(inputs, None)
    if example is None:
        raise ValueError("loader expected one or more batches, but got none.")
    with untouched(copied), torch.no_grad():
        check_call(copied, example, call, output)
    fold_batch_norms_(copied, find_foldable(copied, example, call, output))
    rounds = prepare_(copied, plan_quantization(copied, example, **scheme, call=call, output=output))
    calibrate_(copied, rounds, itertools.chain([example], inputs), call, output)
    for module in copied.modules():
        module.training = False
    return copied


def calibrate_(
    network: nn.Module,
    rounds: FakeQuantizers,
    inputs: Iterable[Inputs],
    call: str = "forward",
    output: OutputSpec = None,
) -> None:
    """Show a prepared network what it is called with, and have it round from then on; nothing else of it moves.

    Args:
        network: in any mode; runs in eval mode.
        rounds: its fake-quantisers.
        inputs: of several calls.
        call: the method that is called.
        output: where the logits are in what it returns.

    Raises:
        ValueError: the network gives numbers that are not finite.
    """
    for n, given in enumerate(inputs, start=1):
        rounds.averaging_(1 / n)
        with _only_observing(network, rounds), torch.no_grad():
            logits = call_network(network, given, call, output)
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(
                "The network's outputs expected finite numbers to calibrate with, but got NaN or infinity."
            )
    rounds.averaging_(AVERAGING)
    rounds.round_(True)


@contextlib.contextmanager
def _only_observing(network: nn.Module, rounds: FakeQuantizers) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    try:
        for module in modes:
            module.training = False
        rounds.training = True
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _first(loader: Iterable[Any], batches: int, progress: bool) -> Iterator[Any]:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

    shown = min(batches, len(loader)) if isinstance(loader, Sized) else batches
    with tqdm(total=shown, desc="calibration", disable=not progress, leave=False) as bar:
        for batch in itertools.islice(loader, batches):
            yield batch
            bar.update()


def is_quantized(network: nn.Module) -> bool:
    """Return whether a network, or a part of it, is prepared to compute as in integers.

    Example:
        >>> is_quantized(nn.Linear(4, 2))
        False
    """
    return find_fake_quantizers(network) is not None


def describe_quantization(network: nn.Module) -> dict[str, Any]:
    """Return what a prepared network computes in integers, and what in float and why; plain values.

    Args:
        network: the module, prepared or not.

    Returns:
        ``{"weights", "activations", "cpu", "integer": [layers], "float": {layer: reason}}``; empty where it is not
        prepared.

    Example:
        >>> network = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
        >>> rounds = prepare_(network, plan_quantization(network, torch.zeros(2, dtype=torch.long)))
        >>> describe_quantization(network)["float"]
        {'0': 'Embedding looks values up'}
    """
    rounds = find_fake_quantizers(network)
    if rounds is None:
        return {}
    prefix = next(name for name, module in network.named_modules() if module is rounds).removesuffix("fake_quantizers")
    weights = [site for site in rounds.sites.values() if site["channels"]]
    integer = list(dict.fromkeys(prefix + site["layer"] for site in weights))
    used = sorted({(site["high"] + 1).bit_length() for site in weights})
    low = next((site["low"] for site in rounds.sites.values() if not site["channels"]), 0)
    return {
        "weights": f"{' and '.join(map(str, used))} bits, symmetric, per output channel",
        "activations": "8 bits, 0..255, per tensor" if low == 0 else "8 bits, -128..127 around 0, per tensor",
        "cpu": "any" if used[-1] < 8 else "vnni or arm64",
        "integer": integer,
        "float": _reasons(network, set(integer), {prefix + name for name in rounds.float_layers}),
    }


def _reasons(network: nn.Module, integer: set[str], ignored: set[str]) -> dict[str, str]:
    """Say of every layer with parameters that is not among the integers why."""
    found = {}
    for name, module in module_names(network).items():
        own = any(True for _ in module.parameters(recurse=False)) or is_parametrized(module)
        if own and name not in integer and not isinstance(module, ParametrizationList):
            found[name] = "ignored" if name in ignored else _reason(module)
    return found


def _reason(module: nn.Module) -> str:
    kind = type(module).__name__
    for base, why in _WHY.items():
        if isinstance(module, base):
            return f"{kind} {why}"
    return f"{kind} has no operator in integers, or is not called"


_WHY: dict[Any, str] = {
    nn.Embedding: "looks values up",
    (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm): "normalises by what it is given",
    nn.modules.batchnorm._NormBase: "has no layer before it to be folded into",
    nn.RNNBase: "keeps its state in float",
    nn.modules.conv._ConvTransposeNd: "has no integer kernel in ONNX Runtime",
}
