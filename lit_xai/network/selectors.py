"""Functions that pick inputs, logits and labels where a step was seen to have them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lit_xai.network.arguments import Inputs, inputs_of_call
from lit_xai.network.observing import by_name, parts_with_weights
from lit_xai.network.outputs import find_logits
from lit_xai.network.rows import column
from lit_xai.network.step_view import StepCall, until
from lit_xai.network.trees import leaves, replaced
from lit_xai.network.untouched import untouched


@dataclass(frozen=True)
class LogitsAt:
    """Picks the logits in an output.

    Args:
        path: of the tensor, as :func:`~lit_xai.network.trees.leaves` yields it.

    Example:
        >>> import torch
        >>> pick = LogitsAt("scores")
        >>> pick({"scores": torch.zeros(2, 3)}).shape, str(pick)
        (torch.Size([2, 3]), 'output[scores]')
    """

    path: str

    def __call__(self, result: Any) -> Any:
        """Return the logits."""
        found = dict(leaves(result)).get(self.path)
        # Detectors and others return something else in evaluation mode.
        return find_logits(result) if found is None else found

    def __str__(self) -> str:
        return f"output[{self.path}]" if self.path else "output"


@dataclass(frozen=True)
class LabelsAt:
    """Picks the labels in a batch; ``None`` from one without them.

    Args:
        path: of their column, see :func:`~lit_xai.network.rows.columns`; of a list's, each entry has one label.
    """

    path: str

    def __call__(self, batch: Any) -> Any:
        """Return the labels."""
        labels = column(batch, self.path)
        return torch.stack(labels) if isinstance(labels, list) else labels


@dataclass(frozen=True)
class InputsInBatch:
    """Picks inputs that are tensors of the batch.

    Args:
        template: the ``(args, kwargs)`` of a call that took place.
        paths: for each tensor in them, the path of its like in a batch.

    Raises:
        ValueError: a batch has no tensor there.
    """

    template: Any
    paths: dict[str, str]

    def __call__(self, batch: Any) -> Inputs:
        """Return the inputs."""
        found = dict(leaves(batch))
        missing = [path for path in self.paths.values() if path not in found]
        if missing:
            raise ValueError(f"a batch expected a tensor at {missing[0]!r}, but it has {list(found)}.")
        args, kwargs = replaced(self.template, {path: found[place] for path, place in self.paths.items()})
        return inputs_of_call(args, kwargs)


@dataclass(frozen=True)
class InputsOfStep:
    """Picks the inputs of a whole step.

    Args:
        step: that stands for a network.
    """

    step: StepCall

    def __call__(self, batch: Any) -> Inputs:
        """Return the inputs: the batch is held fixed, its data are keywords."""
        return self.step.inputs(batch)


@dataclass(frozen=True)
class ComputedInputs:
    """Runs the step up to the call of the network, whose inputs it computes.

    Args:
        owner: a weak reference to the module whose step it is.
        run: runs its step on a batch.
        name: of the network in it.
        unused: keywords to leave out.

    Raises:
        ValueError: the step does not call the network.
    """

    owner: Any
    run: Callable[[nn.Module, Any], object]
    name: str
    unused: tuple[str, ...] = ()

    def __call__(self, batch: Any) -> Inputs:
        """Return the inputs."""
        pl_module = self.owner()
        with untouched(pl_module), torch.no_grad():
            parts = parts_with_weights(pl_module)
            with until({self.name: parts[self.name]}, 0, before=True) as calls:
                self.run(pl_module, replaced(batch, {path: tensor.clone() for path, tensor in leaves(batch)}))
        if not calls:
            raise ValueError(f"the step of {type(pl_module).__name__} expected to call {self.name!r}, but it does not.")
        _, args, kwargs, _ = calls[0]
        args, kwargs = by_name(parts[self.name].forward, args, kwargs)
        return inputs_of_call(args, {key: value for key, value in kwargs.items() if key not in self.unused})
