"""Networks that compute in integers: planned, prepared for training, calibrated without training, described."""

import contextlib
import itertools
import sys
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
from lit_xai.network.check import check_choice, check_integer, refusal
from lit_xai.network.copying import copy_network, uncompiled_
from lit_xai.network.describing import describe
from lit_xai.network.keras import refuse_keras
from lit_xai.network.layers import match_layers
from lit_xai.network.linearized import linearize_
from lit_xai.network.metric import Metric
from lit_xai.network.trees import to_device
from lit_xai.network.untouched import untouched
from lit_xai.quantization.fake_quantizers import NAME, FakeQuantizers, find_fake_quantizers, insert_fake_quantizers_
from lit_xai.quantization.folding import find_foldable, fold_batch_norms_
from lit_xai.quantization.observers import AVERAGING, Site
from lit_xai.quantization.rounding import Placement, owners_of_weights
from lit_xai.quantization.running import Running
from lit_xai.quantization.tables import Lookup, is_table

CPUS = ("any", "vnni", "arm64")
"""The CPUs that integers are for. Without VNNI, x86 adds two 8-bit products in 16 bits, which can overflow unless
weights have only 7 bits (ONNX Runtime's ``reduce_range``)."""

ACTIVATIONS = ("unsigned", "symmetric", "float")
"""What activations are quantized to; with ``"float"`` only weights are, which products in float take."""

IN_FLOAT = "in float"
"""How activations are described that are not quantized."""

Plan = dict[str, Any]
"""The tensors to quantize, as plain values: ``{"sites", "float_layers", "norms", "scheme"}``.

``"norms"`` are pairs of a layer's name and that of the BatchNorm that will be folded into it. Plans of 0.1 have none,
as it folded before it planned.
"""


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
    """Return which tensors of a network to quantize, by running it once; the network is left unchanged.

    Weights are quantized per output channel to integers symmetric around 0, tables of embeddings per column, everything
    else per tensor to 0..255 (`Krishnamoorthi 2018 <https://arxiv.org/abs/1806.08342>`_); see
    :mod:`~lit_xai.quantization.rounding` for which.

    Args:
        network: the module. A BatchNorm that can be folded into the layer before it
            (:func:`~lit_xai.quantization.folding.find_foldable`) is treated as part of that layer.
        example_inputs: the inputs of one call.
        bits: of weights, 2 to 8: for all layers, or by names and patterns with ``*``, of which the first match counts.
            Runtimes compute in 8 bits in any case: fewer bits test what a network tolerates, and do not make it faster.
            With 2 bits, four values per weight, networks often fail, even when trained for it: use them only for layers
            that tolerate it.
        cpu: ``"any"``: 8 bits in weights become 7, with correct results on every x86; ``"vnni"`` or ``"arm64"``: all 8,
            for CPUs with AVX-512 VNNI, AVX-VNNI or AMX, and for ARM. Tables, which nothing is multiplied with, have 8.
        activations: ``"unsigned"``; ``"symmetric"``: -128..127 around 0, as GPU runtimes need it; or ``"float"``:
            weights alone become integers, all 8 bits of them whatever the CPU, for a file of a quarter the size.
        ignored_layers: layers that stay in float: names, patterns or classes; a module's submodules are included.
        call: the method that is called.
        output: the logits in its output: a key, an attribute, an index or a function.

    Raises:
        ValueError: an argument is wrong, or nothing can be quantized.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> [site["name"] for site in plan_quantization(network, torch.zeros(2, 4))["sites"]]
        ['0/linear/input', '0/linear/weight', '2/linear/input', '2/linear/weight']
    """
    network = find_network(network)
    check_scheme(bits, cpu, activations)
    # Fake-quantizers start and stop in the hooks of forward: other methods call no hooks.
    if call != "forward":
        raise refusal(
            "call",
            "'forward', as a network is quantized while that runs",
            call,
            ": name the submodule whose forward it calls with module=.",
        )
    if find_fake_quantizers(network) is not None:
        raise ValueError(
            f"network expected a module without fake-quantizers, but {type(network).__name__} has some already."
        )
    bits_of = _bits_by_layer(network, bits)
    ignored = set(map(id, _with_submodules(match_layers(network, ignored_layers, "ignored_layers"))))
    float_layers = [name for name, module in module_names(network).items() if id(module) in ignored]
    norms = find_foldable(network, example_inputs, call, output)
    sites: dict[str, Site] = {}

    most = most_bits(cpu, activations)

    def add_site(name: str, tensor: Tensor, layer: str) -> Tensor:
        if activations == "float" and not name.endswith("/weight"):
            return tensor
        sites[name] = {"name": name, "layer": layer}
        if name.endswith("/weight"):
            # A table is looked up in, and no product of it can overflow.
            weight_bits = min(bits_of.get(layer, bits_of["*"]), 8 if is_table(name) else most)
            low, high = -(2 ** (weight_bits - 1)), 2 ** (weight_bits - 1) - 1
            sites[name] |= {"low": low, "high": high, "channels": len(tensor)}
        else:
            low, high = (0, 255) if activations == "unsigned" else (-128, 127)
            sites[name] |= {"low": low, "high": high, "channels": 0}
        return tensor.view_as(tensor)  # another tensor, which Placement takes for the quantized one

    def add_table(name: str, lookup: Lookup, layer: str) -> Tensor:
        add_site(name, lookup.columns, layer)
        return lookup.rows

    # One forward decides which tensors have sites; training and export then follow the same rules at the same places.
    passing = [norm for _, norm in norms]
    placement = Placement(add_site, owners_of_weights(network), float_layers, passing=passing, quantize_rows=add_table)
    run_placement(network, placement, example_inputs, call, output)
    for name, site_of_inputs in placement.inputs_of.items():
        if site_of_inputs in sites:
            sites[name]["inputs"] = site_of_inputs
    if not any(site["channels"] for site in sites.values()):
        refuse_keras(network, "Quantization")
        raise ValueError(
            f"{type(network).__name__} calls no convolution or linear layer that can be quantized: name fewer"
            " ignored_layers=, or another module=."
        )
    # The scheme is stored in checkpoints, which hold plain values alone: classes are stored by import path.
    plain_bits = {_plain(entry): n for entry, n in bits.items()} if isinstance(bits, Mapping) else bits
    scheme = {"bits": plain_bits, "cpu": cpu, "activations": activations}
    pairs = [list(pair) for pair in norms]
    return {"sites": list(sites.values()), "float_layers": float_layers, "norms": pairs, "scheme": scheme}


