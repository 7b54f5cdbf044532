"""A network as an ONNX file, for other runtimes to run."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec, find_network
from lit_xai.network.check import check_integer
from lit_xai.network.copying import copy_network
from lit_xai.network.packages import ONNX, require
from lit_xai.network.untouched import untouched
from lit_xai.runtime.errors import describe_cause, is_data_dependent
from lit_xai.runtime.flat import FlatNetwork, named_tensors, quiet_export
from lit_xai.runtime.pooling import pool_globally_

__all__ = ["FIXED_NUMBERS", "OLDEST_OPSET", "PreparesExport", "check_opset", "export_onnx", "named_tensors"]

OLDEST_OPSET = 18
"""The first version of ONNX's operators that torch.export's exporter writes."""


FIXED_NUMBERS = "fixed_numbers"
"""The entry of a file's metadata with the whole numbers that the network reads out of its inputs, and the file does
not."""


@runtime_checkable
class PreparesExport(Protocol):
    """A module that changes how the network it belongs to is exported.

    Fake-quantize modules implement it: they train with quantized floats, and are exported as integers.
    """

    def prepare_export_(self, network: nn.Module, run: Callable[[], object]) -> None:
        """Make the next forward use operators that exporters know.

        Args:
            network: the copy, in eval mode and on the CPU, that is about to be exported and then thrown away.
            run: calls it once with the inputs of the export.

        Raises:
            ValueError: the network cannot be exported yet; names the reason.
        """


def export_onnx(
    network: nn.Module,
    inputs: Inputs,
    path: str | os.PathLike[str],
    call: str = "forward",
    output: OutputSpec = None,
    dynamic_batch: bool = True,
    opset: int | None = None,
    others: Sequence[Inputs] = (),
) -> None:
    """Write a network in eval mode and float32 to an ONNX file, whole or not at all; the network is left as it is.

    A network with fake-quantize modules, from :func:`~lit_xai.quantization.quantization.quantize` or from
    quantization-aware training, is written with QuantizeLinear and DequantizeLinear where these modules round
    activations, and with 8-bit integers as weights; other modules that change how a network is written implement
    :class:`PreparesExport`.

    The file's inputs have the names of :func:`~lit_xai.runtime.flat.named_tensors`, its one output is called
    ``logits``. It is written by ``torch.export``, which takes a second or two for a ResNet-20: the older tracing takes
    a tenth of that, but is no longer developed, and silently writes only the branch of a Python condition that it saw.

    Args:
        network: the module.
        inputs: what it is called with; shapes matter, and what is no tensor becomes part of the file.
        path: of the file; its folder is created.
        call: the network's method that is called.
        output: where the logits are in its output.
        dynamic_batch: whether the file takes any number of samples, where the network does, or exactly those given.
        opset: version of ONNX's operators, 18 or newer; default torch's.
        others: further inputs, of other sizes (longer texts, say). The file takes any size of the dimensions in which
            these differ, and exactly that given of all others. Where there are no rows of samples, what the network
            reads as a whole number out of such inputs (the number of graphs) is part of the file. So is what it reads
            out of samples (``int(lengths.max())``), where each sample alone gives the same number and there is no other
            way; the file's metadata say so.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        ValueError: ``opset`` is too old, or the network cannot be exported; names the reason.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> export_onnx(nn.Linear(4, 2), torch.zeros(1, 4), folder / "network.onnx")
        >>> [file.name for file in folder.iterdir()]
        ['network.onnx']
    """
    check_opset(opset)
    require("An export to ONNX", *ONNX)
    path = Path(path)
    network = find_network(network)
    # A copy: modules are prepared for the exporter, moved, and cast.
    copied = copy_network(network).cpu().float()
    flat = FlatNetwork(copied, inputs, call, output, dynamic_batch, others)
    with untouched(copied), torch.no_grad(), quiet_export():
        for module in copied.modules():
            if isinstance(module, PreparesExport):
                module.prepare_export_(copied, flat)
        fixed: list[int] = []
        try:
            flat.fix_reads_()
            try:
                program = _exported(flat, dynamic_batch, opset)
            except Exception as error:
                fixed = flat.fix_reads_of_rows_() if is_data_dependent(error) else []
                if not fixed:
                    raise
                program = _exported(flat, dynamic_batch, opset)
        except Exception as error:
            raise ValueError(
                f"{type(network).__name__} cannot be exported to ONNX ({describe_cause(error)}): name the part of it"
                " that can with module=, or how it is called with output=."
            ) from error
        pool_globally_(program.model.graph)
        _strip(program)
        if fixed:
            program.model.metadata_props[FIXED_NUMBERS] = json.dumps(fixed)
        _write(program, path)


def _exported(flat: FlatNetwork, dynamic_batch: bool, opset: int | None) -> Any:
    program = torch.onnx.export(
        flat,
        tuple(flat.tensors.values()),
        input_names=list(flat.tensors),
        output_names=["logits"],
        dynamic_shapes=flat.dynamic_shapes if dynamic_batch else None,
        dynamo=True,
        opset_version=opset,
        verbose=False,
    )
    _refuse_draft(program)
    return program


def check_opset(opset: int | None) -> None:
    """Refuse a version of ONNX's operators that is too old, or is none; ``None`` passes.

    Raises:
        ValueError: it is not an integer of at least 18.

    Example:
        >>> check_opset(17)
        Traceback (most recent call last):
        ...
        ValueError: opset expected an integer of at least 18, but got 17.
    """
    if opset is not None:
        check_integer("opset", opset, OLDEST_OPSET)


def _refuse_draft(program: Any) -> None:
    # torch 2.8 falls back to a draft: the tracing that writes only the branch of a condition that it saw.
    if "Draft" in (program._capture_strategy or ""):
        raise ValueError("a data-dependent condition, of which one branch alone would be written")


def _strip(program: Any) -> None:
    """Remove the stack of the user's code that torch writes with each operator: most of the file, and private."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*program.model.graph.initializers.values(), *program.model.graph.inputs):
        value.metadata_props.clear()
    program.model.graph.metadata_props.clear()


def _write(program: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Moving a file within a file system is one step, so that no reader sees half a file.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        # One file with the weights inside.
        program.save(Path(folder) / path.name, external_data=False)
        os.replace(Path(folder) / path.name, path)
