"""Rounded tensors written down as integers and their scales, in the operators that exporters know."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_xai.quantization.observers import Site


class Integers:
    """The integers of one network: of weights themselves, of activations how they are made.

    Args:
        rounders: the sites and what rounds them, calibrated.
        weights: each weight before it is rounded, by site, and with ``"/bias"`` behind that the bias of its product in
            steps of the input.
    """

    def __init__(self, rounders: Iterable[tuple[Site, Any]], weights: Mapping[str, Tensor]) -> None:
        import torch.ao.quantization.fx._decomposed  # registers the operators

        self._found: dict[str, tuple[Any, ...]] = {}
        for site, rounder in rounders:
            name, scale, zero_point = site["name"], rounder.scale.detach(), rounder.zero_point.detach()
            if site["channels"]:
                if f"{name}/bias" in weights:  # of a channel that is all but 0, it has to fit into 32 bits
                    scale = torch.maximum(scale, weights[f"{name}/bias"].abs() / 2**30)
                shape = (-1, *(1,) * (weights[name].dim() - 1))
                integers = torch.round(weights[name].detach().float() / scale.view(shape))
                integers = integers.clamp(rounder.quant_min, rounder.quant_max).to(torch.int8)
                self._found[name] = integers, scale, zero_point.long()
            else:
                dtype = torch.uint8 if rounder.dtype is torch.quint8 else torch.int8
                self._found[name] = float(scale), int(zero_point), rounder.quant_min, rounder.quant_max, dtype

    def written(self, site: Site, tensor: Tensor) -> Tensor:
        """Return a tensor of a site by way of its integers; a weight is the one that was given before."""
        operators = torch.ops.quantized_decomposed
        if site["channels"]:
            values, scale, zero_point = self._found[site["name"]]
            return operators.dequantize_per_channel(values, scale, zero_point, 0, -128, 127, torch.int8)
        scale, zero_point, low, high, dtype = self._found[site["name"]]
        integers = operators.quantize_per_tensor(tensor, scale, zero_point, low, high, dtype)
        return operators.dequantize_per_tensor(integers, scale, zero_point, low, high, dtype)

    def written_bias(self, bias: Tensor, inputs: str, weight: str) -> Tensor:
        """Return a bias by way of integers of 32 bits, which a product of integers is added up in.

        Args:
            bias: of the product.
            inputs: the site of its input; the bias itself where that is none.
            weight: the site of its weight.
        """
        if inputs not in self._found:
            return bias
        _, per_channel, zero_point = self._found[weight]
        scale = per_channel * self._found[inputs][0]
        integers = torch.round(bias.detach().double() / scale.double()).clamp(-(2**31), 2**31 - 1).to(torch.int32)
        limits = torch.iinfo(torch.int32)
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            integers, scale, zero_point, 0, limits.min, limits.max, torch.int32
        )
