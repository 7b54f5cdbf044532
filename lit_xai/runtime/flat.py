"""A network in the form that exporters take: tensors in, logits out, however nested its own inputs and outputs are."""

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.arguments import Arguments, Inputs, named_leaves
from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.draws import MeanDraws
from lit_xai.network.profiling import count_samples, with_batch_size
from lit_xai.network.rows import take
from lit_xai.network.trees import with_tensors
from lit_xai.network.untouched import untouched
from lit_xai.runtime.reads import FixedReads, numbers_read
from lit_xai.runtime.scattering import MeansAsSums
from lit_xai.runtime.traceable import Traceable

ROWS = 16
"""The number of samples that are called alone, to see whether numbers read out of them differ."""


class FlatNetwork(nn.Module):
    """Takes the tensors of a network's inputs one by one, and returns its logits.

    The names of its parameters begin with ``network.``, in exported files as well. Random numbers that the network
    draws are at their means, :class:`~lit_xai.network.draws.MeanDraws`. Where the inputs hold no row per sample (a
    graph), whole numbers that the network reads out of them, such as the number of graphs, are those of the inputs once
    :meth:`fix_reads_` was called; where they do, :meth:`fix_reads_of_rows_`.

    Args:
        network: the module.
        inputs: its inputs; those that are not tensors become part of an exported file.
        call: the network's method that is called.
        output: where the logits are in its output.
        dynamic_batch: whether to export for any number of samples, where the network takes that.
        others: further inputs: dimensions in which they differ, such as the lengths of texts, are of any size.

    Example:
        >>> flat = FlatNetwork(nn.Linear(4, 2), {"input": torch.zeros(1, 4)})
        >>> list(flat.tensors), flat().shape, flat(torch.zeros(5, 4)).shape
        (['input'], torch.Size([2, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Inputs,
        call: str = "forward",
        output: OutputSpec = None,
        dynamic_batch: bool = True,
        others: Sequence[Inputs] = (),
    ) -> None:
        super().__init__()
        self.network, self._call, self._output = network, call, output
        inputs = with_tensors(inputs, named_tensors(inputs).values())
        n = count_samples(network, inputs, call, output) if dynamic_batch else None
        self._rows = n
        self._reads: list[int] = []
        self._examples: list[Inputs] = []
        if n is None:
            self._examples = [with_tensors(one, named_tensors(one).values()) for one in (inputs, *others)]
            inputs, self._dynamic = _of_any_size(self._examples if dynamic_batch else [inputs])
        else:
            inputs, self._dynamic = self._of_any_number(inputs, others, n)
        self._inputs = inputs
        self.tensors = named_tensors(inputs)

    def _of_any_number(self, inputs: Inputs, others: Sequence[Inputs], n: int) -> tuple[Inputs, dict[str, list[int]]]:
        """Return the example to trace, and its dimensions of any size: those of samples, and of texts' lengths."""
        every = [with_tensors(one, named_tensors(one).values()) for one in (inputs, *others)]
        inputs, free = _of_any_size(every)
        try:
            n = count_samples(self.network, inputs, self._call, self._output) or n if inputs is not every[0] else n
        except Exception:  # of any type: the network takes one size alone
            inputs, free = every[0], {}
        shapes = {name: tensor.shape for name, tensor in named_tensors(inputs).items()}
        lengths = {shapes[name][dim] for name, dims in free.items() for dim in dims if dim > 0}
        # torch.export takes a dimension of size 0 or 1 for a constant, and those of one size for the same.
        if n < 2 or n in lengths:
            size = next(k for k in itertools.count(2) if k not in lengths)
            inputs, n = with_batch_size(inputs, size, n), size
        dynamic = dict[str, list[int]]()
        for name, tensor in named_tensors(inputs).items():
            rows = [0] if tensor.dim() > 0 and len(tensor) == n else []
            dynamic[name] = rows + [dim for dim in free.get(name, ()) if dim > 0]
        return inputs, {name: dims for name, dims in dynamic.items() if dims}

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The ``dynamic_shapes`` that ``torch.export`` takes: dimensions that differ, such as those of samples."""
        # AUTO rather than DYNAMIC: the exporter may fix a dimension that the network needs to be constant.
        auto = torch.export.Dim.AUTO
        return (tuple(dict.fromkeys(self._dynamic.get(name, ()), auto) or None for name in self.tensors),)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits for tensors in the order of ``tensors``, by default for these."""
        inputs = with_tensors(self._inputs, tensors or self.tensors.values())
        fixed = FixedReads(self._reads) if self._reads else contextlib.nullcontext()
        with Traceable(), MeanDraws(), MeansAsSums(), fixed:
            return call_network(self.network, inputs, self._call, self._output)

    def fix_reads_(self) -> None:
        """Make whole numbers that the network reads out of inputs without rows those of the example, from now on.

        Not before the modules are prepared for the exporter: those that quantize read numbers of their own until then.

        Raises:
            ValueError: the numbers of the examples differ.
        """
        every = [numbers_read(lambda one=one: self._call_with(one)) for one in self._examples]  # type: ignore[misc]  # one is bound
        if any(reads != every[0] for reads in every):
            raise ValueError(
                f"{type(self.network).__name__} reads numbers out of its inputs that differ, such as"
                f" {every[0][:3]} and {next(reads for reads in every if reads != every[0])[:3]}"
            )
        self._reads = every[0] if every else []

    def fix_reads_of_rows_(self) -> list[int]:
        """Make whole numbers that the network reads out of inputs with rows those of the example, from now on.

        Returns:
            The numbers; none where they depend on how many rows there are, or on which.
        """
        if self._rows is None:
            return []
        n = max(self._rows, 2)
        examples = [self._inputs, with_batch_size(self._inputs, n + 1, n)]
        examples += [take(self._inputs, [row], n) for row in range(min(n, ROWS))]
        try:
            every = [numbers_read(lambda one=one: self._call_with(one)) for one in examples]  # type: ignore[misc]  # one is bound
        except Exception:  # of any type: the network may take no other number of rows
            return []
        if all(reads == every[0] for reads in every):
            self._reads = every[0]
        return self._reads

    def _call_with(self, inputs: Inputs) -> Tensor:
        with untouched(self.network), torch.no_grad(), Traceable(), MeanDraws():  # as in forward
            return call_network(self.network, inputs, self._call, self._output)


