"""ExecuTorch on the CPU, through its XNNPACK delegate: programs for phones and other small devices, in float."""

import contextlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.copying import copy_network
from lit_xai.network.profiling import count_samples, with_batch_size
from lit_xai.network.untouched import untouched
from lit_xai.runtime.errors import describe_cause, one_line
from lit_xai.runtime.flat import FlatNetwork, quiet_export
from lit_xai.runtime.inspection import Operator
from lit_xai.runtime.loaded import Arrays, InputSpec

MAGIC = b"ET12"
"""The bytes from the fifth to the eighth of each program."""

# Of torch's tensors, as programs count them.
_DTYPES = {0: np.uint8, 1: np.int8, 3: np.int32, 4: np.int64, 6: np.float32, 7: np.float64, 11: np.bool_}


def precisions() -> tuple[str, ...]:
    """Return the precisions that floats are computed in."""
    return ("f32",)


def write(
    network: nn.Module,
    inputs: Inputs,
    path: Path,
    call: str = "forward",
    output: OutputSpec = None,
    largest: int | None = None,
) -> None:
    """Write a network in eval mode and float32 as a program; the network is left unchanged.

    Args:
        network: the module.
        inputs: what it is called with, with a row for each sample.
        path: of the file.
        call: the network's method that is called.
        output: the logits in its output.
        largest: the largest number of samples that the program takes at once, for which it plans its memory; default
            exactly as many as given.

    Raises:
        ValueError: the network cannot be written as a program.
    """
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

    copied = copy_network(network).cpu().float()
    if count_samples(copied, inputs, call, output) is None:
        raise ValueError(f"{type(network).__name__}'s inputs hold no row for each sample, which ExecuTorch needs here.")
    # torch.export takes a dimension of size 1 for a constant.
    inputs = inputs if largest is None else with_batch_size(inputs, max(largest, 2))
    flat = FlatNetwork(copied, inputs, call, output, dynamic_batch=largest is not None)
    tensors = tuple(flat.tensors.values())
    rows = torch.export.Dim("samples", min=1, max=max(largest or 0, 2))
    shapes = None if largest is None else (tuple({0: rows} if tensor.dim() else None for tensor in tensors),)
    with untouched(copied), torch.no_grad(), quiet_export(), _quiet():
        try:
            program = torch.export.export(flat.eval(), tensors, dynamic_shapes=shapes)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        except Exception as error:
            raise ValueError(
                f"{type(network).__name__} cannot be written for ExecuTorch ({describe_cause(error)})."
            ) from error
    path.write_bytes(lowered.buffer)


class ExecuTorchModel:
    """A program of ExecuTorch; see :class:`~lit_xai.runtime.loaded.LoadedModel`."""

    def __init__(self, method: Any) -> None:
        self._method, self._has_run = method, False
        self.label = f"ExecuTorch {importlib.metadata.version('executorch')}"
        metas = [method.metadata.input_tensor_meta(i) for i in range(method.metadata.num_inputs())]
        # Programs do not keep the names of inputs; those of an ONNX file in which nothing has a name.
        names = ["input"] if len(metas) == 1 else [f"input.{i}" for i in range(len(metas))]
        self._sizes = {name: tuple(meta.sizes()) for name, meta in zip(names, metas, strict=True)}
        dtypes = [np.dtype(_DTYPES[meta.dtype()]) if meta.dtype() in _DTYPES else None for meta in metas]
        self.inputs = {
            name: InputSpec((None, *self._sizes[name][1:]), dtype) for name, dtype in zip(names, dtypes, strict=True)
        }

    def run(self, arrays: Arrays) -> tuple[NDArray[Any], ...]:
        """Return the outputs; more samples than the program takes at once are computed in parts."""
        for name, sizes in self._sizes.items():
            if arrays[name].shape[1:] != sizes[1:] or arrays[name].ndim != len(sizes):
                raise ValueError(f"{name} expected the shape {['*', *sizes[1:]]}, but got {[*arrays[name].shape]}")
        largest = min((sizes[0] for sizes in self._sizes.values() if sizes), default=1)
        # ExecuTorch writes what it finds out about the CPU to the terminal when it first starts its threads.
        with contextlib.nullcontext() if self._has_run else _quiet():
            return self._run(arrays, largest)

    def _run(self, arrays: Arrays, largest: int) -> tuple[NDArray[Any], ...]:
        self._has_run = True
        n = max((len(array) for array in arrays.values() if array.ndim), default=1)
        parts = [
            self._method.execute(
                [torch.from_numpy(np.ascontiguousarray(arrays[name][at : at + largest])) for name in self._sizes]
            )
            for at in range(0, n, largest)
        ]
        # The program's own memory is overwritten by the next call.
        return tuple(torch.cat([part.clone() for part in each]).numpy() for each in zip(*parts, strict=True))


def load(path: str | os.PathLike[str], threads: int | None = None, precision: str = "f32") -> ExecuTorchModel:
    """Load a program; it runs on as many threads as ExecuTorch decides.

    Raises:
        ValueError: it is none, or is damaged.
    """
    if not Path(path).is_file():
        raise ValueError(f"path expected a program of ExecuTorch, but there is no file {path}.")
    with open(path, "rb") as file:
        if file.read(8)[4:] != MAGIC:
            raise ValueError(f"path expected a program of ExecuTorch, but {path} is none.")
    try:
        with _quiet():
            from executorch.runtime import Runtime

            return ExecuTorchModel(Runtime.get().load_program(Path(path)).load_method("forward"))
    except Exception as error:  # a RuntimeError
        raise ValueError(f"path expected a program of ExecuTorch, but got {path}: {one_line(error)}.") from None


def operators(path: str | os.PathLike[str]) -> tuple[Operator, ...]:
    """Return nothing: a program holds calls of its delegate, which does not tell what it executes."""
    return ()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of ExecuTorch's Python, and what its C++ writes to the terminal beside its exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    # Its bindings write to Python's stderr, which need not be the process's own.
    with warnings.catch_warnings(), open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        warnings.simplefilter("ignore")
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
