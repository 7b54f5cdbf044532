"""An ONNX file as a network, so that what ships can be called, compared and explained like any other."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.describing import describe
from lit_xai.runtime.errors import one_line
from lit_xai.runtime.session import open_session, session_feed


class FileNetwork(nn.Module):
    """Runs an ONNX file in ONNX Runtime on the CPU.

    It has no gradients: explain it with methods that need none, such as Occlusion, FeatureAblation or KernelShap.

    Args:
        path: of the file.
        threads: the number of threads for the runtime; default as it decides.

    Raises:
        ValueError: the file is no ONNX file.

    Example:
        >>> import tempfile
        >>> from lit_xai.runtime.onnx import export_onnx
        >>> network, path = nn.Linear(4, 2), Path(tempfile.mkdtemp()) / "model.onnx"
        >>> _ = export_onnx(network, torch.zeros(1, 4), path)
        >>> torch.allclose(FileNetwork(path)(torch.ones(3, 4)), network(torch.ones(3, 4)), atol=1e-5)
        True
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__()
        self.path, self._threads = Path(path), threads
        self._session: Any = open_session(path, threads)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the file's outputs for its inputs, given in their order or by name.

        Raises:
            ValueError: the file takes other inputs.
        """
        names = [entry.name for entry in self._session.get_inputs()]
        if len(args) + len(kwargs) != len(names):
            raise ValueError(
                f"{self.path.name} expected its inputs {names}, but got {len(args) + len(kwargs)} tensors."
            )
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        device = next(tensor.device for tensor in given.values())
        try:
            feed = session_feed(self._session, {name: tensor.detach().cpu() for name, tensor in given.items()})
            found = self._session.run(None, feed)
        except ValueError:
            raise
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            shapes = describe(given)
            raise ValueError(f"{self.path.name} does not run on inputs of {shapes}: {one_line(error)}.") from None
        outputs = tuple(torch.from_numpy(array).to(device) for array in found)
        return outputs[0] if len(outputs) == 1 else outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> "FileNetwork":
        """Return another session of the same file."""
        return FileNetwork(self.path, self._threads)

    def extra_repr(self) -> str:
        """Return the file's name."""
        return str(self.path)
