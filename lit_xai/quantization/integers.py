"""Quantized tensors as integers and their scales, in the operators that exporters know."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_xai.quantization.observers import Site
from lit_xai.quantization.tables import Lookup, is_table, stored_rows


class Integers:
    """Hold the integers of a network's weights, and the scales and zero points of its activations.

    Args:
        fake_quants: the sites and their fake-quantize modules, calibrated; tensors of other sites stay as they are.
        weights: each weight before it is quantized, by site, and under ``"<site>/bias"`` the bias of its product, in
            steps of the input.
    """

    def __init__(self, fake_quants: Iterable[tuple[Site, Any]], weights: Mapping[str, Tensor]) -> None:
        # torch.fake_quantize_* with float scales has no ONNX export in torch's dynamo exporter; these operators export
        # to QuantizeLinear and DequantizeLinear.
        import torch.ao.quantization.fx._decomposed  # importing it registers the operators

        self._by_site: dict[str, tuple[Any, ...]] = {}
        for site, fake_quant in fake_quants:
            name, scale, zero_point = site["name"], fake_quant.scale.detach(), fake_quant.zero_point.detach()
            if site["channels"]:
                if f"{name}/bias" in weights:  # in steps of a channel of tiny weights, it has to fit into 32 bits
                    scale = torch.maximum(scale, weights[f"{name}/bias"].abs() / 2**30)
                # (C,) to (C, 1, ..., 1), against the weight's (C, ...).
                shape = (-1, *(1,) * (weights[name].dim() - 1))
                # Stored as int8, not as float with a QuantizeLinear: the file is about a quarter the size.
                integers = torch.round(weights[name].detach().float() / scale.view(shape))
                integers = integers.clamp(fake_quant.quant_min, fake_quant.quant_max).to(torch.int8)
                if is_table(name):
                    integers = integers.t().contiguous()
                self._by_site[name] = integers, scale, zero_point.long()
            else:
                # torchao names quantized dtypes, the operators take plain ones.
                dtype = torch.uint8 if fake_quant.dtype is torch.quint8 else torch.int8
                self._by_site[name] = float(scale), int(zero_point), fake_quant.quant_min, fake_quant.quant_max, dtype

    def dequantized(self, site: Site, tensor: Tensor) -> Tensor:
        """Return a site's tensor, quantized and dequantized; for a weight, the one given at construction."""
        operators = torch.ops.quantized_decomposed
        if site["name"] not in self._by_site:
            return tensor
        if site["channels"]:
            values, scale, zero_point = self._by_site[site["name"]]
            return operators.dequantize_per_channel(values, scale, zero_point, 0, -128, 127, torch.int8)
        scale, zero_point, low, high, dtype = self._by_site[site["name"]]
        integers = operators.quantize_per_tensor(tensor, scale, zero_point, low, high, dtype)
        return operators.dequantize_per_tensor(integers, scale, zero_point, low, high, dtype)

    def looked_up(self, site: Site, lookup: Lookup) -> Tensor:
        """Return rows of a table, which was given at construction with its columns first."""
        if site["name"] not in self._by_site:
            return lookup.rows
        table, scale, zero_point = self._by_site[site["name"]]
        return stored_rows(table, scale, zero_point, lookup.ids)

    def dequantized_bias(self, bias: Tensor, inputs: str, weight: str) -> Tensor:
        """Return a bias quantized to int32, in which a product of integers is accumulated, and dequantized.

        Args:
            bias: of the product.
            inputs: the site of its input; without that, or that of the weight, the bias is returned unchanged.
            weight: the site of its weight.
        """
        if inputs not in self._by_site or weight not in self._by_site:
            return bias
        _, per_channel, zero_point = self._by_site[weight]
        # A product of integers counts in steps of scale of input * scale of weight: (C,), one for each output channel.
        scale = per_channel * self._by_site[inputs][0]
        # In float64: a float32 cannot represent every int32.
        integers = torch.round(bias.detach().double() / scale.double()).clamp(-(2**31), 2**31 - 1).to(torch.int32)
        limits = torch.iinfo(torch.int32)
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            integers, scale, zero_point, 0, limits.min, limits.max, torch.int32
        )
