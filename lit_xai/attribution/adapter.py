"""The adapter between a network as its users call it and the forward function that Captum expects.

Captum explains positional tensors with one row per sample. Networks are called with a tensor, a tuple or a dict, in
which masks, integer ids and constants stand next to what can be explained. :class:`Arguments` takes such a call apart,
and :class:`Forward` puts it together again inside Captum's.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import LABEL_KEYS, Inputs, OutputSpec, call_network
from lit_xai.network.describing import describe


class Arguments:
    """The arguments of a call, split into those to explain, those with one row per sample, and constants.

    Args:
        inputs: what the network is called with.
        any_dtype: whether integer tensors can be explained too.

    Attributes:
        values: the arguments in order, tensors as detached copies.
        explained: places of the tensors to explain: the floating ones, or else the first where any type will do.
        along: places of the other tensors with one row per sample, which are passed to the network unchanged.
        n: number of samples.

    Raises:
        ValueError: no argument holds samples, or the explained ones hold different numbers of them.
    """

    def __init__(self, inputs: Inputs, any_dtype: bool = False) -> None:
        self.keys = list(inputs) if isinstance(inputs, Mapping) else None
        self.single = isinstance(inputs, Tensor)
        # Clones: tensors made in inference mode cannot be saved for backward, and methods write to what they are given.
        self.values: list[Any] = [_copied(value) for value in _elements(inputs)]
        tensors = [i for i, value in enumerate(self.values) if isinstance(value, Tensor) and value.dim()]
        if not tensors:
            raise ValueError(
                "inputs expected a tensor with one row per sample, or a tuple or dict that holds one, but got"
                f" {describe(inputs)}."
            )
        self.explained = list(filter(self._is_explainable, tensors)) or (tensors[:1] if any_dtype else [])
        rows = {len(self.values[i]) for i in self.explained}
        if len(rows) > 1 or 0 in rows:
            raise ValueError(
                f"inputs expected one or more samples, as many in each floating tensor, but got {describe(inputs)}."
            )
        self.n = max(rows, default=0)
        self.along = [i for i in tensors if i not in self.explained and len(self.values[i]) == self.n]

    def _is_explainable(self, i: int) -> bool:
        """Return whether a tensor holds floats, and is neither a mask nor the labels by its name."""
        key = self.keys[i] if self.keys else ""
        return self.values[i].is_floating_point() and "mask" not in key and key not in LABEL_KEYS

    def rows(self, rows: slice) -> list[Any]:
        """Return all values, those that have one row per sample cut to ``rows``."""
        # Detached slices are leaves of the graph, which may be given requires_grad.
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
        by_place = dict(zip(self.explained, attributions, strict=True))
        if self.keys is not None:
            return {self.keys[i]: value for i, value in by_place.items()}
        # As many elements as the call has arguments, so that attributions and inputs can be zipped.
        return by_place[0] if self.single else tuple(by_place.get(i) for i in range(len(self.values)))

    def like_inputs(self, given: Any, argument: str) -> tuple[Any, ...] | None:
        """Return one part of ``given`` for each explained tensor.

        Args:
            given: a tuple or dict like the inputs, a tuple for the explained ones alone, one tensor for a single one,
                or one number for all.
            argument: its name, for the error.
        """
        if given is None:
            return None
        if isinstance(given, (int, float)):
            return (given,) * len(self.explained)
        names = [self.keys[i] if self.keys else i for i in self.explained]
        parts = self._parts_of(given, names)
        if len(parts) != len(names) or any(part is None for part in parts):
            raise ValueError(
                f"{argument} expected one part for each explained input ({', '.join(map(repr, names))}), but got"
                f" {describe(given)}."
            )
        return parts

    def _parts_of(self, given: Any, names: list[Any]) -> tuple[Any, ...]:
        if isinstance(given, Mapping):
            return tuple(given.get(name) for name in names)
        if not isinstance(given, (tuple, list)):
            return (given,)
        # As many parts as the call has arguments; else they are those of the explained ones alone.
        if len(given) == len(self.values):
            return tuple(given[i] for i in self.explained)
        return tuple(given)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _elements(inputs: Any) -> list[Any]:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]


class Forward(nn.Module):
    """The network in the form Captum calls: explained tensors first, then the other batched ones, and logits out.

    Args:
        network: the module.
        arguments: what it is called with.
        call: the network's method that is called.
        output: where the logits are in its output.
        at_most: most samples in one pass without gradients; ``None`` where hooks need the batch in one piece.
        check: called once, with the first logits and the number of samples they belong to.
        differentiated: whether the logits must be differentiable with respect to the inputs.
        flat: whether ``(N, 1)`` is returned as ``(N,)``: Captum selects a column by its target, and there is none.

    Attributes:
        scale: the largest absolute value among the first logits.
        unruled: names of functions for which the method has no rule.

    Raises:
        ValueError: the logits have to be differentiable and are not.
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
        self.scale = 0.0
        self.unruled: dict[str, None] = {}

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits, in pieces where no graph has to be kept for a backward pass."""
        if self._at_most is None or torch.is_grad_enabled() or len(tensors[0]) <= self._at_most:
            return self._logits(*tensors)
        return torch.cat([self._logits(*part) for part in _pieces(tensors, self._at_most)])

    def _logits(self, *tensors: Tensor) -> Tensor:
        values = list(self._arguments.values)
        for place, tensor in zip([*self._arguments.explained, *self._arguments.along], tensors, strict=True):
            # Methods that draw samples do so in float32, also for a network in another precision.
            values[place] = tensor.to(values[place].dtype) if tensor.is_floating_point() else tensor
        # Captum repeats the batched arguments with the samples; constants are those of the original call.
        logits = call_network(self.network, self._arguments.rebuild(values), self._call, self._output)
        if self._check is not None:
            self._check(logits, len(tensors[0]))
            # Once: comparing targets with the classes waits for the device.
            self._check = None
            self.scale = float(logits.detach().abs().amax())
        if self._differentiated and torch.is_grad_enabled() and not logits.requires_grad:
            raise ValueError(
                f"{type(self.network).__name__}'s output cannot be differentiated: use a method that only calls the"
                " network, such as method='FeatureAblation'."
            )
        # Without a target, Captum differentiates one number per sample.
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
        is_dense = logits.dim() > 2 and shape[0] == rows
        also = "" if not is_dense else "; or choose one number of each with target=, indices (N, k) in its output"
        raise ValueError(
            "The network's output expected one row of logits per sample, (N, classes) or (N,), but got"
            f" {shape} for {rows}: name the part of it that holds them with output=, as a key, an index, or a"
            f" function{also}."
        )


def check_rows(logits: Tensor, rows: int) -> None:
    """Refuse an output that does not hold something of each sample: logits, or logits of each of its places.

    Example:
        >>> check_rows(torch.zeros(8, 3, 16, 16), 8)
        >>> check_rows(torch.zeros(4, 3), 8)
        Traceback (most recent call last):
        ...
        ValueError: The network's output expected one row of logits per sample, (N, classes) or (N,), but got (4, 3) ...
    """
    if logits.dim() < 3 or len(logits) != rows or not logits.numel():
        check_logits(logits, rows)


def _pieces(tensors: tuple[Tensor, ...], at_most: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(at_most) for tensor in tensors), strict=True)
