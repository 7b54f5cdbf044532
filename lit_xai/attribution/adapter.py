"""The adapter between a network as its users call it and the forward function that Captum expects.

Captum explains positional tensors with one row per sample. Networks are called with arguments of any shape, in which
masks, integer ids and constants stand next to what can be explained, and which not always hold a row per sample.
:class:`SplitInputs` takes such a call apart, and :class:`Forward` puts it together again inside Captum's.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.arguments import Arguments, Inputs, elements, named_leaves
from lit_xai.network.calling import LABEL_KEYS, OutputSpec, call_network
from lit_xai.network.describing import describe
from lit_xai.network.profiling import count_samples
from lit_xai.network.trees import leaves, with_tensors


class SplitInputs:
    """The tensors of a call, split into those to explain, those with one row per sample, and constants.

    Args:
        inputs: what the network is called with.
        any_dtype: whether integer tensors can be explained too.
        n: number of samples; default the rows of the first tensor that can be explained.
        whole: whether the call is explained as one sample, since it cannot be cut into samples (a batch of graphs, a
            list of images of different sizes).

    Attributes:
        names: of the tensors, as :func:`~lit_xai.network.arguments.named_leaves` yields them.
        values: the tensors in order, as detached copies.
        explained: places of the tensors to explain: floating ones with ``n`` rows, or else the first that is no mask
            where any type will do.
        along: places of the other tensors with one row per sample, which are passed to the network unchanged.
        n: number of samples.

    Raises:
        ValueError: no argument holds samples, or one holds none.
    """

    def __init__(self, inputs: Inputs, any_dtype: bool = False, n: int | None = None, whole: bool = False) -> None:
        self.inputs, self.whole = inputs, whole
        named = list(named_leaves(inputs))
        self.names = [name for name, _ in named]
        # The argument that a tensor is itself, None for a part of one.
        self._keys = [None if path else key for key, part in elements(inputs).items() for path, _ in leaves(part)]
        # Clones: tensors made in inference mode cannot be saved for backward, and methods write to what they are given.
        self.values: list[Tensor] = [tensor.detach().clone() for _, tensor in named]
        tensors = [i for i, value in enumerate(self.values) if value.dim()]
        if not tensors:
            raise ValueError(
                "inputs expected a tensor with one row per sample, or a tuple or dict that holds one, but got"
                f" {describe(inputs)}."
            )
        able = list(filter(self.is_explainable, tensors))
        if any_dtype and not able:
            able = [i for i in tensors if not self._is_aside(i)][:1] or tensors[:1]
        if any(not len(self.values[i]) for i in able):
            raise ValueError(f"inputs expected one or more samples, but got {describe(inputs)}.")
        if whole:
            self.explained, self.along, self.n = able, list[int](), 1
            return
        self.n = n or next((len(self.values[i]) for i in able), 0)
        with_rows = [i for i in tensors if len(self.values[i]) == self.n]
        self.explained = [i for i in with_rows if i in able]
        self.along = [i for i in with_rows if i not in able]

    def is_explainable(self, i: int) -> bool:
        """Return whether a tensor holds floats, and is neither a mask nor the labels by its name."""
        return self.values[i].is_floating_point() and not self._is_aside(i)

    def _is_aside(self, i: int) -> bool:
        return any("mask" in key or key in LABEL_KEYS for key in self.names[i].split("."))

    def explain(self, name: str) -> None:
        """Explain the tensor of this name, and no other."""
        place = self.names.index(name)
        if not self.whole:
            self.along = sorted({*self.along, *self.explained} - {place})
        self.explained = [place]

    def rows(self, rows: slice) -> list[Tensor]:
        """Return all values, those that have one row per sample cut to ``rows``; of a whole call its one row."""
        # Detached slices are leaves of the graph, which may be given requires_grad.
        if self.whole:
            return [v[None].detach() if i in self.explained else v for i, v in enumerate(self.values)]
        batched = {*self.explained, *self.along}
        return [v[rows].detach() if i in batched else v for i, v in enumerate(self.values)]

    def rebuild(self, values: list[Tensor]) -> Inputs:
        """Put values from :meth:`rows` back into the inputs, as copies: networks write to what they are given."""
        if self.whole:
            values = [v[0] if i in self.explained else v for i, v in enumerate(values)]
        rebuilt: Inputs = with_tensors(self.inputs, [value.clone() for value in values])
        return rebuilt

    def shaped(self, attributions: tuple[Tensor, ...]) -> Any:
        """Put attributions into the structure of the inputs, those of nested tensors into a dict by name."""
        if self.whole:
            attributions = tuple(value[0] for value in attributions)
        by_place = dict(zip(self.explained, attributions, strict=True))
        if isinstance(self.inputs, Tensor):
            return by_place[0]
        keys = [self._keys[i] for i in self.explained]
        if isinstance(self.inputs, Arguments) or None in keys:
            return {self.names[i]: value for i, value in by_place.items()}
        by_key = dict(zip(keys, attributions, strict=True))
        if isinstance(self.inputs, Mapping):
            return by_key
        # As many elements as the call has arguments, so that attributions and inputs can be zipped.
        return tuple(by_key.get(i) for i in range(len(self.inputs)))

    def like_inputs(self, given: Any, argument: str) -> tuple[Any, ...] | None:
        """Return one part of ``given`` for each explained tensor.

        Args:
            given: a tuple or dict like the inputs, a tuple for the explained ones alone, a dict by their names, one
                tensor for a single one, or one number for all.
            argument: its name, for the error.
        """
        if given is None:
            return None
        if isinstance(given, (int, float)):
            return (given,) * len(self.explained)
        names = [self.names[i] if self._keys[i] is None else self._keys[i] for i in self.explained]
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
        keys = list(elements(self.inputs))
        if len(given) == len(keys) and all(name in keys for name in names):
            return tuple(given[keys.index(name)] for name in names)
        return tuple(given)


def split_inputs(
    network: nn.Module, inputs: Inputs, call: str = "forward", output: OutputSpec = None, any_dtype: bool = False
) -> SplitInputs:
    """Split the inputs of a call into samples if the network takes each sample by itself, and else keep it whole.

    See :func:`~lit_xai.network.profiling.count_samples`.

    Args:
        network: in :func:`~lit_xai.functional.untouched`.
        inputs: what it is called with.
        call: the method that is called.
        output: where the logits are.
        any_dtype: whether integer tensors can be explained too.

    Raises:
        ValueError: no argument holds samples, or the network does not run with these inputs.

    Example:
        >>> split_inputs(nn.Linear(3, 2), torch.zeros(4, 3)).n
        4
        >>> bags = nn.EmbeddingBag(9, 2)
        >>> split_inputs(bags, (torch.tensor([1, 2, 4, 5]), torch.tensor([0, 3])), any_dtype=True).whole
        True
    """
    split = SplitInputs(inputs, any_dtype)
    rows = count_samples(network, inputs, call, output)
    if rows is not None and rows != split.n:
        split = SplitInputs(inputs, any_dtype, n=rows)
    whole = rows is None or not split.explained
    return SplitInputs(inputs, any_dtype, whole=True) if whole else split


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
        target: of inputs that are explained as a whole, the class of each row of logits; their sum is what is returned.

    Attributes:
        scale: the largest absolute value among the first logits.
        unruled: names of functions for which the method has no rule.

    Raises:
        ValueError: the logits have to be differentiable and are not.
    """

    def __init__(
        self,
        network: nn.Module,
        arguments: SplitInputs,
        call: str = "forward",
        output: OutputSpec = None,
        *,
        at_most: int | None = None,
        check: Callable[[Tensor, int], None] | None = None,
        differentiated: bool = False,
        flat: bool = False,
        target: int | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network, self._target = network, target
        self._call, self._output = call, output
        self._arguments, self._at_most = arguments, at_most
        self._check, self._differentiated, self._flat = check, differentiated, flat
        self.scale = 0.0
        self.unruled: dict[str, None] = {}

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits, in pieces where no graph has to be kept for a backward pass."""
        if self._arguments.whole:
            return torch.stack([self._total(self._logits(*part)) for part in _pieces(tensors, 1)])
        if self._at_most is None or torch.is_grad_enabled() or len(tensors[0]) <= self._at_most:
            return self._logits(*tensors)
        return torch.cat([self._logits(*part) for part in _pieces(tensors, self._at_most)])

    def _total(self, logits: Tensor) -> Tensor:
        """Return the sum of what is explained: rows of logits that do not share inputs do not mix in its gradient."""
        if self._target is None:
            return logits.sum()
        target = torch.as_tensor(self._target, device=logits.device).expand(len(logits))
        return logits.gather(1, target[:, None]).sum()

    def _logits(self, *tensors: Tensor) -> Tensor:
        values = list(self._arguments.values)
        for place, tensor in zip([*self._arguments.explained, *self._arguments.along], tensors, strict=True):
            # Methods that draw samples do so in float32, also for a network in another precision.
            values[place] = tensor.to(values[place].dtype) if tensor.is_floating_point() else tensor
        # Captum repeats the batched arguments with the samples; constants are those of the original call.
        logits = call_network(self.network, self._arguments.rebuild(values), self._call, self._output)
        if self._check is not None:
            self._check(logits, sum(logits.shape[:1]) if self._arguments.whole else len(tensors[0]))
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