def run_placement(network: nn.Module, placement: Placement, inputs: Inputs, call: str, output: OutputSpec) -> None:
    """Run a network without fake-quantizers under a placement, once; it is left unchanged."""
    running = Running(network, placement)

    def finish(result: Any) -> Tensor:
        running.stop()  # reading the logits out of the result is no part of the network
        return find_logits(placement.finish(result), output)

    with untouched(network), torch.no_grad():
        running.start()
        try:
            call_network(network, inputs, call, finish)
        finally:
            running.stop()


def check_scheme(bits: Any, cpu: Any, activations: Any) -> None:
    """Check the arguments of a quantization scheme.

    Raises:
        ValueError: names the argument that is wrong.
    """
    for name, value in bits.items() if isinstance(bits, Mapping) else [("", bits)]:
        check_integer(f"bits[{_plain(name)!r}]" if name else "bits", value, 2, 8)
    check_choice("cpu", cpu, CPUS)
    check_choice("activations", activations, ACTIVATIONS)


def most_bits(cpu: str, activations: str) -> int:
    """Return how many bits weights may have.

    Example:
        >>> most_bits("any", "unsigned"), most_bits("vnni", "unsigned"), most_bits("any", "float")
        (7, 8, 8)
    """
    # With 7 bits, two products of uint8 * int8 fit into the 16 bits that x86 without VNNI adds them in.
    return 7 if cpu == "any" and activations != "float" else 8


def _bits_by_layer(network: nn.Module, bits: int | Mapping[str, int]) -> dict[str, int]:
    """Return the bits of each layer that a name, pattern or class matches; under ``"*"`` those of all others."""
    if not isinstance(bits, Mapping):
        return {"*": bits}
    names = {id(module): name for name, module in module_names(network).items()}
    bits_of: dict[str, int] = {"*": bits.get("*", 8)}
    for entry, n in bits.items():
        for module in _with_submodules(match_layers(network, [entry], "bits")):
            # setdefault, so that the first entry that matches counts.
            bits_of.setdefault(names[id(module)], n)
    return bits_of


def _plain(entry: str | type) -> str:
    return entry if isinstance(entry, str) else f"{entry.__module__}.{entry.__qualname__}"


