"""Inputs without a row for each sample, such as graphs: what files take of them, and batches to compare files on."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lit_xai.export.parity import in_float
from lit_xai.network.calling import BatchToInputs, Inputs, OutputSpec, find_inputs
from lit_xai.network.metric import first_batch, same_order
from lit_xai.network.profiling import count_samples
from lit_xai.network.trees import to_device
from lit_xai.network.untouched import fork_rng
from lit_xai.runtime.flat import differing, named_tensors

Sizes = Mapping[str, list[int | None]]
"""The shapes that a file takes by the names of its inputs; ``None`` for a dimension of any size."""

SEARCHED = 8
"""The number of samples among which others of another size are looked for."""

MOST = 512
"""The largest number of samples that are read and compared one by one."""


@dataclass(frozen=True)
class Examples:
    """What an export calls a network with.

    Args:
        inputs: of the first batch.
        loader: the batches to compare files on.
        others: inputs of other sizes, such as longer texts.
        is_whole: whether files take these sizes rather than any number of samples: there is no row for each.
        is_fixed: whether there is one, but the network's code takes one number of samples alone.
    """

    inputs: Inputs
    loader: Iterable[Any]
    others: tuple[Inputs, ...] = ()
    is_whole: bool = False
    is_fixed: bool = False


def read_examples(
    loader: Iterable[Any], network: nn.Module, batch_to_inputs: BatchToInputs = None, output: OutputSpec = None
) -> Examples:
    """Read a loader's first inputs; what has no row for each sample is read one sample at a time, where that works.

    Args:
        loader: yields batches, and can be read twice.
        network: the module.
        batch_to_inputs: its inputs in a batch.
        output: the logits in its output.

    Example:
        >>> read_examples([torch.zeros(8, 4)], nn.Linear(4, 2)).is_whole
        False
    """
    inputs = _inputs(first_batch(loader, torch.device("cpu")), network, batch_to_inputs)
    is_whole = count_samples(network, inputs, output=output) is None
    loader = one_by_one(loader) if is_whole else loader
    with fork_rng(0), same_order(loader):
        some = [_inputs(batch, network, batch_to_inputs) for batch in itertools.islice(loader, SEARCHED)]
    if not is_whole:
        return Examples(inputs, loader, others_of([inputs, *some], rows=True))
    return Examples(some[0], loader, others_of(some), is_whole=True)


def others_of(some: list[Inputs], rows: bool = False) -> tuple[Inputs, ...]:
    """Return those of several inputs, after the first, that differ from it in size.

    Args:
        some: inputs.
        rows: whether their first dimension counts samples, and is of any size anyway.

    Example:
        >>> len(others_of([torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(4, 3)]))
        1
    """
    shapes = [{name: tensor.shape for name, tensor in named_tensors(one).items()} for one in some]
    differ = [differing([shapes[0], shape]) for shape in shapes]
    return tuple(
        one for one, found in zip(some, differ, strict=True) if any(dims != [0] or not rows for dims in found.values())
    )


def one_by_one(loader: Any) -> Any:
    """Return the samples of a loader in batches of one, at most 512; a loader without an index as it is.

    Example:
        >>> next(iter(one_by_one(DataLoader([1, 2, 3], batch_size=2))))
        tensor([1])
    """
    if hasattr(loader, "one_by_one"):
        return loader.one_by_one()
    is_indexed = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if not is_indexed or loader.batch_sampler is None:
        return loader
    return DataLoader(loader.dataset, 1, sampler=loader.sampler, collate_fn=loader.collate_fn)


class Fitting:
    """The batches of a loader that a file takes.

    Args:
        loader: yields batches.
        sizes: what the file takes.
        network: finds the inputs in a batch.
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.

    Example:
        >>> len(list(Fitting([torch.zeros(2, 3), torch.zeros(4, 3)], {"input": [2, 3]}, nn.Linear(3, 1))))
        1
    """

    def __init__(
        self, loader: Iterable[Any], sizes: Sizes, network: nn.Module, batch_to_inputs: BatchToInputs = None
    ) -> None:
        self._loader, self._sizes, self._network, self._batch_to_inputs = loader, sizes, network, batch_to_inputs

    def __iter__(self) -> Iterator[Any]:
        for batch in itertools.islice(self._loader, MOST):
            if fits(_inputs(batch, self._network, self._batch_to_inputs), self._sizes):
                yield batch


def fits(inputs: Inputs, sizes: Sizes) -> bool:
    """Return whether a file takes inputs.

    Example:
        >>> fits(torch.zeros(7, 3), {"input": [None, 3]}), fits(torch.zeros(7, 3), {"input": [2, 3]})
        (True, False)
    """
    shapes = {name: tensor.shape for name, tensor in named_tensors(inputs).items()}
    return all(
        len(shapes[name]) == len(size)
        and all(wanted in (None, got) for wanted, got in zip(size, shapes[name], strict=True))
        for name, size in sizes.items()
    )


def describe_sizes(network: str, sizes: Sizes, is_fixed: bool = False) -> str:
    """Return in a sentence what files take that do not take any number of samples.

    Args:
        network: its name.
        sizes: that the files take.
        is_fixed: whether the network's code takes one number of samples alone; else its inputs hold no row for each.

    Example:
        >>> describe_sizes("GNN", {"x": [None, 5], "edges": [2, None]})
        "GNN's inputs hold no row for each sample: the files take x[*, 5], edges[2, *], of any size where * stands."
        >>> describe_sizes("GNN", {"x": [6, 5]})
        "GNN's inputs hold no row for each sample: the files take exactly these shapes: x[6, 5]."
    """
    written = [f"{name}[{', '.join('*' if one is None else str(one) for one in size)}]" for name, size in sizes.items()]
    is_free = any(None in size for size in sizes.values())
    what = (
        f"{', '.join(written)}, of any size where * stands"
        if is_free
        else f"exactly these shapes: {', '.join(written)}"
    )
    if is_fixed:
        return (
            f"{network}'s code takes one number of samples alone: the files take {what}. Take sizes from the inputs, as"
            " in x.view(len(x), -1), for files that take any number."
        )
    return f"{network}'s inputs hold no row for each sample: the files take {what}."


def _inputs(batch: Any, network: nn.Module, batch_to_inputs: BatchToInputs) -> Inputs:
    return in_float(find_inputs(to_device(batch, torch.device("cpu")), network, batch_to_inputs))
