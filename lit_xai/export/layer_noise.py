"""The noise of each layer in integers as ONNX Runtime computes it: an int8 file against itself without rounding."""

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_xai.network.calling import Inputs
from lit_xai.network.packages import require
from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.runtime.inspection import LayerNames
from lit_xai.runtime.session import open_session, session_feed

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})

# What stands between a product and the QuantizeLinear that runtimes fuse it with.
_FUSED = frozenset({"Add", "Relu", "Clip", "Reshape", "Identity", "LeakyRelu"})


@dataclass(frozen=True)
class Reading:
    """A value in an int8 file that is the output of a layer.

    Args:
        layer: its name.
        value: the name of the value that is read in the int8 file: integers, or floats where nothing rounds them.
        unrounded: the name of the value before it is rounded, in the file without rounding.
        scale: one step of the integers; ``None`` for floats.
        zero_point: the integer that represents 0.
    """

    layer: str
    value: str
    unrounded: str
    scale: float | None = None
    zero_point: int = 0


def signal_to_noise(signal: float, noise: float) -> float:
    """Return the ratio of two powers in dB.

    Example:
        >>> signal_to_noise(100.0, 1.0), signal_to_noise(1.0, 0.0)
        (20.0, inf)
    """
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def layer_noise(path: Path, weights: Iterable[Tensor], calls: Iterable[Inputs], threads: int = 1) -> dict[str, float]:
    """Return the signal-to-noise ratio in dB of the output of each layer that computes in integers.

    The file runs in ONNX Runtime twice: as it is, and with nothing rounded. What is read are integers behind layers,
    so that the runtime fuses and executes what it does otherwise.

    Args:
        path: of the int8 file.
        weights: those of the network before they were rounded, from :func:`unrounded_weights`.
        calls: inputs to run it on.
        threads: the number of threads for the runtime.

    Returns:
        By layer, in the order in which they run.
    """
    require("Reading an ONNX file", "onnx")
    import onnx

    model = onnx.load(path)
    readings = find_readings(model)
    if not readings:
        return {}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder:
        rounded, exact = Path(folder) / "rounded.onnx", Path(folder) / "exact.onnx"
        onnx.save(with_outputs(model, [one.value for one in readings]), rounded)
        unrounded = without_rounding(model, [weight.detach().float().numpy() for weight in weights], constants)
        onnx.save(with_outputs(unrounded, [one.unrounded for one in readings]), exact)
        sessions = open_session(rounded, threads), open_session(exact, threads)
    signal: defaultdict[str, float] = defaultdict(float)
    noise: defaultdict[str, float] = defaultdict(float)
    for inputs in calls:
        feed = session_feed(sessions[0], inputs)
        values = sessions[0].run([one.value for one in readings], feed)
        expected = sessions[1].run([one.unrounded for one in readings], feed)
        for one, got, wanted in zip(readings, values, expected, strict=True):
            signal[one.layer] += float(np.square(wanted, dtype=np.float64).sum())
            noise[one.layer] += float(np.square(_dequantized(one, got) - wanted, dtype=np.float64).sum())
    return {layer: signal_to_noise(signal[layer], noise[layer]) for layer in noise}


def _dequantized(reading: Reading, values: NDArray[Any]) -> NDArray[Any]:
    if reading.scale is None:
        return values
    return (values.astype(np.float32) - reading.zero_point) * np.float32(reading.scale)


def unrounded_weights(quantized: nn.Module, run: Any) -> list[Tensor]:
    """Return the weights of a quantized network's layers before they are rounded.

    Args:
        quantized: the network, its BatchNorms folded as in its file.
        run: calls it once.
    """
    weights: dict[str, Tensor] = {}
    fake_quantizers = find_fake_quantizers(quantized)
    assert fake_quantizers is not None
    with fake_quantizers.recording(lambda name, tensor: weights.update({name: tensor})):
        run()
    sites = fake_quantizers.sites
    return [tensor for name, tensor in weights.items() if name in sites and sites[name]["channels"]]


