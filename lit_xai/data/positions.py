"""What a network's embeddings allow: the longest text, and the largest id."""

from typing import Any

from torch import nn

from lit_xai.network.tables import tables

NAMES = ("positions", "position_embeddings", "embed_positions", "wpe", "pos_embed")
"""The usual names of tables of positions."""


def most_positions(network: nn.Module) -> int | None:
    """Return the most tokens that a network's table of positions has room for, or ``None`` where it has no table.

    Args:
        network: whose tables are found by their usual names.

    Example:
        >>> network = nn.ModuleDict({"words": nn.Embedding(99, 4), "positions": nn.Embedding(20, 4)})
        >>> most_positions(network), most_positions(nn.Linear(2, 2))
        (20, None)
    """
    sizes = [
        # Some begin to count after the token for padding, or leave rows free: RoBERTa, BART.
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1) - _offset(module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in NAMES
    ]
    return min(sizes, default=None)


def _offset(module: nn.Module) -> int:
    found = getattr(module, "offset", 0)
    return found if isinstance(found, int) else 0


def most_ids(network: nn.Module) -> int | None:
    """Return how many ids a network's largest embedding knows, or ``None`` where it has none.

    Example:
        >>> most_ids(nn.Embedding(99, 4)), most_ids(nn.Linear(2, 2))
        (99, None)
    """
    known: dict[str, Any] = tables(nn.ModuleDict({"network": network}))
    sizes = [table.num_embeddings for name, table in known.items() if name.rpartition(".")[2] not in NAMES]
    return max(sizes, default=None)
