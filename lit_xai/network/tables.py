"""Tables of embeddings: what turns ids into vectors."""

from torch import nn

from lit_xai.network.calling import module_names


def is_table(module: nn.Module) -> bool:
    """Return whether a module turns each id into a vector: torch's class, or one made of tables that says its size.

    A network may keep the sizes of its table as attributes of its own; it has other layers, and is none.

    Example:
        >>> is_table(nn.Embedding(9, 4)), is_table(nn.EmbeddingBag(9, 4)), is_table(nn.Linear(9, 4))
        (True, False, False)
    """
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return isinstance(module, nn.Embedding)  # a bag sums its vectors
    sizes = (getattr(module, name, None) for name in ("num_embeddings", "embedding_dim"))
    if not all(isinstance(size, int) for size in sizes) or not hasattr(module, "padding_idx"):
        return False
    holders = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]
    return all(part is module or isinstance(part, nn.Embedding) for part in holders)


def tables(network: nn.Module, aliases: bool = False) -> dict[str, nn.Module]:
    """Return the tables of a network by name, without those that other tables are made of.

    Args:
        network: any module.
        aliases: whether to name a table that is shared by each of its names.

    Example:
        >>> list(tables(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))))
        ['0']
    """
    found = {name: module for name, module in module_names(network, aliases=aliases).items() if is_table(module)}
    inside = {id(part) for module in found.values() for part in module.modules() if part is not module}
    return {name: module for name, module in found.items() if id(module) not in inside}
