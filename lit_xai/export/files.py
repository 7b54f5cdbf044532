"""The ONNX files of an export: written or copied, and checked."""

import os
import shutil
from pathlib import Path

from torch import nn

from lit_xai.export.checking import check_onnx
from lit_xai.export.lines import user_line
from lit_xai.export.parity import OnnxPredictor
from lit_xai.export.versions import opset_of
from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.describing import describe
from lit_xai.network.profiling import batch_size, count_samples, with_batch_size
from lit_xai.runtime.onnx import export_onnx


def write_onnx(
    network: nn.Module, inputs: Inputs, path: Path, output: OutputSpec = None, opset: int | None = None
) -> None:
    """Write a network that takes any number of samples as an ONNX file, and check the file.

    Args:
        network: the module, quantized or not.
        inputs: what it is called with.
        path: of the file.
        output: the logits in its output.
        opset: version of ONNX's operators; default torch's.

    Raises:
        ValueError: the network cannot be exported (names the line of its code), or only for one batch size, or not in
            that version.

    Example:
        >>> import tempfile, torch
        >>> write_onnx(nn.Linear(4, 2), torch.zeros(1, 4), Path(tempfile.mkdtemp()) / "model.onnx", opset=17)
        Traceback (most recent call last):
        ...
        ValueError: opset expected an integer of at least 18, but got 17.
    """
    check_samples(network, inputs, output)
    try:
        export_onnx(network, inputs, path, output=output, opset=opset)
    except ValueError as error:
        # Exporters bury the line of the user's code under hundreds of their own frames.
        line = user_line(error) if error.__cause__ is not None else ""
        if not line:
            raise
        raise ValueError(f"{error} It stopped at {line.rstrip('.')}.") from error
    check_onnx(path)
    _check_opset(path, opset)
    _check_samples(path, inputs, type(network).__name__)


def check_samples(network: nn.Module, inputs: Inputs, output: OutputSpec = None) -> None:
    """Refuse inputs that cannot be cut into samples: the files of an export take any number of them.

    Raises:
        ValueError: describes the inputs.

    Example:
        >>> import torch
        >>> check_samples(nn.EmbeddingBag(9, 2), (torch.tensor([1, 2, 4]), torch.tensor([0, 2])))
        Traceback (most recent call last):
        ...
        ValueError: EmbeddingBag is exported for any number of samples and expected inputs with a row for each, but ...
    """
    if count_samples(network, inputs, output=output) is None:
        raise ValueError(
            f"{type(network).__name__} is exported for any number of samples and expected inputs with a row for each,"
            f" but got {describe(inputs)}: lit_xai.runtime.onnx.export_onnx(..., dynamic_batch=False) writes a file"
            " for exactly these."
        )


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


def _check_samples(path: Path, inputs: Inputs, name: str) -> None:
    # Exporters treat a batch of 1 as a constant, so the example has at least 2 samples.
    written = max(batch_size(inputs), 2)
    try:
        # One sample more than it was exported with: a fixed size, or one divided by it, fails here.
        OnnxPredictor(path)(with_batch_size(inputs, written + 1))
    except ValueError:
        raise ValueError(
            f"{name} expected to take any number of samples, but its file runs with {written} alone, those it was"
            " exported with: take sizes from the inputs, as in x.view(len(x), -1)."
        ) from None
