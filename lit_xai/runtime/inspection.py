"""The operators that ONNX Runtime executes in integers, which need not be those that the file holds in integers."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_xai.network.packages import require
from lit_xai.runtime.session import open_session

OPERATORS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "convolution": (
        frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "ConvTransposeWithDynamicPads"}),
        frozenset({"QLinearConv", "QLinearConvTranspose", "ConvInteger"}),
    ),
    "matrix product": (
        # MatMulNBits takes weights in integers, and activations in float.
        frozenset(
            {"MatMul", "FusedMatMul", "FusedMatMulActivation", "Gemm", "FusedGemm", "GemmFloat8", "Einsum"}
            | {"MatMulNBits"}
        ),
        frozenset({"QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}),
    ),
    "attention": (frozenset({"Attention", "MultiHeadAttention"}), frozenset({"QAttention"})),
    "recurrent layer": (frozenset({"LSTM", "GRU", "RNN"}), frozenset({"DynamicQuantizeLSTM"})),
    "sum": (frozenset({"Add", "Sum", "SkipLayerNormalization"}), frozenset({"QLinearAdd"})),
    "average": (
        frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"}),
        frozenset({"QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean"}),
    ),
}
"""Operators of ONNX Runtime by what they compute: those in float, and those in integers."""

_INTEGER = frozenset().union(*(integer for _, integer in OPERATORS.values()))

# Operators between a weight in the file and the operator that computes with it.
_WRAPPERS = {"DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Cast", "Identity", "Unsqueeze", "Squeeze"}

_PARAMETER = re.compile(r"^network\.(?:(.+)\.)?[^.]+$")


@dataclass(frozen=True)
class Operator:
    """One operator that ONNX Runtime executes.

    Args:
        kind: ``"convolution"``, ``"matrix product"``, ``"sum"`` ...
        type: its name in the graph that is executed, such as ``"QLinearConv"``.
        layer: the module whose weights it takes (for a sum, its terms), or its name in the file where that is unknown.
        integer: whether it computes in integers.
    """

    kind: str
    type: str
    layer: str
    integer: bool

    def __str__(self) -> str:
        return f"{self.layer} ({self.type})"


def inspect_onnx(path: str | os.PathLike[str]) -> tuple[Operator, ...]:
    """Return the products, sums of activations and averages of a file as ONNX Runtime executes them on this CPU.

    The runtime fuses and replaces operators when it loads the file; its optimized graph is read. Adding a bias is not
    listed as a sum, and a product of two activations, as in attention, is of a kind of its own.

    Args:
        path: of the ONNX file.

    Raises:
        ValueError: the file is no ONNX file.

    Example:
        >>> import torch
        >>> from lit_xai.runtime.onnx import export_onnx
        >>> path = Path(tempfile.mkdtemp()) / "network.onnx"
        >>> export_onnx(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()), torch.zeros(1, 4), path)
        >>> [str(operator) for operator in inspect_onnx(path)]
        ['0 (FusedGemm)']
    """
    require("Reading an ONNX file", "onnx")
    import onnx

    graph = onnx.load_from_string(_optimized(Path(path))).graph
    names = LayerNames(onnx.load(path).graph)
    constant = {tensor.name for tensor in graph.initializer}
    operators = []
    for node in graph.node:
        # Operators on constants alone, such as the dequantization of a weight, give constants.
        if node.input and all(name in constant for name in node.input if name):
            constant.update(node.output)
        kind = _kind(node, constant)
        if kind is not None:
            integer = node.op_type in _INTEGER
            operators.append(Operator(kind, node.op_type, names.of(node, kind), integer))
    return tuple(operators)


def stored_weights(path: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """Return the output channels and the bits of the weights that products and convolutions of a file are stored with.

    Args:
        path: of the ONNX file.

    Returns:
        By layer, or by the operator's name in the file where that is unknown.

    Example:
        >>> import torch
        >>> from lit_xai.runtime.onnx import export_onnx
        >>> path = Path(tempfile.mkdtemp()) / "network.onnx"
        >>> export_onnx(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()), torch.zeros(1, 4), path)
        >>> stored_weights(path)
        {'0': (2, 32)}
    """
    require("Reading an ONNX file", "onnx")
    import onnx

    graph = onnx.load(Path(path), load_external_data=False).graph
    names, weights = LayerNames(graph), {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, tuple[int, int]] = {}
    products = OPERATORS["convolution"], OPERATORS["matrix product"]
    for node in graph.node:
        if not any(node.op_type in either for kind in products for either in kind):
            continue
        constants = [weights[name] for name in names.constants(node)]
        matrices = [tensor for tensor in constants if len(tensor.dims) > 1]
        if matrices:
            layer = names.layer(node) or node.name or node.output[0]
            found[layer] = _outputs(node, list(matrices[0].dims)), _bits(matrices[0])
    return found


def _outputs(node: Any, dims: list[int]) -> int:
    is_transposed = any(one.name == "transB" and one.i for one in node.attribute)
    if "ConvTranspose" in node.op_type:
        return dims[1]
    return dims[0] if is_transposed or "Conv" in node.op_type else dims[-1]


def _bits(tensor: Any) -> int:
    import onnx

    name = str(onnx.TensorProto.DataType.Name(tensor.data_type))
    digits = re.findall(r"\d+", name)  # FLOAT16, INT8, UINT4, FLOAT8E4M3FN
    return int(digits[0]) if digits else {"FLOAT": 32, "DOUBLE": 64}.get(name, 32)


def _kind(node: Any, constant: set[str]) -> str | None:
    kind = next((kind for kind, types in OPERATORS.items() if any(node.op_type in known for known in types)), None)
    if node.op_type == "Add" and any(name in constant for name in node.input):
        return None  # a bias, or positions
    if kind == "matrix product" and not any(name in constant for name in node.input):
        return "activation product"
    return kind


def _optimized(path: Path) -> bytes:
    """Return the graph that ONNX Runtime optimizes a file to, serialized."""
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        # The exported graph holds float operators between QuantizeLinear and DequantizeLinear; only the runtime's
        # optimized graph shows which of them became integer operators.
        open_session(path, optimized_path=optimized)
        return optimized.read_bytes()


class LayerNames:
    """Finds the layers of executed operators by the names from the file that their own names contain.

    ONNX Runtime appends ``_token_7`` to the name of an operator that it replaced, ``_nchwc`` to the output of one that
    it fused, and prepends ``fused``.
    """

    def __init__(self, graph: Any) -> None:
        self._producers = {name: node for node in graph.node for name in node.output}
        self._nodes = {node.name: node for node in graph.node}
        self._weights = {tensor.name for tensor in graph.initializer}

    def of(self, node: Any, kind: str) -> str:
        """Return the layer of an executed operator."""
        original = self._original(node)
        return str(node.name) if original is None else self._of_original(original, kind)

    def named(self, names: Iterable[str], kind: str) -> str | None:
        """Return the layer of an executed operator by the names of those in the file that it stands for.

        The first of them that the file has, or whose output has that name; ``None`` where there is none.
        """
        known = (self._nodes.get(name) or self._producers.get(name) for name in names)
        original = next((node for node in known if node is not None), None)
        return None if original is None else self._of_original(original, kind)

    def _of_original(self, original: Any, kind: str) -> str:
        if kind == "sum" and original.op_type == "Add":
            return " + ".join(self._source(name) for name in original.input)
        return self.layer(original) or (self._source(original.output[0]) if kind == "convolution" else original.name)

    def _original(self, node: Any) -> Any:
        # An operator may have kept its name, or only the name of its output.
        cleaned = re.sub(r"_(nchwc|token_\d+)$", "", node.name.removeprefix("fused ").split("/")[0])
        if cleaned in self._nodes:
            return self._nodes[cleaned]
        return next((self._producers[name] for name in (cleaned, *node.output) if name in self._producers), None)

    def layer(self, node: Any) -> str | None:
        """Return the module that an operator's weights belong to."""
        for name in self.constants(node):
            parameter = _PARAMETER.match(name)
            if parameter:
                return parameter[1] or "network"
        return None

    def constants(self, node: Any) -> Iterator[str]:
        """Yield the names of the stored tensors that an operator takes, through what only changes their form."""
        for name in node.input:
            while name in self._producers and self._producers[name].op_type in _WRAPPERS:
                name = self._producers[name].input[0]
            if name in self._weights:
                yield name

    def _source(self, name: str) -> str:
        """Return the layer, or the sum, that a value comes from."""
        seen = 0
        while name in self._producers and seen < len(self._nodes):
            node = self._producers[name]
            if node.op_type == "Add" and not any(True for _ in self.constants(node)):
                return "sum"
            if node.op_type not in _WRAPPERS and self.layer(node):
                return str(self.layer(node))
            name, seen = node.input[0], seen + 1
        return name
