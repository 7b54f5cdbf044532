"""Torch-Pruning's search for dependency groups, made quiet, faster and bounded."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

VISITS = 100
"""How often a search may come to one side of a layer with other channels: ten times what an attention needs."""


class LostError(Exception):
    """A group of channels that Torch-Pruning cannot follow through the network; the message says why."""


@contextlib.contextmanager
def searched(graph: Any, misread: Mapping[Any, Exception] = MappingProxyType({})) -> Iterator[None]:
    """Make Torch-Pruning's search for dependency groups faster and bounded; inside, no layer may change its size.

    A search that cannot be followed raises :class:`LostError`.

    Indices are mapped between layers once, not for every group. The search is bounded since it would not end where
    channels are shifted against themselves (each turn finds new ones) or where reshapes are misread.

    Private names in use: ``torch_pruning.dependency.index_mapping.update_index_mapping`` and
    ``torch_pruning.dependency.graph.Group``.

    Args:
        graph: Torch-Pruning's.
        misread: :func:`tolerant`'s nodes, at which a search ends.
    """
    from torch_pruning.dependency import graph as searching
    from torch_pruning.dependency import index_mapping

    update, group = index_mapping.update_index_mapping, searching.Group
    # Well above what networks need whose search ends: ten times all edges of the graph, and indices 16 times the widest
    # parameter.
    most = max(2000, 10 * sum(len(node.dependencies) for node in graph.module2node.values()))
    widest = 16 * max((size for p in graph.model.parameters() for size in p.shape), default=1)

    class Bounded(group):  # type: ignore[misc,valid-type]  # a class, found at run time
        def __init__(self) -> None:
            super().__init__()
            self._by_side: dict[tuple[Any, Any], list[Any]] = {}

        def has_pruning_op(self, dep: Any, idxs: Any) -> bool:
            # Torch-Pruning's own goes through the whole group each time: seconds where the search does not end.
            return idxs in self._by_side.get((dep.target, dep.handler), ())

        def add_dep(self, dep: Any, idxs: Any) -> None:
            visits = self._by_side.setdefault((dep.target, dep.handler), [])
            if len(self) > most or len(idxs) > widest or len(visits) >= VISITS:
                raise LostError("the search for the channels that depend on its own does not end")
            if dep.target in misread:
                raise misread[dep.target]
            visits.append(idxs)
            super().add_dep(dep, idxs)

    # Once here, in place of the call that Torch-Pruning makes for every group.
    _update_each(update, graph) if misread else update(graph)
    index_mapping.update_index_mapping, searching.Group = lambda graph: None, Bounded
    try:
        yield
    finally:
        index_mapping.update_index_mapping, searching.Group = update, group


@contextlib.contextmanager
def tolerant() -> Iterator[dict[Any, Exception]]:
    """Let Torch-Pruning build its graph although it misreads some of its nodes; yields these, each with the error.

    A split whose parts are read several times is one of them. :func:`searched` ends the search for a group that reaches
    such a node, so that its layers stay whole.

    Private name in use: ``torch_pruning.dependency.index_mapping.update_index_mapping``.
    """
    from torch_pruning.dependency import index_mapping

    update = index_mapping.update_index_mapping
    misread: dict[Any, Exception] = {}

    def each(graph: Any) -> None:
        try:
            update(graph)
        except Exception:  # one node after the other, to find the one that fails
            misread.update(_update_each(update, graph))

    index_mapping.update_index_mapping = each
    try:
        yield misread
    finally:
        index_mapping.update_index_mapping = update


class _OneNode:
    """Torch-Pruning's graph as if it had one node."""

    def __init__(self, graph: Any, module: Any, node: Any) -> None:
        self._graph, self.module2node = graph, {module: node}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)


def _update_each(update: Any, graph: Any) -> dict[Any, Exception]:
    failed = {}
    for module, node in graph.module2node.items():
        try:
            update(_OneNode(graph, module, node))
        except Exception as error:
            failed[node] = error
    return failed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Torch-Pruning's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on unwrapped parameters and the like; the result is checked instead
        yield


def why_lost(error: Exception) -> str:
    """Return why a group cannot be followed, for a list of layers that stay whole.

    Example:
        >>> why_lost(IndexError("index 64 is out of bounds"))
        'pruning cannot follow how its channels are split or joined, IndexError: index 64 is out of bounds'
    """
    if isinstance(error, LostError):
        return str(error)
    return f"pruning cannot follow how its channels are split or joined, {type(error).__name__}: {one_line(error)}"


def one_line(error: Exception) -> str:
    """Return an error's message on one line, for use in another."""
    line = " ".join(str(error).split())
    return line if len(line) <= 120 else f"{line[:117]}..."
