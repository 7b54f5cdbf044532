"""The runtimes that run exported files, by the names that users write."""

import importlib
import importlib.metadata
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from lit_xai.network.arguments import Inputs
from lit_xai.network.check import check_choice, refusal
from lit_xai.network.packages import require
from lit_xai.runtime.inspection import Operator
from lit_xai.runtime.loaded import LoadedModel


@dataclass(frozen=True)
class Runtime:
    """What runs a file.

    Args:
        name: as users write it, and that of its package.
        label: its name in tables and sentences.
        extra: of this library, which installs it.
        suffixes: of the files that it runs.
        module: has ``load(path, threads, precision)``, ``precisions()`` and ``operators(path)``, and ``write`` where
            files are not ONNX; imported when used.
        sets_threads: whether it runs on the number of threads that it is given, rather than on one of its own.
    """

    name: str
    label: str
    extra: str
    suffixes: tuple[str, ...]
    module: str
    sets_threads: bool = True

    @property
    def runs_onnx(self) -> bool:
        """Whether it runs ONNX files."""
        return ".onnx" in self.suffixes

    @property
    def is_installed(self) -> bool:
        """Whether its package can be imported."""
        return find_spec(self.name) is not None

    @property
    def version(self) -> str:
        """The version of its package."""
        return importlib.metadata.version(self.name)

    def precisions(self) -> tuple[str, ...]:
        """Return the precisions that it computes floats in on this CPU, ``"f32"`` first."""
        self.require(self.label)
        return tuple(self._own.precisions())

    def load(self, path: str | os.PathLike[str], threads: int | None = None, precision: str = "f32") -> LoadedModel:
        """Load a file.

        Args:
            path: of the file.
            threads: how many the runtime may use; default as it decides.
            precision: of floats, one of :meth:`precisions`.

        Raises:
            ModuleNotFoundError: the runtime is not installed.
            ValueError: it is no file of this runtime, or is damaged; one sentence.
        """
        self.require(f"Running {Path(path).name} in {self.label}")
        _check_suffix(Path(path), self)
        if precision not in (known := self.precisions()):
            raise refusal("precision", f"one of {', '.join(known)}, which {self.label} has on this CPU", precision)
        loaded: LoadedModel = self._own.load(path, threads, precision)
        return loaded

    def write(self, network: nn.Module, inputs: Inputs, path: Path, **options: Any) -> None:
        """Write a network as a file of a format of its own; for ONNX see :func:`~lit_xai.runtime.onnx.export_onnx`.

        Args:
            network: the module, which is left unchanged.
            inputs: what it is called with.
            path: of the file.
            options: of the module's ``write``.

        Raises:
            ModuleNotFoundError: the runtime is not installed.
            ValueError: the network cannot be written for it.
        """
        self.require(f"Writing for {self.label}")
        self._own.write(network, inputs, path, **options)

    def threads(self, given: int) -> int:
        """Return how many threads it runs on where it is given this number."""
        return given if self.sets_threads else all_threads()

    def operators(self, path: str | os.PathLike[str]) -> tuple[Operator, ...]:
        """Return the products, sums and averages of a file as this runtime executes them on this CPU.

        Args:
            path: of the file.

        Raises:
            ModuleNotFoundError: the runtime is not installed.
            ValueError: it is no file of this runtime.
        """
        self.require(f"Running {Path(path).name} in {self.label}")
        return tuple(self._own.operators(path))

    def require(self, feature: str) -> None:
        """Refuse a feature if the runtime is not installed.

        Raises:
            ModuleNotFoundError: names what installs it.
        """
        require(feature, self.name, extra=self.extra)

    @property
    def _own(self) -> Any:
        return importlib.import_module(self.module)


def all_threads() -> int:
    """Return the number of CPUs that this process may use.

    Example:
        >>> all_threads() >= 1
        True
    """
    # Containers and batch systems leave a process fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


RUNTIMES = {
    one.name: one
    for one in (
        Runtime("onnxruntime", "ONNX Runtime", "export", (".onnx",), "lit_xai.runtime.onnxruntime"),
        Runtime("openvino", "OpenVINO", "openvino", (".onnx", ".xml"), "lit_xai.runtime.openvino"),
        Runtime("executorch", "ExecuTorch", "executorch", (".pte",), "lit_xai.runtime.executorch", sets_threads=False),
    )
}
"""The runtimes by name."""


def find_runtime(name: str, argument: str = "runtime") -> Runtime:
    """Return a runtime by its name.

    Args:
        name: as users write it.
        argument: the argument that it is given as.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> find_runtime("openvino").label
        'OpenVINO'
        >>> find_runtime("openvno")
        Traceback (most recent call last):
        ...
        ValueError: runtime expected one of onnxruntime, openvino, executorch, but got 'openvno'. Did you mean ...
    """
    return RUNTIMES[check_choice(argument, name, RUNTIMES)]


def check_runtimes(names: Sequence[str], argument: str = "runtimes") -> tuple[Runtime, ...]:
    """Return runtimes by their names, each once.

    Raises:
        ValueError: it is no list of names, names one twice, or one that there is not.

    Example:
        >>> [one.label for one in check_runtimes(["onnxruntime", "openvino"])]
        ['ONNX Runtime', 'OpenVINO']
        >>> check_runtimes("openvino")
        Traceback (most recent call last):
        ...
        ValueError: runtimes expected a list of names, such as ['onnxruntime', 'openvino'], but got 'openvino'.
    """
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    if not is_list or not (listed := [*names]) or len({*map(str, listed)}) < len(listed):
        raise refusal(argument, "a list of names, such as ['onnxruntime', 'openvino']", names)
    return tuple(find_runtime(name, f"{argument}[{i}]") for i, name in enumerate(listed))


def load_model(
    path: str | os.PathLike[str], runtime: str = "onnxruntime", threads: int | None = None, precision: str = "f32"
) -> LoadedModel:
    """Load a file in a runtime, by its name.

    Args:
        path: of the file.
        runtime: ``"onnxruntime"``, ``"openvino"`` or ``"executorch"``.
        threads: how many the runtime may use; default as it decides.
        precision: of floats.

    Raises:
        ModuleNotFoundError: the runtime is not installed.
        ValueError: there is no such runtime, or it does not run this file.

    Example:
        >>> load_model("nothing.onnx")
        Traceback (most recent call last):
        ...
        ValueError: path expected an ONNX file, but got nothing.onnx: ...
    """
    return find_runtime(runtime).load(path, threads, precision)


def _check_suffix(path: Path, runtime: Runtime) -> None:
    """Refuse a file that another runtime runs; one of any other ending is for the runtime to judge."""
    others = [one.name for one in RUNTIMES.values() if path.suffix in one.suffixes]
    if path.suffix not in runtime.suffixes and others:
        endings = " or ".join(runtime.suffixes)
        hint = f": that is a file for runtime={others[0]!r}"
        raise ValueError(f"path expected a file that {runtime.label} runs, {endings}, but got {path.name}{hint}.")
