"""Networks are taken for what they are, and what the runtime makes of them is said."""

import torch
from networks import cnn, plain_cnn
from refusals import refused

from lit_xai.export.variants import FLOAT_ROW, INT8_ROW, QUANTIZED_ROW, Variants
from lit_xai.quantization.quantization import plan_quantization, prepare_, quantize
from lit_xai.runtime.inspection import Operator

X = torch.randn(8, 2, 6, 6)


def test_kinds():
    quantized = quantize(cnn(), [X], progress=False)
    uncalibrated = plain_cnn()
    prepare_(uncalibrated, plan_quantization(uncalibrated, X))
    with refused("network expected one in float", "quantized="):
        Variants.of(quantized)
    for name in ("quantized", "ptq"):
        with refused(
            f"{name} expected a network from quantize() or from quantization-aware training", "Sequential in float"
        ):
            Variants.of(cnn(), **{name: cnn()})
        with refused(f"{name} expected ranges that were observed"):
            Variants.of(cnn(), **{name: uncalibrated})
    assert Variants.of(cnn()).pairs()[0] == (FLOAT_ROW, FLOAT_ROW)
    assert (INT8_ROW, QUANTIZED_ROW) in Variants.of(cnn(), quantized).pairs()


def test_what_runs_otherwise_than_it_was_trained():
    variants = Variants.of(cnn(), quantize(cnn(), [X], ignored_layers=["6"], progress=False))
    conv = [Operator("convolution", "QLinearConv", "0", True), Operator("convolution", "Conv", "0", False)]
    head = [Operator("matrix product", "QGemm", "6", True), Operator("matrix product", "Gemm", "6", False)]
    assert variants.surprises([conv[0], head[1]]) == []
    assert variants.surprises([conv[1], head[1]]) == ["ONNX Runtime leaves 1 of 1 quantized layers in float: 0."]
    assert variants.surprises([conv[0], head[0]]) == ["ONNX Runtime quantizes layers that were to stay in float: 6."]
