"""A file as a network, so that what ships can be called, compared and explained like any other."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.runtime.loaded import caller_of
from lit_xai.runtime.runtimes import load_model


class FileNetwork(nn.Module):
    """Runs an exported file in a runtime on the CPU.

    It has no gradients: explain it with methods that need none, such as Occlusion, FeatureAblation or KernelShap.

    Args:
        path: of the file.
        threads: the number of threads for the runtime; default as it decides.
        runtime: ``"onnxruntime"``, or ``"openvino"``, which computes floats in float32 here.

    Raises:
        ModuleNotFoundError: the runtime is not installed.
        ValueError: it does not run the file.

    Example:
        >>> import tempfile
        >>> from lit_xai.runtime.onnx import export_onnx
        >>> network, path = nn.Linear(4, 2), Path(tempfile.mkdtemp()) / "model.onnx"
        >>> _ = export_onnx(network, torch.zeros(1, 4), path)
        >>> torch.allclose(FileNetwork(path)(torch.ones(3, 4)), network(torch.ones(3, 4)), atol=1e-5)
        True
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None, runtime: str = "onnxruntime") -> None:
        super().__init__()
        self.path, self._threads, self._runtime = Path(path), threads, runtime
        self._model = load_model(path, runtime, threads)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the file's outputs for its inputs, given in their order or by name.

        Raises:
            ValueError: the file takes other inputs.
        """
        names = [*self._model.inputs]
        if len(args) + len(kwargs) != len(names):
            raise ValueError(
                f"{self.path.name} expected its inputs {names}, but got {len(args) + len(kwargs)} tensors."
            )
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        device = next(tensor.device for tensor in given.values())
        found = caller_of(self._model, self.path.name, {n: tensor.detach().cpu() for n, tensor in given.items()})()
        outputs = tuple(torch.from_numpy(array).to(device) for array in found)
        return outputs[0] if len(outputs) == 1 else outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> "FileNetwork":
        """Return the same file, loaded once more."""
        return FileNetwork(self.path, self._threads, self._runtime)

    def extra_repr(self) -> str:
        """Return the file's name."""
        return str(self.path)