def _with_submodules(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [submodule for module in modules for submodule in module.modules()]


def prepare_(network: nn.Module, plan: Plan) -> FakeQuantizers:
    """Have a network observe the tensors of a plan, and fake-quantize them once that is enabled.

    It keeps its modules, names, parameters and hooks, and gets one more child module, with only buffers, which is
    returned. A deep copy of the network is quantized as well.

    Args:
        network: the module to change.
        plan: from :func:`plan_quantization`.

    Raises:
        ValueError: the network is prepared already.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> fake_quantizers = prepare_(network, plan_quantization(network, torch.zeros(2, 4)))
        >>> _ = network(torch.rand(16, 4))  # in training mode: ranges are observed
        >>> fake_quantizers.enable_fake_quant_(True)
        >>> is_quantized(network), [name for name, _ in network.named_parameters()]
        (True, ['0.weight', '0.bias', '2.weight', '2.bias'])
    """
    return insert_fake_quantizers_(find_network(network), plan["sites"], plan["float_layers"], plan.get("norms", ()))


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
    max_drop: float | None = None,
    metric: Metric | None = None,
    higher_is_better: bool | None = None,
) -> nn.Module:
    """Return a copy that computes as in integers, without training.

    BatchNorms are folded, and ranges are observed on some batches; a range is the mean of the batches' ranges. The copy
    is in eval mode; :func:`~lit_xai.runtime.onnx.export_onnx` writes it with integer weights. The copy of a compiled
    network is not compiled, as the functions inside have to be intercepted.

    With ``max_drop`` the layers that cost most of a metric stay in float, as few as possible: they are chosen on all
    batches of the loader, the one that adds most noise to the logits first. A line says which, and what was reached.

    Args:
        network: the module to copy; it is left unchanged.
        loader: yields batches; with ``max_drop`` again and again, the same ones, with labels.
        batches: how many of them to calibrate on.
        bits: of weights; see :func:`plan_quantization`.
        cpu: see :func:`plan_quantization`.
        activations: see :func:`plan_quantization`.
        ignored_layers: see :func:`plan_quantization`.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several or a function.
        call: the method that is called.
        output: the logits in its output: a key, an attribute, an index or a function.
        progress: whether to show a progress bar.
        max_drop: how much a metric may be worse than in float, in its own unit; default no limit.
        metric: with ``max_drop``: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function that
            takes a network and returns a number; default the accuracy.
        higher_is_better: of the metric, where it has no attribute of that name.

    Raises:
        ValueError: an argument is wrong, the loader is empty, nothing can be quantized, or the outputs are not finite.

    Warns:
        UserWarning: no set of layers that was tried is within ``max_drop``; the best one stays in float.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> loader = [torch.rand(8, 1, 8, 8) for _ in range(4)]
        >>> quantized = quantize(network, loader, progress=False)
        >>> with torch.no_grad():
        ...     float((quantized(loader[0]) - network.eval()(loader[0])).abs().max()) < 0.05
        True
    """
    check_integer("batches", batches)
    if not isinstance(network, nn.Module):
        raise ValueError(f"network expected a module, but got {describe(network)}.")
    if isinstance(loader, Tensor):
        raise ValueError(f"loader expected batches, such as a DataLoader's, but got {describe(loader)}: give [tensor].")
    check_scheme(bits, cpu, activations)
    if max_drop is not None:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

        from lit_xai.quantization.float_layers import quantize_within  # which calls this function

        options: dict[str, Any] = {
            "bits": bits,
            "cpu": cpu,
            "activations": activations,
            "ignored_layers": ignored_layers,
        }
        options |= {"batches": batches, "batch_to_inputs": batch_to_inputs, "output": output, "progress": progress}
        quantized, found = quantize_within(
            network, loader, max_drop, metric=metric, higher_is_better=higher_is_better, call=call, **options
        )
        if progress and found.is_reached:
            tqdm.write(str(found), file=sys.stderr)
        return quantized
    if metric is not None:
        raise refusal("metric", "None, as nothing is measured without max_drop", metric, ": give max_drop= as well.")
    # Parameters that are made in inference mode cannot enter autograd later.
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
    # The copy is for export: linear layers that hold their weight the other way round become the usual ones.
    linearize_(copied)
    # Nothing trains here that would need its BatchNorms, and the copy runs faster without them.
    fold_batch_norms_(copied, find_foldable(copied, example, call, output))
    fake_quantizers = prepare_(copied, plan_quantization(copied, example, **scheme, call=call, output=output))
    calibrate_(copied, fake_quantizers, itertools.chain([example], inputs), call, output)
    # Not eval(): modules override it to merge weights (LoRA), or raise in it (exported programs).
    for module in copied.modules():
        module.training = False
    return copied


def calibrate_(
    network: nn.Module,
    fake_quantizers: FakeQuantizers,
    inputs: Iterable[Inputs],
    call: str = "forward",
    output: OutputSpec = None,
) -> None:
    """Observe ranges on a few inputs, and have the network quantize from then on; nothing else of it changes.

    Args:
        network: prepared, in any mode; it runs in eval mode.
        fake_quantizers: those of the network.
        inputs: of several calls.
        call: the method that is called.
        output: the logits in its output: a key, an attribute, an index or a function.

    Raises:
        ValueError: an output is not finite.
    """
    for n, given in enumerate(inputs, start=1):
        # 1/n for the n-th batch: the range is the mean of the batches' ranges.
        fake_quantizers.set_averaging_constant_(1 / n)
        with _only_observing(network, fake_quantizers), torch.no_grad():
            logits = call_network(network, given, call, output)
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(
                "The network's outputs expected finite numbers to calibrate with, but got NaN or infinity."
            )
    fake_quantizers.set_averaging_constant_(AVERAGING)
    fake_quantizers.enable_fake_quant_(True)


