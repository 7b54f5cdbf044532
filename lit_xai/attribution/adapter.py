"""Between a network as its users call it and the forward function that Captum expects."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import LABEL_KEYS, Inputs, OutputSpec, call_network
from lit_xai.network.describing import describe


class Arguments:
    """A call's arguments taken apart into what is explained, what goes along per sample, and what stays the same.

    Args:
        inputs: what the network is called with.
        any_dtype: whether integer tensors can be explained too.

    Raises:
        ValueError: there is no tensor with samples among them, or not as many in each.
    """

    def __init__(self, inputs: Inputs, any_dtype: bool = False) -> None:
        self.keys = list(inputs) if isinstance(inputs, Mapping) else None
        self.single = isinstance(inputs, Tensor)
        leaves: list[Any] = _elements(inputs)
        # Clones: tensors made in inference mode cannot be saved for backward, and methods write to what they are given.
        self.values: list[Any] = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        tensors = [i for i, value in enumerate(self.values) if isinstance(value, Tensor) and value.dim()]
        if not tensors:
            raise ValueError(
                "inputs expected a tensor with one row per sample, or a tuple or dict that holds one, but got"
                f" {describe(inputs)}."
            )
        floats = [i for i in tensors if self.values[i].is_floating_point() and not self._goes_along(i)]
        self.explained = floats or (tensors[:1] if any_dtype else [])
        self.n = len(self.values[self.explained[0]]) if self.explained else 0
        self.along = [i for i in tensors if i not in self.explained and len(self.values[i]) == self.n]
        if self.explained and (self.n == 0 or any(len(self.values[i]) != self.n for i in self.explained)):
            raise ValueError(
                f"inputs expected one or more samples, as many in each floating tensor, but got {describe(inputs)}."
            )

    def _goes_along(self, i: int) -> bool:
        """Whether a tensor is by its name no input to explain: an attention mask of floats, the labels."""
        return self.keys is not None and ("mask" in self.keys[i] or self.keys[i] in LABEL_KEYS)

    def rows(self, rows: slice) -> list[Any]:
        """Return all values, those that have one row per sample cut to ``rows``."""
        batched = {*self.explained, *self.along}
        return [v[rows].detach() if i in batched else v for i, v in enumerate(self.values)]

    def rebuild(self, values: list[Any]) -> Inputs:
        """Put values back into the structure of the inputs, as copies: networks write to what they are given."""
        values = [value.clone() if isinstance(value, Tensor) else value for value in values]
        if self.keys is not None:
            return dict(zip(self.keys, values, strict=True))
        return values[0] if self.single else tuple(values)

    def shaped(self, attributions: tuple[Tensor, ...]) -> Any:
        """Put attributions into the structure of the inputs."""
        found = dict(zip(self.explained, attributions, strict=True))
        if self.keys is not None:
            return {self.keys[i]: value for i, value in found.items()}
        return found[0] if self.single else tuple(found.get(i) for i in range(len(self.values)))

    def like_inputs(self, given: Any, argument: str) -> tuple[Any, ...] | None:
        """Return one part of ``given`` for each tensor that is explained.

        Args:
            given: a tuple or dict like the inputs, a tuple for the explained ones alone, one tensor for a single one,
                or one number for all.
            argument: what it was given for, named in the error.
        """
        parts: Any = given
        if given is None:
            return None
        if isinstance(given, (int, float)):
            return (given,) * len(self.explained)
        if isinstance(given, Mapping):
            keys = [self.keys[i] if self.keys else i for i in self.explained]
            parts = tuple(given.get(key) for key in keys)
        elif not isinstance(given, (tuple, list)):
            parts = (given,)
        elif len(given) == len(self.values):
            parts = tuple(given[i] for i in self.explained)
        if len(parts) != len(self.explained) or any(part is None for part in parts):
            names = ", ".join(repr(self.keys[i] if self.keys else i) for i in self.explained)
            raise ValueError(
                f"{argument} expected one part for each explained input ({names}), but got {describe(given)}."
            )
        return tuple(parts)


def _elements(inputs: Any) -> list[Any]:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]


class Forward(nn.Module):
    """The network as Captum wants it: explained tensors first, then what goes along, and logits out.

    Args:
        network: the module.
        arguments: what it is called with.
        call: the network's method that is called.
        output: where the logits are in its output.
        at_most: most samples in one pass without gradients; ``None`` where hooks need the batch in one piece.
        check: called once, with the first logits and the number of samples they belong to.
        differentiated: whether the logits have to depend on the inputs in a way that can be differentiated.
        flat: whether ``(N, 1)`` is returned as ``(N,)``, since no target says which column is meant.
    """

    def __init__(
        self,
        network: nn.Module,
        arguments: Arguments,
        call: str = "forward",
        output: OutputSpec = None,
        *,
        at_most: int | None = None,
        check: Callable[[Tensor, int], None] | None = None,
        differentiated: bool = False,
        flat: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._call, self._output = call, output
        self._arguments, self._at_most = arguments, at_most
        self._check, self._differentiated, self._flat = check, differentiated, flat

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits, in pieces where nothing has to be remembered for a backward pass."""
        if self._at_most is None or torch.is_grad_enabled() or len(tensors[0]) <= self._at_most:
            return self._logits(*tensors)
        return torch.cat([self._logits(*part) for part in _pieces(tensors, self._at_most)])

    def _logits(self, *tensors: Tensor) -> Tensor:
        values = list(self._arguments.values)
        for place, tensor in zip([*self._arguments.explained, *self._arguments.along], tensors, strict=True):
            # What a method draws in float32 goes in as the network's own precision.
            values[place] = tensor.to(values[place].dtype) if tensor.is_floating_point() else tensor
        logits = call_network(self.network, self._arguments.rebuild(values), self._call, self._output)
        if self._check is not None:
            self._check(logits, len(tensors[0]))
            self._check = None
        if self._differentiated and torch.is_grad_enabled() and not logits.requires_grad:
            raise ValueError(
                f"{type(self.network).__name__}'s output cannot be differentiated: take a method that only calls the"
                " network, such as method='FeatureAblation'."
            )
        return logits.squeeze(1) if self._flat and logits.dim() == 2 else logits


def check_logits(logits: Tensor, rows: int) -> None:
    """Refuse an output that does not hold one row of logits per sample.

    Example:
        >>> check_logits(torch.zeros(8, 3, 16, 16), 8)
        Traceback (most recent call last):
        ...
        ValueError: The network's output expected one row of logits per sample, (N, classes) or (N,), but got (8, 3, ...
    """
    shape = tuple(logits.shape)
    if logits.dim() not in (1, 2) or shape[0] != rows:
        raise ValueError(
            "The network's output expected one row of logits per sample, (N, classes) or (N,), but got"
            f" {shape} for {rows}: name the part of it that holds them with output=, as a key, an index, or a function."
        )


def _pieces(tensors: tuple[Tensor, ...], at_most: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(at_most) for tensor in tensors), strict=True)
