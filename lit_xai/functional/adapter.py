"""Between a network as its users call it and the forward function that Captum expects."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.functional.calling import Inputs, OutputSpec, call_network, describe


class Arguments:
    """A call's arguments taken apart into what is explained, what goes along per sample, and what stays the same.

    Args:
        inputs: what the network is called with.
        any_dtype: whether integer tensors can be explained too.
    """

    def __init__(self, inputs: Inputs, any_dtype: bool = False) -> None:
        self.keys = list(inputs) if isinstance(inputs, dict) else None
        self.single = isinstance(inputs, Tensor)
        leaves: list[Any] = (
            list(inputs.values()) if isinstance(inputs, dict) else [inputs] if self.single else [*inputs]
        )
        # Clones: tensors made in inference mode cannot be saved for backward, and methods write to what they are given.
        self.values: list[Any] = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        tensors = [i for i, value in enumerate(self.values) if isinstance(value, Tensor) and value.dim()]
        floats = [i for i in tensors if self.values[i].is_floating_point()]
        self.explained = floats or (tensors[:1] if any_dtype else [])
        self.n = len(self.values[self.explained[0]]) if self.explained else 0
        self.along = [i for i in tensors if i not in self.explained and len(self.values[i]) == self.n]
        if self.explained and (self.n == 0 or any(len(self.values[i]) != self.n for i in self.explained)):
            raise ValueError(
                f"inputs expected one or more samples, as many in each tensor, but got {describe(inputs)}."
            )

    def rows(self, rows: slice) -> list[Any]:
        """Return all values, those that have one row per sample cut to ``rows``."""
        batched = {*self.explained, *self.along}
        return [v[rows].detach() if i in batched else v for i, v in enumerate(self.values)]

    def rebuild(self, values: list[Any]) -> Inputs:
        """Put values back into the structure of the inputs."""
        if self.keys is not None:
            return dict(zip(self.keys, values, strict=True))
        return values[0] if self.single else tuple(values)

    def shaped(self, attributions: tuple[Tensor, ...]) -> Any:
        """Put attributions into the structure of the inputs."""
        found = dict(zip(self.explained, attributions, strict=True))
        if self.keys is not None:
            return {self.keys[i]: value for i, value in found.items()}
        return found[0] if self.single else tuple(found.get(i) for i in range(len(self.values)))

    def like_inputs(self, structure: Any) -> Any:
        """Pick, out of a structure like the inputs', the parts that belong to what is explained."""
        if isinstance(structure, dict) and self.keys is not None:
            return tuple(structure[self.keys[i]] for i in self.explained)
        if isinstance(structure, (tuple, list)):
            parts = tuple(structure)
            return tuple(parts[i] for i in self.explained) if len(parts) == len(self.values) else parts
        return structure if structure is None or len(self.explained) > 1 else (structure,)


class Forward(nn.Module):
    """The network as Captum wants it: explained tensors first, then what goes along, and logits out.

    Args:
        network: the module.
        arguments: what it is called with.
        call: the network's method that is called.
        output: where the logits are in its output.
        target: checked against the first logits that come out.
        at_most: most samples in one pass without gradients; ``None`` where hooks need the batch in one piece.
    """

    def __init__(
        self,
        network: nn.Module,
        arguments: Arguments,
        call: str = "forward",
        output: OutputSpec = None,
        target: Any = None,
        at_most: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._call, self._output = call, output
        self._arguments, self._at_most = arguments, at_most
        self._target, self._checked = target, False

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits, in pieces where nothing has to be remembered for a backward pass."""
        if self._at_most is None or torch.is_grad_enabled() or len(tensors[0]) <= self._at_most:
            return self._logits(*tensors)
        return torch.cat([self._logits(*part) for part in _pieces(tensors, self._at_most)])

    def _logits(self, *tensors: Tensor) -> Tensor:
        values = list(self._arguments.values)
        for place, tensor in zip([*self._arguments.explained, *self._arguments.along], tensors, strict=True):
            values[place] = tensor
        logits = call_network(self.network, self._arguments.rebuild(values), self._call, self._output)
        if not self._checked:
            _check_target(self._target, logits, len(tensors[0]), self._arguments.n)
            self._checked = True
        return logits


def check_logits(logits: Tensor, rows: int) -> None:
    """Refuse an output that does not hold one row of logits per sample.

    Example:
        >>> check_logits(torch.zeros(8, 3, 16, 16), 8)
        Traceback (most recent call last):
        ...
        ValueError: The network's output expected one row of logits per sample, (8, classes) or (8,), but got (8, 3, ...
    """
    shape = tuple(logits.shape)
    if logits.dim() not in (1, 2) or shape[0] != rows:
        raise ValueError(
            f"The network's output expected one row of logits per sample, ({rows}, classes) or ({rows},), but got"
            f" {shape}: name the part of it that holds them with output=, as a key, an index, or a function."
        )


def _check_target(target: Any, logits: Tensor, rows: int, n: int) -> None:
    check_logits(logits, rows)
    classes = 1 if logits.dim() == 1 else logits.shape[1]
    if target is None:
        if classes > 1:
            raise ValueError(
                f"target expected a class from 0 to {classes - 1}, one for all or one per sample, but got None."
            )
        return
    if logits.dim() == 1:
        raise ValueError(f"target expected None, since the network returns one number per sample, but got {target!r}.")
    given = torch.as_tensor(target)
    if given.dim() and len(given) != n:
        raise ValueError(f"target expected {n} classes, one per sample, but got {len(given)}.")
    if given.is_floating_point() or int(given.min()) < 0 or int(given.max()) >= classes:
        raise ValueError(f"target expected classes from 0 to {classes - 1}, but got {given.tolist()}.")


def _pieces(tensors: tuple[Tensor, ...], at_most: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(at_most) for tensor in tensors), strict=True)
