"""A file that a runtime has loaded: one interface, whatever the runtime is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lit_xai.network.arguments import Inputs
from lit_xai.network.describing import describe
from lit_xai.runtime.errors import one_line
from lit_xai.runtime.flat import named_tensors

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by the names of a file's inputs."""


@dataclass(frozen=True)
class InputSpec:
    """An input of a file.

    Args:
        shape: ``None`` for a dimension of any size.
        dtype: of the arrays that it takes; ``None`` where any passes.
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any] | None = None


class LoadedModel(Protocol):
    """A file, loaded and ready to run on the CPU; a runtime's ``load`` returns one.

    Attributes:
        label: the runtime's name and version, and what its floats are computed in where it has a choice, such as
            ``"OpenVINO 2026.4.1, f32"``.
        inputs: by name, in the order of the file.
    """

    label: str
    inputs: Mapping[str, InputSpec]

    def run(self, arrays: Arrays) -> tuple[NDArray[Any], ...]:
        """Return the file's outputs; raises exceptions of the runtime's own where it does not take the arrays."""


def feed_of(model: LoadedModel, inputs: Inputs) -> Arrays:
    """Return a network's inputs as the arrays that a file takes, in its floating types.

    They are matched by name, or by position where the file has other names.

    Args:
        model: the file.
        inputs: what the network is called with.

    Raises:
        ValueError: the file takes another number of inputs.
    """
    arrays = {name: tensor.numpy() for name, tensor in named_tensors(inputs).items()}
    names = [*model.inputs]
    if not all(name in arrays for name in names):
        if len(names) != len(arrays):
            raise ValueError(f"inputs expected what the file takes, {names}, but got {describe(inputs)}.")
        arrays = dict(zip(names, arrays.values(), strict=True))
    dtypes = {name: spec.dtype for name, spec in model.inputs.items()}
    return {name: arrays[name] if dtype is None else arrays[name].astype(dtype) for name, dtype in dtypes.items()}


def caller_of(model: LoadedModel, name: str, inputs: Inputs) -> Callable[[], tuple[NDArray[Any], ...]]:
    """Return a function that calls a file with a network's inputs and returns its outputs.

    Args:
        model: the file.
        name: its name, for the error.
        inputs: what the network is called with.

    Raises:
        ValueError: the file takes another number of inputs; or, when called, other ones; one sentence.
    """
    feed = feed_of(model, inputs)

    def call() -> tuple[NDArray[Any], ...]:
        try:
            return model.run(feed)
        except Exception as error:  # of the runtime's own types, which share no base class
            raise ValueError(f"{name} does not run on inputs of {describe(inputs)}: {one_line(error)}.") from None

    return call
