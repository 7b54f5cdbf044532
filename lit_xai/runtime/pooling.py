"""Means over all of a map's pixels in an ONNX graph, as the operator that runtimes compute in integers."""

from typing import Any


def pool_globally_(graph: Any) -> int:
    """Replace means over all spatial dimensions with GlobalAveragePool, and return how many there were.

    PyTorch's exporter writes ``AdaptiveAvgPool2d(1)`` and ``x.mean((2, 3))`` as ReduceMean. ONNX Runtime computes
    GlobalAveragePool in integers between two quantizations, and ReduceMean in float: four more operators.

    Args:
        graph: of the exported program, an ``onnx_ir.Graph``; changed in place.

    Example:
        >>> import onnx_ir as ir
        >>> x, axes = ir.val("x", ir.DataType.FLOAT, ["n", 8, 5, 5]), ir.tensor([2, 3], name="axes")
        >>> axes = ir.Value(name="axes", const_value=axes)
        >>> node = ir.node("ReduceMean", [x, axes], {"keepdims": 1})
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[axes])
        >>> pool_globally_(graph), [node.op_type for node in graph]
        (1, ['GlobalAveragePool'])
    """
    found = [node for node in graph.all_nodes() if _averages_all_pixels(node)]
    for node in found:
        _replace_(node)
    return len(found)


def _averages_all_pixels(node: Any) -> bool:
    if node.op_type != "ReduceMean" or node.domain or len(node.inputs) < 2:
        return False
    value, axes = node.inputs[:2]
    # Of a batch of vectors (N, C) there are no pixels, and of unknown ranks nothing is known.
    if value.shape is None or len(value.shape) < 3 or axes is None or axes.const_value is None:
        return False
    rank = len(value.shape)
    return {int(axis) % rank for axis in axes.const_value.numpy().reshape(-1)} == set(range(2, rank))


def _replace_(node: Any) -> None:
    import onnx_ir as ir

    value, keeps = node.inputs[0], node.attributes.get_int("keepdims", 1)
    node.attributes.clear()
    if keeps:
        node.op_type = "GlobalAveragePool"
        node.resize_inputs(1)
        return
    # What was the mean takes out the dimensions that the pooling keeps: the axes are the same.
    pooled = ir.node("GlobalAveragePool", [value], name=f"{node.name}.pooled")
    pooled.outputs[0].name = f"{node.outputs[0].name}.pooled"
    node.graph.insert_before(node, pooled)
    node.replace_input_with(0, pooled.outputs[0])
    node.op_type = "Squeeze"