@contextlib.contextmanager
def _only_observing(network: nn.Module, fake_quantizers: FakeQuantizers) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    try:
        # Only the fake-quantizers observe in training mode: BatchNorm and dropout have to stay in eval mode.
        for module in modes:
            module.training = False
        fake_quantizers.training = True
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _first(loader: Iterable[Any], batches: int, progress: bool) -> Iterator[Any]:
    from tqdm.auto import tqdm

    shown = min(batches, len(loader)) if isinstance(loader, Sized) else batches
    with tqdm(total=shown, desc="calibration", disable=not progress, leave=False) as bar:
        for batch in itertools.islice(loader, batches):
            yield batch
            bar.update()


def is_quantized(network: nn.Module) -> bool:
    """Return whether a network, or a submodule of it, has fake-quantizers.

    Example:
        >>> is_quantized(nn.Linear(4, 2))
        False
    """
    return find_fake_quantizers(network) is not None


def describe_quantization(network: nn.Module) -> dict[str, Any]:
    """Return which layers of a prepared network compute in integers, and which in float and why, as plain values.

    Args:
        network: the module, prepared or not.

    Returns:
        ``{"weights", "activations", "cpu", "integer": [layers], "tables": [layers], "float": {layer: reason}}``; empty
        if it is not prepared. ``"tables"`` are stored as integers, and what is looked up in them is float.

    Example:
        >>> network = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2), nn.LayerNorm(2))
        >>> fake_quantizers = prepare_(network, plan_quantization(network, torch.zeros(2, dtype=torch.long)))
        >>> described = describe_quantization(network)
        >>> described["integer"], described["tables"], described["float"]
        (['1'], ['0'], {'2': 'LayerNorm normalizes by the statistics of its input'})
    """
    fake_quantizers = find_fake_quantizers(network)
    if fake_quantizers is None:
        return {}
    prefix = next(name for name, module in network.named_modules() if module is fake_quantizers).removesuffix(NAME)
    weights = [site for site in fake_quantizers.sites.values() if site["channels"] and not is_table(site["name"])]
    activations = [site for site in fake_quantizers.sites.values() if not site["channels"]]
    integer = list(dict.fromkeys(prefix + site["layer"] for site in weights))
    looked_up = [prefix + site["layer"] for site in fake_quantizers.sites.values() if is_table(site["name"])]
    tables = [layer for layer in dict.fromkeys(looked_up) if layer not in integer]
    bits = sorted({(site["high"] + 1).bit_length() for site in weights or fake_quantizers.sites.values()})
    is_symmetric = bool(activations) and activations[0]["low"] < 0
    words = "8 bits, -128..127 around 0, per tensor" if is_symmetric else "8 bits, 0..255, per tensor"
    return {
        "weights": f"{' and '.join(map(str, bits))} bits, symmetric, per output channel",
        "activations": words if activations else IN_FLOAT,
        "cpu": "any" if bits[-1] < 8 or not activations or not weights else "vnni or arm64",
        "integer": integer,
        "tables": tables,
        "float": _float_layers(
            network,
            {*integer, *tables, *(prefix + norm for norm in fake_quantizers.norms.values())},
            {prefix + name for name in fake_quantizers.float_layers},
        ),
    }


def _float_layers(network: nn.Module, integer: set[str], ignored: set[str]) -> dict[str, str]:
    """Return every layer with parameters of its own that is not part of an integer operator, and the reason."""
    reasons = {}
    for name, module in module_names(network).items():
        has_parameters = any(True for _ in module.parameters(recurse=False)) or is_parametrized(module)
        # A parametrization's own module holds the original weight, but is no layer.
        if has_parameters and name not in integer and not isinstance(module, ParametrizationList):
            reasons[name] = "ignored" if name in ignored else _reason(module)
    return reasons


def _reason(module: nn.Module) -> str:
    kind = type(module).__name__
    for base, why in _WHY.items():
        if isinstance(module, base):
            return f"{kind} {why}"
    return f"{kind} has no operator in integers, or is not called"


_WHY: dict[Any, str] = {
    nn.Embedding: "is not called, or changes its table when it is",
    (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm): "normalizes by the statistics of its input",
    nn.modules.batchnorm._NormBase: "has no layer before it to fold it into",
    nn.RNNBase: "keeps its state in float",
    nn.modules.conv._ConvTransposeNd: "has no integer kernel in ONNX Runtime",
}
