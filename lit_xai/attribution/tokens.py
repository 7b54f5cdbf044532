"""Where integer tokens become floats: the embedding that they enter, at which they can be explained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.network.arguments import Inputs, named_leaves
from lit_xai.network.calling import LABEL_KEYS, OutputSpec, call_network, module_names
from lit_xai.network.tables import tables
from lit_xai.network.untouched import untouched

METHOD = "LayerIntegratedGradients"
"""The method by which tokens are explained where none is named."""
SMALL = 0.1
"""A table with fewer rows than this share of the largest one's holds token types or languages, not words."""


@dataclass(frozen=True)
class TokenEmbedding:
    """The embedding that a network's tokens enter.

    Args:
        layer: its dotted name in the network; of a table that is shared, the name under which it is called.
        padding: the token to compare with: its ``padding_idx``, or 0, the usual one, where it names none.
    """

    layer: str
    padding: int = 0


class Named(nn.Module):
    """A module under one of its names, so that hooks tell its calls by this name from those by others.

    Example:
        >>> table = nn.Embedding(5, 2)
        >>> Named(table).num_embeddings
        5
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module does."""
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return the module's own attribute: the weight of a shared table is used elsewhere."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def embedding_instead(
    network: nn.Module, inputs: Inputs, call: str = "forward", output: OutputSpec = None
) -> TokenEmbedding | None:
    """Return the embedding to explain where inputs hold no floats, and ``None`` where they do, or no tokens enter one.

    Args:
        network: the module.
        inputs: what it is called with.
        call: the network's method that is called.
        output: where the logits are.

    Example:
        >>> network = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
        >>> embedding_instead(network, torch.tensor([[1, 2, 3]]))
        TokenEmbedding(layer='0', padding=0)
        >>> embedding_instead(nn.Linear(3, 2), torch.rand(1, 3)) is None
        True
    """
    try:
        split = SplitInputs(inputs)
        if any(split.is_explainable(i) for i, value in enumerate(split.values) if value.dim()):
            return None
        copied = split.rebuild(split.values)  # networks write to what they are given
        with untouched(network), torch.no_grad():
            return find_embedding(network, lambda own: call_network(network, own, call, output), copied)
    except Exception:  # a network that cannot be called with these is for the rehearsal to report
        return None


def names_of_tokens(given: Sequence[str] | str | Path) -> list[str]:
    """Return the names of ids, of a tokenizer's folder those of its vocabulary.

    Args:
        given: one name per id, or the folder.

    Raises:
        ValueError: there is no tokenizer.

    Example:
        >>> names_of_tokens(("[PAD]", "good"))
        ['[PAD]', 'good']
    """
    if not isinstance(given, (str, Path)):
        return [str(name) for name in given]
    from lit_xai.data.tokenizers import load_tokenizer, token_names  # with the package tokenizers, where it is named

    return token_names(load_tokenizer(given, "token_names"))


def find_embedding(network: nn.Module, run: Callable[[Inputs], object], inputs: Inputs) -> TokenEmbedding | None:
    """Return the embedding that a tensor of the inputs enters as it is, whole and in one call.

    Positions, which are computed, masks and labels are no tokens; of several tables the first that is not much smaller
    than the largest.

    Args:
        network: in :func:`~lit_xai.functional.untouched`, which puts its modules back.
        run: calls it.
        inputs: what it is called with.
    """
    known: dict[str, Any] = tables(network, aliases=True)
    seen = _calls(network, known, run, inputs)
    found = {name: known[name] for name, taken in seen.items() if len(taken) == 1 and taken[0] is not None}
    largest = max((table.num_embeddings for table in found.values()), default=0)
    for name, table in found.items():
        if table.num_embeddings >= SMALL * largest:
            own = [other for other in seen if known[other] is table]
            plain = next((other for other, m in module_names(network).items() if m is table), name)
            # One name is enough for a table that is called by one of them alone.
            return TokenEmbedding(plain if len(own) == 1 else name, table.padding_idx or 0)
    return None


def entering(network: nn.Module, layer: str, run: Callable[[Inputs], object], inputs: Inputs) -> str | None:
    """Return the name of the tensor of the inputs that enters a layer as it is; ``None`` if none does.

    Args:
        network: in :func:`~lit_xai.functional.untouched`.
        layer: its dotted name.
        run: calls the network.
        inputs: what it is called with.
    """
    taken = _calls(network, {layer: module_names(network, aliases=True)[layer]}, run, inputs).get(layer, [])
    return next((name for name in taken if name is not None), None)


def tell_apart(network: nn.Module, layer: str, run: Callable[[], object]) -> None:
    """Give a layer that has several names a module of its own under one of them, if it is called by it.

    An encoder's and a decoder's embedding are often one table: methods for layers hook the module, and would take the
    decoder's call for the encoder's.

    Args:
        network: in :func:`~lit_xai.functional.untouched`, which puts its modules back.
        layer: the name.
        run: calls the network.
    """
    names = module_names(network, aliases=True)
    module = names[layer]
    if sum(one is module for one in names.values()) == 1:
        return
    put, called = _put(network, layer, Named(module)), list[bool]()
    handle = put.register_forward_hook(lambda *_: called.append(True))
    with torch.no_grad():
        run()
    handle.remove()
    if not called:
        _put(network, layer, module)


def _calls(
    network: nn.Module, modules: Mapping[str, nn.Module], run: Callable[[Inputs], object], inputs: Inputs
) -> dict[str, list[str | None]]:
    """Return the name of the tensor that each call of a module took, by the module's name, in order of the calls."""
    tokens = [(name, leaf) for name, leaf in named_leaves(inputs) if _may_be_tokens(name, leaf)]
    taken: dict[str, list[str | None]] = {}

    def hook(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next(iter([*args, *kwargs.values()]), None)
        taken.setdefault(name, []).append(_which(tokens, given))

    shared = list(modules.values())
    put = {name: m for name, m in modules.items() if sum(one is m for one in shared) > 1}
    hooked = {name: _put(network, name, Named(m)) if name in put else m for name, m in modules.items()}
    handles = [m.register_forward_pre_hook(partial(hook, name), with_kwargs=True) for name, m in hooked.items()]
    try:
        with torch.no_grad():
            run(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for name, module in put.items():
            _put(network, name, module)
    return taken


def _may_be_tokens(name: str, leaf: Tensor) -> bool:
    parts = name.split(".")
    whole = not leaf.is_floating_point() and leaf.dtype != torch.bool and leaf.dim() > 1
    return whole and not any("mask" in part or part in LABEL_KEYS for part in parts)


def _which(tokens: list[tuple[str, Tensor]], given: Any) -> str | None:
    """Return the name of the tensor that was given: its memory, or where that was cast or copied, its values."""
    if not isinstance(given, Tensor):
        return None
    alike = [(name, leaf) for name, leaf in tokens if leaf.shape == given.shape]
    same = [name for name, leaf in alike if leaf.data_ptr() == given.data_ptr()]
    equal = [name for name, leaf in alike if torch.equal(leaf, given.to(leaf.dtype))]
    return next(iter(same + equal), None)


def _put(network: nn.Module, name: str, module: nn.Module) -> nn.Module:
    parent, _, child = name.rpartition(".")
    setattr(module_names(network, aliases=True)[parent] if parent else network, child, module)
    return module