def find_readings(model: Any) -> list[Reading]:
    """Return the outputs of the layers of an int8 file whose weights are integers.

    Args:
        model: an ``onnx.ModelProto`` with QuantizeLinear and DequantizeLinear.
    """
    graph, names = model.graph, LayerNames(model.graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    consumers: defaultdict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    lookups = {node.output[0]: node for node in graph.node if node.op_type == "Gather"}
    readings = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and _is_of_table(node, lookups, constants):
            table = names.layer(lookups[node.input[0]])
            readings += [Reading(table, node.output[0], node.output[0])] if table is not None else []
            continue
        if node.op_type not in PRODUCTS or not any(_is_integer(name, producers, constants) for name in node.input):
            continue
        layer, value = names.layer(node), node.output[0]
        if layer is None:
            continue
        quantized = _quantized_behind(value, consumers, constants, {out.name for out in graph.output})
        if quantized is None:
            readings.append(Reading(layer, value, value))
        else:
            scale, zero = (_number(constants.get(name)) for name in quantized.input[1:3])
            readings.append(Reading(layer, quantized.output[0], quantized.input[0], float(scale), int(zero)))
    return readings


def _is_integer(name: str, producers: dict[str, Any], constants: dict[str, Any]) -> bool:
    """Return whether a value is a weight that is stored as integers."""
    while name in producers and producers[name].op_type in ("Transpose", "Reshape", "Identity"):
        name = producers[name].input[0]
    node = producers.get(name)
    if node is None or node.op_type != "DequantizeLinear":
        return False
    stored = constants.get(node.input[0])
    return stored is not None and len(stored.dims) > 1


def _quantized_behind(value: str, consumers: dict[str, list[Any]], constants: dict[str, Any], ends: set[str]) -> Any:
    """Return the QuantizeLinear of a value, or of what is fused with it; ``None`` where floats go on."""
    while True:
        following = consumers[value]
        quantize = next((node for node in following if node.op_type == "QuantizeLinear"), None)
        if quantize is not None:
            return quantize
        if len(following) != 1 or following[0].op_type not in _FUSED or value in ends:
            return None
        node = following[0]
        if node.op_type == "Add" and not any(name in constants for name in node.input):  # not a bias: a sum
            return None
        value = node.output[0]


def _number(tensor: Any) -> float:
    from onnx import numpy_helper

    return 0.0 if tensor is None else float(numpy_helper.to_array(tensor).reshape(-1)[0])


def with_outputs(model: Any, values: Sequence[str]) -> Any:
    """Return a copy of a model with some of its values as outputs as well."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    known = {value.name for value in copied.graph.output}
    # Without a type, which ONNX Runtime infers.
    for name in dict.fromkeys(name for name in values if name not in known):
        copied.graph.output.append(onnx.ValueInfoProto(name=name))
    return copied


def without_rounding(model: Any, weights: Sequence[NDArray[Any]], constants: dict[str, Any]) -> Any:
    """Return a copy of a model that computes the same in float: no value is rounded, and weights are as before.

    Args:
        model: an ``onnx.ModelProto`` with QuantizeLinear and DequantizeLinear.
        weights: those before rounding, in any order.
        constants: the stored tensors of the model by name.
    """
    import onnx
    from onnx import numpy_helper

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    before = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    lookups = {node.output[0]: node for node in model.graph.node if node.op_type == "Gather"}
    nodes, added = [], []
    for node in copied.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in before:
            nodes.append(onnx.helper.make_node("Identity", [before[node.input[0]]], [node.output[0]], name=node.name))
        elif node.op_type == "DequantizeLinear" and node.input[0] in constants:
            integers, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
            axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
            # Along another axis than a weight's: rows of a table that are the same in every call, such as positions.
            values = _unrounded(integers, scale, weights) if axis == 0 else _unrounded_rows(integers, scale, weights)
            added.append(numpy_helper.from_array(values, node.output[0]))
        elif node.op_type == "DequantizeLinear" and _is_of_table(node, lookups, constants):
            lookup, table = lookups[node.input[0]], f"{node.output[0]}/table"
            integers = numpy_helper.to_array(constants[lookup.input[0]])
            scale = numpy_helper.to_array(constants[node.input[1]])
            # Recorded with its columns first, which are its channels.
            added.append(numpy_helper.from_array(_unrounded(integers.T, scale, weights).T.copy(), table))
            nodes.append(onnx.helper.make_node("Gather", [table, lookup.input[1]], [node.output[0]], name=node.name))
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    del copied.graph.node[:]
    copied.graph.node.extend(nodes)
    copied.graph.initializer.extend(added)
    return copied


def _is_of_table(node: Any, lookups: dict[str, Any], constants: dict[str, Any]) -> bool:
    """Return whether what is dequantized are rows of a table of integers."""
    return node.input[0] in lookups and lookups[node.input[0]].input[0] in constants


def _unrounded(integers: NDArray[Any], scale: NDArray[Any], weights: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the weight that was rounded to these integers; where there is none, the integers times their scale."""
    steps = scale.reshape(-1, *(1,) * (integers.ndim - 1)) if scale.size > 1 else scale.reshape(())
    rounded = (integers.astype(np.float64) * steps).astype(np.float32)
    same = [weight for weight in _of_shape(weights, rounded.shape) if np.abs((weight - rounded) / steps).max() < 1]
    return same[0] if same else rounded


def _unrounded_rows(integers: NDArray[Any], scale: NDArray[Any], weights: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows of a table ``(..., columns)`` that were rounded to these integers, as :func:`_unrounded` does."""
    tables = [weight.T for weight in weights if weight.ndim == 2 and len(weight) == integers.shape[-1]]
    rows = (integers.astype(np.float64) * scale).astype(np.float32).reshape(-1, integers.shape[-1])
    for table in tables:
        steps = [np.abs((table - row) / scale).max(1) for row in rows]
        if all(distance.min() < 1 for distance in steps):
            return np.stack([table[distance.argmin()] for distance in steps]).reshape(integers.shape)
    return rows.reshape(integers.shape)


def _of_shape(weights: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    yield from (weight for weight in weights if weight.shape == shape)
