"""Which files of an export run in which runtimes, and in what precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_xai.runtime.runtimes import Runtime, find_runtime

FLOAT, INT8, PTE = "model.onnx", "model.int8.onnx", "model.pte"


@dataclass(frozen=True)
class Deployment:
    """A file of an export in a runtime.

    Args:
        file: its name.
        runtime: what runs it.
        precision: what its floats are computed in.
    """

    file: str
    runtime: Runtime
    precision: str = "f32"

    @property
    def name(self) -> str:
        """The name of its row: what it computes in, and where."""
        computed = "int8" if self.file == INT8 else "fp32" if self.precision == "f32" else self.precision
        return f"{computed} ({self.runtime.label})"

    def __str__(self) -> str:
        return f"{self.file} in {self.runtime.label}" + (f" in {self.precision}" if self.precision != "f32" else "")


def find_deployments(folder: Path, runtimes: Sequence[Runtime]) -> tuple[Deployment, ...]:
    """Return what can run the files in a folder: float before int8, and runtimes in their order.

    The float file runs in every precision of a runtime, the int8 file in float32 alone where it is not in integers.

    Args:
        folder: of the files.
        runtimes: those that are installed.
    """
    return tuple(
        Deployment(file, runtime, precision)
        for file in (FLOAT, PTE, INT8)
        if (folder / file).exists()
        for runtime in runtimes
        if Path(file).suffix in runtime.suffixes
        for precision in (runtime.precisions() if file != INT8 else ("f32",))
    )


def installed_runtimes(runtimes: Sequence[Runtime]) -> tuple[tuple[Runtime, ...], tuple[str, ...]]:
    """Return the runtimes to compare, ONNX Runtime first, and a sentence for each that is not installed.

    Example:
        >>> runtimes, missing = installed_runtimes([find_runtime("openvino")])
        >>> [one.name for one in runtimes], missing
        (['onnxruntime', 'openvino'], ())
    """
    # Every export runs its files in ONNX Runtime, which others are compared with.
    first = find_runtime("onnxruntime")
    every = (first, *(one for one in runtimes if one != first))
    missing = tuple(
        f'{one.label} is not installed, so it is not compared: pip install "lit-xai[{one.extra}]".'
        for one in every
        if not one.is_installed
    )
    return tuple(one for one in every if one.is_installed), missing
