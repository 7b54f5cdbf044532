"""The first layer whose output in a file, in a runtime, is not the network's."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_xai.export.layer_noise import PRODUCTS, Reading, find_readings, with_outputs
from lit_xai.network.calling import Inputs, OutputSpec, call_network
from lit_xai.runtime.inspection import LayerNames
from lit_xai.runtime.loaded import LoadedModel, caller_of

LARGEST = 0.02
"""The mean difference, relative to the largest number in a layer's output, from which on the output is another one."""


@dataclass(frozen=True)
class LayerDifference:
    """How far a layer's output in a file is from the network's.

    Args:
        layer: its name.
        mean: the mean difference, relative to the largest number in the output.
    """

    layer: str
    mean: float


def first_difference(
    network: nn.Module,
    path: Path,
    load: Callable[[Path], LoadedModel],
    inputs: Inputs,
    output: OutputSpec = None,
    limit: float = LARGEST,
) -> LayerDifference | None:
    """Return the first layer whose output differs by more than a limit, in the order of the file; ``None``: none does.

    Outputs are read behind the rounding that a runtime does together with the layer, so that it executes what it does
    otherwise, and compared with the network's where that can represent them.

    Args:
        network: the file was written from, with fake-quantize modules where it holds integers.
        path: of the ONNX file.
        load: loads a file in the runtime.
        inputs: what both are called with.
        output: the logits in the network's output.
        limit: on the mean difference, relative to the largest number in the output.
    """
    import onnx

    model = onnx.load(path)
    readings = _readings(model, network)
    expected = _outputs(network, {one.layer for one in readings}, inputs, output)
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder:
        tapped = Path(folder) / path.name
        with_all = with_outputs(model, [one.value for one in readings])
        onnx.save(with_all, tapped)
        arrays = caller_of(load(tapped), path.name, inputs)()
    values = dict(zip((value.name for value in with_all.graph.output), arrays, strict=True))
    for one in readings:
        apart = [_apart(one, values[one.value], tensor) for tensor in expected.get(one.layer, ())]
        known = [mean for mean in apart if mean is not None]
        if known and not min(known) <= limit:
            return LayerDifference(one.layer, min(known))
    return None


def describe_difference(found: LayerDifference | None) -> str:
    """Return the layer in a sentence.

    Example:
        >>> describe_difference(LayerDifference("fc", 0.31))
        'The first layer that differs is fc: its output does by 0.31 of its largest number on average.'
    """
    if found is None:
        return "The outputs of its layers are the network's: what is between or behind them differs."
    return (
        f"The first layer that differs is {found.layer}: its output does by {found.mean:.2g} of its largest number on"
        " average."
    )


def _readings(model: Any, network: nn.Module) -> list[Reading]:
    """Return the outputs of layers, in integers and in float, in the order of the file."""
    integer = {one.layer: one for one in find_readings(model)}
    names, found, modules = LayerNames(model.graph), dict[str, Reading](), dict(network.named_modules())
    constants = {tensor.name for tensor in model.graph.initializer}
    consumers = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        layer, value = names.layer(node), node.output[0]
        bias = consumers.get(value)
        if bias is not None and bias.op_type == "Add" and any(name in constants for name in bias.input):
            value = bias.output[0]
            if layer is None:
                # A weight that was transposed when the file was written has lost its name; the bias has one. Zeros of
                # one shape share a name, which may be that of a normalization.
                layer = names.layer(bias)
                layer = layer if isinstance(modules.get(layer or ""), nn.Linear) else None
        if layer is not None and layer not in found:
            known = integer.get(layer)
            found[layer] = known if known is not None and known.scale is not None else Reading(layer, value, value)
    return [*found.values()]


def _outputs(network: nn.Module, layers: set[str], inputs: Inputs, output: OutputSpec) -> dict[str, list[Tensor]]:
    """Return the first output of each of these layers, and of a BatchNorm that follows it, which files have folded."""
    found: dict[str, list[Tensor]] = {}
    last = ""

    def keep(name: str, module: nn.Module, result: Any) -> None:
        nonlocal last
        if not isinstance(result, Tensor):
            return
        if name in layers and name not in found:
            found[name], last = [result], name
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and len(found.get(last, ())) == 1:
            found[last].append(result)
        elif not any(True for _ in module.children()):
            last = ""

    handles = [
        module.register_forward_hook(lambda module, args, result, name=name: keep(name, module, result))
        for name, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            call_network(network, inputs, output=output)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _apart(reading: Reading, value: NDArray[Any], tensor: Tensor) -> float | None:
    """Return the mean difference relative to the largest number; ``None`` where the two are no such outputs."""
    got, expected = value.astype(np.float64), tensor.detach().double().numpy()
    if got.size != expected.size:
        return None
    if reading.scale is not None:
        limits = np.iinfo(value.dtype) if value.dtype.kind in "iu" else np.iinfo(np.uint8)
        got = (got - reading.zero_point) * reading.scale
        low, high = ((limit - reading.zero_point) * reading.scale for limit in (limits.min, limits.max))
        expected = expected.clip(low, high)  # a ReLU is part of the rounding: nothing below 0 has an integer
    scale = np.abs(expected).max() or 1.0
    return float(np.abs(got.reshape(expected.shape) - expected).mean() / scale)
