"""The ONNX files of an export: written or copied, and checked."""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lit_xai.export.checking import check_onnx
from lit_xai.export.lines import user_line
from lit_xai.export.parity import OnnxPredictor, network_predictor
from lit_xai.export.versions import opset_of
from lit_xai.export.wholes import Sizes
from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.profiling import batch_size, count_samples, with_batch_size
from lit_xai.network.untouched import untouched
from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.runtime.onnx import export_onnx

ROUGHLY = 0.1
"""The share of the largest output by which one may differ in a file of another size than was traced; of an int8 file,
single ones do."""


class FixedSamplesError(ValueError):
    """A network whose file takes no other number of samples than it was written with."""


def write_onnx(
    network: nn.Module,
    inputs: Inputs,
    path: Path,
    output: OutputSpec = None,
    opset: int | None = None,
    others: Sequence[Inputs] = (),
    any_number: bool = True,
) -> Sizes:
    """Write a network as an ONNX file that takes any number of samples, and check the file.

    Inputs are taken in any size in which ``others`` differ from them, such as the lengths of texts, where the file then
    computes what the network does for these too; else in exactly this size.

    Args:
        network: the module, quantized or not.
        inputs: what it is called with.
        path: of the file.
        output: the logits in its output.
        opset: version of ONNX's operators; default torch's.
        others: further inputs, of other sizes.
        any_number: whether the file has to take any number of samples, or only that of the inputs.

    Returns:
        The shapes that the file takes.

    Raises:
        FixedSamplesError: the file would take one number of samples alone.
        ValueError: the network cannot be exported (names the line of its code), or only for one batch size, or not in
            that version.

    Example:
        >>> import tempfile, torch
        >>> write_onnx(nn.Linear(4, 2), torch.zeros(1, 4), Path(tempfile.mkdtemp()) / "model.onnx", opset=17)
        Traceback (most recent call last):
        ...
        ValueError: opset expected an integer of at least 18, but got 17.
    """
    if any_number and count_samples(network, inputs, output=output) is not None:
        if others and _takes(network, inputs, path, output, opset, others):
            return OnnxPredictor(path).sizes
        _write(network, inputs, path, output, opset)
        _check_samples(network, inputs, path, output)
        return OnnxPredictor(path).sizes
    if others:
        with contextlib.suppress(ValueError):  # what cannot be written in any size may be in this one
            _write(network, inputs, path, output, opset, others)
            if all(_is_right(network, path, one, output) for one in (inputs, *others)):
                return OnnxPredictor(path).sizes
    _write(network, inputs, path, output, opset, is_fixed=not any_number)
    # A file of integers is compared on all data alone: single outputs may differ.
    if find_fake_quantizers(network) is None and not _is_right(network, path, inputs, output):
        raise ValueError(
            f"{type(network).__name__} cannot be exported to ONNX: its file computes something else for the inputs that"
            " it was written with. Name the part of it that can with module=, or how it is called with output=."
        )
    return OnnxPredictor(path).sizes


def _write(
    network: nn.Module,
    inputs: Inputs,
    path: Path,
    output: OutputSpec,
    opset: int | None,
    others: Sequence[Inputs] = (),
    is_fixed: bool = False,
) -> None:
    try:
        export_onnx(network, inputs, path, output=output, opset=opset, others=others, dynamic_batch=not is_fixed)
    except ValueError as error:
        # Exporters bury the line of the user's code under hundreds of their own frames.
        line = user_line(error) if error.__cause__ is not None else ""
        if not line:
            raise
        raise ValueError(f"{error} It stopped at {line.rstrip('.')}.") from error
    check_onnx(path)
    _check_opset(path, opset)


def _takes(
    network: nn.Module, inputs: Inputs, path: Path, output: OutputSpec, opset: int | None, others: Sequence[Inputs]
) -> bool:
    """Write a file that takes samples of any size in which others differ, and return whether it does."""
    # What cannot be written in any size may be in this one; of any type: the network may take one size alone as well.
    with contextlib.suppress(Exception):
        _write(network, inputs, path, output, opset, others)
        _check_samples(network, inputs, path, output)
        is_in_float = find_fake_quantizers(network) is None  # in integers, single outputs may differ
        check = _is_right if is_in_float else _is_as_long_at
        return all(check(network, path, one, output) for one in (inputs, *others))
    return False


def _is_as_long_at(network: nn.Module, path: Path, inputs: Inputs, output: OutputSpec) -> bool:
    return _is_as_long(network, inputs, path, output)


def _is_right(network: nn.Module, path: Path, inputs: Inputs, output: OutputSpec) -> bool:
    with untouched(network), torch.no_grad():
        expected = network_predictor(network, output)(inputs)
    result = OnnxPredictor(path)(inputs)
    # Whether numbers are computed for another size at all: how near they are is measured on all data.
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return result.shape == expected.shape and torch.allclose(result, expected, atol=ROUGHLY * scale)


def take_onnx(source: str | os.PathLike[str], path: Path) -> None:
    """Check an ONNX file and copy it.

    Raises:
        ValueError: the file is no whole ONNX file.
    """
    check_onnx(source)
    shutil.copyfile(source, path)


def _check_opset(path: Path, opset: int | None) -> None:
    written = opset_of(path)
    if opset is not None and written != opset:  # torch silently keeps its own version where it cannot convert
        raise ValueError(f"opset expected a version that torch can write, but got {opset}: it wrote {written}.")


def _check_samples(network: nn.Module, inputs: Inputs, path: Path, output: OutputSpec) -> None:
    # Exporters treat a batch of 1 as a constant, so the example has at least 2 samples.
    written = max(batch_size(inputs), 2)
    # One sample more than it was exported with, and one alone: a fixed size, or one divided by it, fails here. A file
    # that goes over the samples one by one, as the example has them, leaves out the last.
    if not all(_is_as_long(network, with_batch_size(inputs, n), path, output) for n in (written + 1, 1)):
        raise FixedSamplesError(
            f"{type(network).__name__} expected to take any number of samples, but its file runs with {written} alone,"
            " those it was exported with: take sizes from the inputs, as in x.view(len(x), -1)."
        )


def _is_as_long(network: nn.Module, inputs: Inputs, path: Path, output: OutputSpec) -> bool:
    """Return whether a file takes inputs, and gives as many rows for them as the network does.

    Raises:
        ValueError: the rows are no numbers.
    """
    try:
        with untouched(network), torch.no_grad():
            expected = network_predictor(network, output)(inputs)
        result = OnnxPredictor(path)(inputs)
    # Of any type: the network's own code may take one number of samples alone as well.
    except Exception:
        return False
    if not result.isfinite().all() and expected.isfinite().all():
        raise ValueError(
            f"{type(network).__name__} cannot be exported to ONNX: its file computes NaN or infinity where the network"
            " computes numbers, as where it computes with NumPy: use torch's functions instead."
        )
    return result.shape == expected.shape
