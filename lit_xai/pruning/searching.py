"""Torch-Pruning's search for dependency groups, made quiet, faster and bounded."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def searched(graph: Any) -> Iterator[None]:
    """Make Torch-Pruning's search for dependency groups faster and bounded; inside, no layer may change its size.

    Indices are mapped between layers once, not for every group. The search is bounded since it would not end where
    channels are shifted against themselves (each turn finds new ones) or where reshapes are misread.

    Private names in use: ``torch_pruning.dependency.index_mapping.update_index_mapping`` and
    ``torch_pruning.dependency.graph.Group``.
    """
    from torch_pruning.dependency import graph as searching
    from torch_pruning.dependency import index_mapping

    update, group = index_mapping.update_index_mapping, searching.Group
    # Well above what networks need whose search ends: ten times all edges of the graph, and indices 16 times the widest
    # parameter.
    most = max(2000, 10 * sum(len(node.dependencies) for node in graph.module2node.values()))
    widest = 16 * max((size for p in graph.model.parameters() for size in p.shape), default=1)

    class Bounded(group):  # type: ignore[misc,valid-type]  # a class, found at run time
        def add_dep(self, dep: Any, idxs: Any) -> None:
            if len(self) > most or len(idxs) > widest:
                raise lost(graph.model, "the search for channels that depend on each other does not end")
            super().add_dep(dep, idxs)

    # Once here, in place of the call that Torch-Pruning makes for every group.
    update(graph)
    index_mapping.update_index_mapping, searching.Group = lambda graph: None, Bounded
    try:
        yield
    finally:
        index_mapping.update_index_mapping, searching.Group = update, group


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Torch-Pruning's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on unwrapped parameters and the like; the result is checked instead
        yield


def lost(network: nn.Module, why: str) -> ValueError:
    """Return the error of a network that the search cannot follow."""
    return ValueError(
        f"{type(network).__name__} splits or joins channels in a way that pruning cannot follow ({why}): narrow it down"
        " with module= to the part that does not, or keep the layers around it whole with ignored_layers=."
    )


def one_line(error: Exception) -> str:
    """Return an error's message on one line, for use in another."""
    return " ".join(str(error).split())[:200]
