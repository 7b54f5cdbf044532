"""Attention heads: which layers' outputs are split into how many, and the attributes that hold their widths.

Torch-Pruning finds which channels depend on each other, but not that an attention splits them into heads, which all
have to lose equally many. The spellings of attention layers are kept as data below.
"""

from collections.abc import Container, Mapping, Sequence

from torch import nn

from lit_xai.network.opaque import kept_whole

__all__ = ["every_part", "find_heads", "fused_layers", "kept_whole", "set_head_attributes_"]

QUERY_KEY_VALUE = (
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("query_proj", "key_proj", "value_proj"),
)
"""Names of an attention's layers for query, key and value."""

FUSED = ("qkv", "to_qkv", "qkv_proj", "in_proj", "c_attn", "query_key_value", "Wqkv")
"""Names of a layer that computes all three, one after the other."""

HEADS = ("num_heads", "heads", "num_attention_heads", "n_heads", "n_head", "nhead", "nheads")
"""Names of an attention's attribute that holds the number of its heads."""

KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_heads")
"""The same for keys and values, where several queries share one."""

HEAD_WIDTH = ("head_dim", "attention_head_size", "dim_head", "d_head", "key_value_proj_dim", "head_size")
"""Names of an attention's attribute that holds the width of a head."""

WIDTH = ("all_head_size", "inner_dim", "embed_dim", "dim")
"""Names of an attention's attribute that holds the width of all heads together."""


def find_heads(network: nn.Module) -> dict[nn.Module, int]:
    """Return the layers whose outputs are split into heads, and into how many.

    These are an attention's query, key and value, or the layer that computes all three, and ``nn.MultiheadAttention``.

    Args:
        network: any module.

    Example:
        >>> from lit_xai.models import VisionTransformer
        >>> network = VisionTransformer(image_size=8, patch_size=4, dim=16, depth=1, heads=2)
        >>> names = {module: name for name, module in network.named_modules()}
        >>> {names[layer]: heads for layer, heads in find_heads(network).items()}
        {'blocks.0.attention.query': 2, 'blocks.0.attention.key': 2, 'blocks.0.attention.value': 2}
    """
    found: dict[nn.Module, int] = {}
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            found[module] = module.num_heads
        else:
            found |= _heads_of(module)
    return found


def _heads_of(attention: nn.Module) -> dict[nn.Module, int]:
    children = {name: child for name, child in attention.named_children() if isinstance(child, nn.Linear)}
    if not children:
        return {}
    return _heads_of_fused(attention, children) or _heads_of_separate(attention, children)


def _heads_of_fused(attention: nn.Module, children: Mapping[str, nn.Linear]) -> dict[nn.Module, int]:
    heads = _int_attribute(attention, HEADS)
    fused = next((children[name] for name in FUSED if name in children), None)
    # Otherwise the query and the keys differ in width, and thirds of the layer mean nothing.
    return {fused: heads} if heads and fused is not None and fused.out_features % (3 * heads) == 0 else {}


def _heads_of_separate(attention: nn.Module, children: Mapping[str, nn.Linear]) -> dict[nn.Module, int]:
    heads, width = _int_attribute(attention, HEADS), _int_attribute(attention, HEAD_WIDTH)
    for names in QUERY_KEY_VALUE:
        if not all(name in children for name in names):
            continue
        query, key, value = (children[name] for name in names)
        # Some attentions store only the width of a head.
        queries = heads or (query.out_features // width if width else None)
        keys = _int_attribute(attention, KEY_VALUE_HEADS) or (key.out_features // width if width else queries)
        if queries and keys:
            return {query: queries, key: keys, value: keys}
    return {}


def _int_attribute(module: nn.Module, names: tuple[str, ...]) -> int | None:
    # vars() rather than getattr: only attributes, which can be set after a cut, and no properties.
    values = (vars(module).get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool) and value), None)


def every_part(layer: nn.Module, indices: Sequence[int], fused: Container[nn.Module]) -> list[int]:
    """Return the outputs of a layer to remove: those of query, key and value where it computes all three.

    Torch-Pruning finds the three where they are taken apart by ``unbind(0)``, and only the first elsewhere.

    Args:
        layer: an attention's.
        indices: of its outputs, as Torch-Pruning found them; the same ones of every head.
        fused: :func:`fused_layers` of the network.

    Example:
        >>> layer = nn.Linear(4, 12)
        >>> every_part(layer, [0, 2], [layer])
        [0, 2, 4, 6, 8, 10]
    """
    # Rows of a fused layer: query, key, value, each a third; the same indices go from each of the three.
    width = layer.out_features // 3 if isinstance(layer, nn.Linear) and layer in fused else 0
    if not width or max(indices, default=0) >= width:
        return list(indices)
    return [index + part * width for part in range(3) for index in indices]


def fused_layers(network: nn.Module, heads: Container[nn.Module]) -> list[nn.Module]:
    """Return the layers that compute an attention's query, key and value in one.

    Args:
        network: any module.
        heads: :func:`find_heads` of it.

    Example:
        >>> attention = nn.Module()
        >>> attention.num_heads, attention.qkv = 2, nn.Linear(16, 48)
        >>> fused_layers(attention, find_heads(attention))
        [Linear(in_features=16, out_features=48, bias=True)]
    """
    if not heads:
        return []
    return [c for m in network.modules() for name, c in m.named_children() if c in heads and name in FUSED]


def set_head_attributes_(network: nn.Module, heads: Mapping[nn.Module, int]) -> None:
    """Set attentions' attributes of width to the new widths, after heads became narrower; their number stays.

    The factor that an attention scales its scores by stays as it was built, so that the remaining channels contribute
    to the scores as before.

    Args:
        network: pruned.
        heads: :func:`find_heads` of it before.

    Example:
        >>> attention = nn.Module()
        >>> attention.num_heads, attention.head_dim, attention.qkv = 2, 8, nn.Linear(16, 48)
        >>> heads = find_heads(attention)
        >>> attention.qkv.out_features = 36
        >>> set_head_attributes_(attention, heads)
        >>> attention.head_dim
        6
    """
    for attention in network.modules():
        for name, layer in attention.named_children():
            if isinstance(layer, nn.Linear) and layer in heads:
                _set_widths_(attention, layer.out_features // (3 if name in FUSED else 1), heads[layer])
                break  # the query comes first; keys and values may have fewer heads


def _set_widths_(attention: nn.Module, width: int, heads: int) -> None:
    former = [vars(attention)[name] for name in HEAD_WIDTH if isinstance(vars(attention).get(name), int)]
    for name in HEAD_WIDTH:
        if name in vars(attention):
            setattr(attention, name, width // heads)
    for name in WIDTH:
        # If it differs from the width of all heads together, it is the width of the tokens, which stays.
        if name in vars(attention) and (not former or vars(attention)[name] == former[0] * heads):
            setattr(attention, name, width)
