"""The channels and bits of each layer, in each network."""

from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import nn

from lit_xai.network.calling import module_names
from lit_xai.network.layers import channels
from lit_xai.quantization.fake_quantizers import weight_bits
from lit_xai.report.drawings import letter
from lit_xai.report.facts import Plain, Table
from lit_xai.report.words import NOTHING
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.runtime.inspection import stored_weights

MOST = 60
"""Layers in the table."""


def layers_table(networks: Mapping[str, nn.Module]) -> Table | None:
    """Return the output channels of each layer and the bits of its weights; ``None`` where no layer is known.

    Of an ONNX file these are its stored weights, under the names that the file has for them.

    Args:
        networks: by name.

    Example:
        >>> dense, pruned = nn.Sequential(nn.Linear(4, 8)), nn.Sequential(nn.Linear(4, 6))
        >>> layers_table({"dense": dense, "pruned": pruned})["rows"]
        [['0', '8, 32 bits', '6, 32 bits']]
    """
    found = [_of(network) for network in networks.values()]
    names = list(dict.fromkeys(name for one in found for name in one))
    if not names:
        return None
    rows: list[list[Plain]] = [[name, *(_cell(one.get(name)) for one in found)] for name in names[:MOST]]
    rest = f" {len(names) - MOST} more layers are left out." if len(names) > MOST else ""
    return {
        "title": "Channels and bits of each layer",
        "columns": ["layer", *(f"{letter(place)}: {name}" for place, name in enumerate(networks))],
        "rows": rows,
        "note": f"Output channels, and bits of each weight.{rest}",
        "section": "layers",
    }


def _of(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the channels and bits of each layer with weights."""
    if isinstance(network, FileNetwork):
        return stored_weights(network.path) if find_spec("onnx") is not None else {}
    bits, modules = weight_bits(network), module_names(network)
    return {
        name: (width, bits.get(name, 8 * weight.element_size()))
        for name, width in channels(network).items()
        if isinstance(weight := getattr(modules[name], "weight", None), torch.Tensor)
    }


def _cell(one: tuple[int, int] | None) -> str:
    return NOTHING if one is None else f"{one[0]:,}, {one[1]} bits"
