"""The operators that OpenVINO executes in integers, read from the graph that it compiles a file to."""

import os
from pathlib import Path
from typing import Any

from lit_xai.network.packages import require
from lit_xai.runtime.inspection import LayerNames, Operator

KINDS = {
    "Convolution": "convolution",
    "Deconvolution": "convolution",
    "FullyConnected": "matrix product",
    "MatMul": "matrix product",
    "RNNSeq": "recurrent layer",
    "RNNCell": "recurrent layer",
    "ScaledDotProductAttention": "attention",
    "Eltwise": "sum",
    "Pooling": "average",
    "Reduce": "average",
}
"""What the layer types of OpenVINO's executed graph compute."""

_INTEGER = ("u8", "i8")


def inspect_openvino(compiled: Any, path: str | os.PathLike[str]) -> tuple[Operator, ...]:
    """Return the products, sums of activations and averages of an ONNX file as OpenVINO executes them on this CPU.

    Sums that it computes inside a convolution are not listed.

    Args:
        compiled: the compiled model.
        path: of the ONNX file that it was compiled from, for the names of layers.
    """
    require("Reading an ONNX file", "onnx")
    import onnx

    is_onnx = Path(path).suffix != ".xml"
    names = LayerNames(onnx.load(path).graph) if is_onnx else None
    operators = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        kind = KINDS.get(_info(node, "layerType"))
        if kind is None:
            continue
        weights = [one.get_node() for one in node.input_values()[1:]]
        if kind == "matrix product" and not any(_info(one, "layerType") == "Const" for one in weights):
            kind = "activation product"
        if kind == "sum" and "add" not in node.get_friendly_name().lower():
            continue  # a product or a difference of activations
        precision = _info(node, "runtimePrecision")
        originals = [name.split("/")[0] for name in _info(node, "originalLayersNames").split(",")]
        layer = (names.named(originals, kind) if names else None) or node.get_friendly_name()
        operators.append(Operator(kind, f"{_info(node, 'layerType')} {precision}", layer, precision in _INTEGER))
    return tuple(operators)


def _info(node: Any, name: str) -> str:
    info = node.get_rt_info()
    return str(info[name].astype(str)) if name in info else ""
