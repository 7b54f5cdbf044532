"""Layer sensitivity: a metric with one layer at a time changed, as a table that shows which layers tolerate it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from lit_xai.network.check import refusal
from lit_xai.network.spelling import nearest

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SensitivityTable:
    """A metric with one layer, or one group of coupled layers, changed at a time: rows are layers, columns amounts.

    Args:
        layers: the names of each row's layers: those that can only be changed together.
        columns: how much each column changes them.
        values: the metric, ``(layers, columns)``, float64.
        dense: the metric before anything is changed.
        higher_is_better: whether a higher value is a better one.
        metric: its name.

    Attributes:
        columns_title: what columns stand for, in words.
        reference: the name of the network that nothing was changed in.
    """

    columns_title: ClassVar[str] = "change of the layer"
    reference: ClassVar[str] = "dense"

    layers: tuple[tuple[str, ...], ...]
    columns: tuple[Any, ...]
    values: Tensor
    dense: float
    higher_is_better: bool = True
    metric: str = "metric"

    @property
    def column_labels(self) -> list[str]:
        """The columns in words."""
        return [str(column) for column in self.columns]

    @property
    def drop(self) -> Tensor:
        """The loss of each value against dense, shaped like ``values``; negative where it is better."""
        return self.dense - self.values if self.higher_is_better else self.values - self.dense

    def affordable(self, max_drop: float) -> Tensor:
        """Return which cells cost at most ``max_drop``, in the metric's own unit: booleans like ``values``.

        Raises:
            ValueError: ``max_drop`` is negative or no number.
        """
        if not max_drop >= 0:  # also refuses NaN
            raise refusal("max_drop", "a number of at least 0", max_drop)
        # 0.90 - 0.88 is a little more than 0.02 in floating point.
        return self.drop <= max_drop + 1e-9 * max(1.0, abs(self.dense))

    def affordable_columns(self, max_drop: float) -> Iterator[tuple[str, list[Any]]]:
        """Yield the name of each layer and the columns that cost at most ``max_drop``.

        Raises:
            ValueError: ``max_drop`` is negative or no number.

        Example:
            >>> import torch
            >>> table = SensitivityTable((("a", "b"),), (0.3, 0.5), torch.tensor([[0.89, 0.5]]), dense=0.9)
            >>> list(table.affordable_columns(0.02))
            [('a', [0.3]), ('b', [0.3])]
        """
        for names, row in zip(self.layers, self.affordable(max_drop).tolist(), strict=True):
            columns = [column for column, ok in zip(self.columns, row, strict=True) if ok]
            yield from ((name, columns) for name in names)


def select_rows(
    rows: dict[tuple[str, ...], T], layers: Iterable[str] | None, network: str, changed: str
) -> dict[tuple[str, ...], T]:
    """Return the rows that hold the selected layers, all by default, in the order of the network.

    Args:
        rows: what is known of each row, by the names of its layers.
        layers: names of layers.
        network: the name of the network's class, for errors.
        changed: what is done to layers, a participle, for errors.

    Raises:
        ValueError: there are no rows, or a name is in none of them.

    Example:
        >>> select_rows({("conv1",): 0, ("conv2", "conv3"): 1}, ["conv3"], "ResNet", "pruned")
        {('conv2', 'conv3'): 1}
    """
    if not rows:
        raise ValueError(f"{network} has no layer that can be {changed}.")
    if layers is None:
        return rows
    wanted, known = list(layers), [name for names in rows for name in names]
    if not wanted:
        raise ValueError("layers expected one or more names of layers, but got none.")
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise ValueError(f"layers: {unknown!r} is no layer that can be {changed}.{nearest(unknown, known)}")
    return {names: row for names, row in rows.items() if set(names) & set(wanted)}