def _of_any_size(examples: Sequence[Inputs]) -> tuple[Inputs, dict[str, list[int]]]:
    """Return the example to trace, and the dimensions in which the examples differ by the names of tensors."""
    shapes = [{name: tensor.shape for name, tensor in named_tensors(one).items()} for one in examples]
    dynamic = differing(shapes)
    # A size of 0 or 1 becomes a constant, and dimensions of one size by chance the same symbol.
    free = [{shape[name][dim] for name, dims in dynamic.items() for dim in dims} for shape in shapes]
    best = max(range(len(examples)), key=lambda i: (min(free[i], default=0) > 1, len(free[i]), -i))
    return examples[best], dynamic


def differing(shapes: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, list[int]]:
    """Return the dimensions of tensors in which several sets of shapes differ, by name; none of other tensors.

    Example:
        >>> differing([{"x": (6, 5), "edges": (2, 14)}, {"x": (7, 5), "edges": (2, 14)}])
        {'x': [0]}
    """
    names = [
        name
        for name in shapes[0]
        if all(name in shape and len(shape[name]) == len(shapes[0][name]) for shape in shapes)
    ]
    dims = {
        name: [dim for dim, sizes in enumerate(zip(*(s[name] for s in shapes), strict=True)) if len({*sizes}) > 1]
        for name in names
    }
    return {name: found for name, found in dims.items() if found}


def named_tensors(inputs: Inputs) -> dict[str, Tensor]:
    """Return the tensors in inputs by their names in an ONNX file, on the CPU and floats in float32.

    Example:
        >>> list(named_tensors({"user": torch.zeros(1), "items": (torch.zeros(1), torch.zeros(1))}))
        ['user', 'items.0', 'items.1']
        >>> list(named_tensors(torch.zeros(1))), list(named_tensors((torch.zeros(1), torch.zeros(1))))
        (['input'], ['input.0', 'input.1'])
        >>> list(named_tensors(Arguments((torch.zeros(1),), {"mask": torch.zeros(1)})))
        ['input.0', 'mask']
    """
    # Contiguous, as a runtime has them: the steps between the rows of a window would be part of an exported file.
    detached = {_in_file(inputs, name): tensor.detach().cpu().contiguous() for name, tensor in named_leaves(inputs)}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in detached.items()}


def _in_file(inputs: Inputs, name: str) -> str:
    # A position is no name; a keyword is.
    has_place = not isinstance(inputs, (Mapping, Arguments)) or (isinstance(inputs, Arguments) and name[0].isdigit())
    return f"input.{name}".rstrip(".") if has_place else name


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence ``torch.export`` and ``torch.onnx`` inside; their exceptions still reach the caller.
    They log that torchvision is missing and tables of the strategies they tried, print graphs they could not read, and
    warn of their own deprecations.
    """
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
