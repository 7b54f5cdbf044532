"""A network as an ONNX file, for other runtimes to run."""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import Inputs, OutputSpec, call_network, find_network
from lit_xai.network.copying import copy_network
from lit_xai.network.probing import leaves
from lit_xai.network.profiling import batch_size, with_batch_size
from lit_xai.network.untouched import untouched
from lit_xai.quantization.fake_quantizers import find_fake_quantizers

OLDEST_OPSET = 18
"""The first version of ONNX's operators that torch.export's exporter writes."""


def export_onnx(
    network: nn.Module,
    inputs: Inputs,
    path: str | os.PathLike[str],
    call: str = "forward",
    output: OutputSpec = None,
    dynamic_batch: bool = True,
    opset: int | None = None,
) -> None:
    """Write a network in eval mode and float32 to an ONNX file, whole or not at all; the network is left as it is.

    One that :func:`~lit_xai.quantization.quantization.quantize` returned, or that was trained as it prepares one, is
    written with what it rounds as QuantizeLinear and DequantizeLinear, and its weights as integers of 8 bits.

    The file's inputs bear the names of :func:`named_tensors`, its one output is called ``logits``. By ``torch.export``,
    which takes a second or two for a ResNet-20: the older tracing takes a tenth of that, but is no longer developed and
    writes down silently what a Python condition happened to be.

    Args:
        network: the module.
        inputs: what it is called with; shapes matter, and what is no tensor becomes part of the file.
        path: of the file; its folder is made.
        call: the network's method that is called.
        output: where the logits are in its output.
        dynamic_batch: whether the file takes any number of samples, where the network does, or exactly those given.
        opset: version of ONNX's operators, 18 or newer; default torch's.

    Raises:
        ValueError: the network cannot be exported; says why.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> export_onnx(nn.Linear(4, 2), torch.zeros(1, 4), folder / "network.onnx")
        >>> [file.name for file in folder.iterdir()]
        ['network.onnx']
    """
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int) or opset < OLDEST_OPSET):
        raise ValueError(f"opset expected an integer of {OLDEST_OPSET} or more, but got {opset!r}.")
    path = Path(path)
    network = find_network(network)
    copied = copy_network(network).cpu().float()
    if dynamic_batch:  # torch takes sizes 0 and 1 for constants
        inputs = with_batch_size(inputs, max(batch_size(inputs), 2))
    tensors = named_tensors(inputs)
    dynamic = tuple({0: torch.export.Dim.AUTO} if _is_batched(t, inputs) else None for t in tensors.values())
    with untouched(copied), torch.no_grad(), _quiet():
        _write_integers_(copied, _filled(inputs, iter(tensors.values())), call, output)
        try:
            program = torch.onnx.export(
                _Logits(copied, inputs, call, output),
                tuple(tensors.values()),
                input_names=list(tensors),
                output_names=["logits"],
                dynamic_shapes=(dynamic,) if dynamic_batch else None,
                dynamo=True,
                opset_version=opset,
                verbose=False,
            )
        except Exception as error:
            raise ValueError(
                f"{type(network).__name__} cannot be exported to ONNX ({_reason(error)}): name the part of it that can"
                " with module=, or how it is called with output=."
            ) from error
        assert program is not None  # with dynamo=True
        _strip(program)
        _write(program, path)


def _write_integers_(network: nn.Module, inputs: Inputs, call: str, output: OutputSpec) -> None:
    """Have a prepared network's forward give integers to the exporter."""
    rounds = find_fake_quantizers(network)
    if rounds is None:
        return
    if not rounds.is_calibrated():
        raise ValueError(
            f"{type(network).__name__} expected ranges that were observed on data, but got none yet: train it, or take"
            " quantize() with a loader."
        )
    weights: dict[str, Tensor] = {}
    with rounds.looked_at(lambda name, tensor: weights.update({name: tensor})):
        call_network(network, inputs, call, output)
    rounds.collect_integers_(weights)


def named_tensors(inputs: Inputs) -> dict[str, Tensor]:
    """Return the tensors in inputs by the names they bear in an ONNX file, on the CPU and floats in float32.

    Example:
        >>> list(named_tensors({"user": torch.zeros(1), "items": (torch.zeros(1), torch.zeros(1))}))
        ['user', 'items.0', 'items.1']
        >>> list(named_tensors(torch.zeros(1))), list(named_tensors((torch.zeros(1), torch.zeros(1))))
        (['input'], ['input.0', 'input.1'])
    """
    prefix = "" if isinstance(inputs, Mapping) else "input"
    found = {name: tensor.detach().cpu() for name, tensor in leaves(inputs, prefix)}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}


class _Logits(nn.Module):
    """Takes the tensors of a network's inputs one by one, and returns its logits."""

    def __init__(self, network: nn.Module, inputs: Inputs, call: str, output: OutputSpec) -> None:
        super().__init__()
        self.network = network
        self._inputs, self._call, self._output = inputs, call, output

    def forward(self, *tensors: Tensor) -> Tensor:
        inputs = _filled(self._inputs, iter(tensors))
        return call_network(self.network, inputs, self._call, self._output)


def _filled(inputs: Any, tensors: Iterator[Tensor]) -> Any:
    """Exchange the tensors in inputs for others, in the order of :func:`leaves`."""
    if isinstance(inputs, Tensor):
        return next(tensors)
    if isinstance(inputs, Mapping):
        return {key: _filled(value, tensors) for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        parts = [_filled(value, tensors) for value in inputs]
        return type(inputs)(*parts) if hasattr(inputs, "_fields") else type(inputs)(parts)
    return inputs


def _is_batched(tensor: Tensor, inputs: Inputs) -> bool:
    return tensor.dim() > 0 and len(tensor) == batch_size(inputs)


def _strip(program: Any) -> None:
    """Take out of a file what torch writes beside each operator: the stack of the user's code, which is most of it."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*program.model.graph.initializers.values(), *program.model.graph.inputs):
        value.metadata_props.clear()
    program.model.graph.metadata_props.clear()


def _reason(error: BaseException) -> str:
    """Return the first line of what an exporter stumbled on first; it wraps that in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200].rstrip('.')}" if line else type(error).__name__


def _write(program: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        program.save(Path(folder) / path.name, external_data=False)
        os.replace(Path(folder) / path.name, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # torchvision's absence, and tables of what was tried
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")  # and graphs that could not be read are printed
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
