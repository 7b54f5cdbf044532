"""Tables of embeddings as integers: a scale for each column, and floats again once a row was looked up."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_xai.quantization.observers import observe_weight_, run_fake_quant


class Lookup(NamedTuple):
    """One look into a table.

    Args:
        ids: rows, of any shape.
        table: ``(rows, columns)``.
        rows: what was found, ``(*ids.shape, columns)``, not quantized.
    """

    ids: Tensor
    table: Tensor
    rows: Tensor

    @property
    def columns(self) -> Tensor:
        """The table with its columns, which are its channels, first."""
        return self.table.t()


def is_table(name: str) -> bool:
    """Return whether a site is that of a table.

    Example:
        >>> is_table("user/table/embedding/weight"), is_table("embedding/linear/weight"), is_table("embedding-2/weight")
        (True, False, True)
    """
    *_, function, operand = ("", *name.split("/"))
    return operand == "weight" and function.partition("-")[0] == F.embedding.__name__


def fake_quantize_rows(fake_quant: Any, lookup: Lookup, training: bool, off: Tensor) -> Tensor:
    """Return what was looked up as the table in integers will give it; in training the range follows the table first.

    The rows are quantized, and not the whole table, which may have millions: the gradient reaches the table as it would
    without, sparse gradients included.

    Args:
        fake_quant: from :func:`~lit_xai.quantization.observers.make_fake_quant`, with a channel for each column.
        lookup: of floats.
        training: whether the range may move.
        off: as :func:`~lit_xai.quantization.observers.run_fake_quant` takes it.
    """
    if training:
        observe_weight_(fake_quant, lookup.columns.float(), off)
    values = lookup.rows.float().movedim(-1, 0)
    return run_fake_quant(fake_quant, values, False, off).movedim(0, -1)


def stored_rows(table: Tensor, scale: Tensor, zero_point: Tensor, ids: Tensor) -> Tensor:
    """Return rows of a table of integers as floats, in operators that exporters know.

    Args:
        table: int8, ``(rows, columns)``.
        scale: of each column.
        zero_point: of each column, zeros.
        ids: rows, of any shape.

    Example:
        >>> import torch.ao.quantization.fx._decomposed
        >>> table, scale = torch.tensor([[1, 2], [-3, 4]], dtype=torch.int8), torch.tensor([0.5, 2.0])
        >>> stored_rows(table, scale, torch.zeros(2, dtype=torch.long), torch.tensor([1]))
        tensor([[-1.5000,  8.0000]])
    """
    rows = F.embedding(ids, table)
    dequantize = torch.ops.quantized_decomposed.dequantize_per_channel
    result: Tensor = dequantize(rows, scale, zero_point, rows.dim() - 1, -128, 127, torch.int8)
    return result
