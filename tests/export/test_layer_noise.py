"""The noise of layers in the runtime: against torch, layer for layer, and the same file without rounding."""

import copy
import functools
import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from quantized_networks import NETWORKS, quantized

from lit_xai.export.layer_noise import (
    find_readings,
    layer_noise,
    signal_to_noise,
    unrounded_weights,
    with_outputs,
    without_rounding,
)
from lit_xai.export.parity import OnnxPredictor
from lit_xai.network.calling import call_network
from lit_xai.runtime.inspection import inspect_onnx
from lit_xai.runtime.onnx import export_onnx

# Attention's output has its weights under the name of the attention, and a part of the keywords' is the network's own.
# Positions that are the same in every call are a constant of the file.
OTHER_NAMES = {"encoder.layers.0.self_attn.out_proj", "look.out_proj", "bert.embeddings.position_embeddings", ""}


FOLDERS = tempfile.TemporaryDirectory(prefix="layer-noise-")


@functools.cache
def written(name):
    network, x = quantized(name)
    path = Path(FOLDERS.name) / name / "model.int8.onnx"
    export_onnx(network, x, path, **NETWORKS[name].options)
    return network, x, path


def exported(name):
    network, x, path = written(name)
    network = copy.deepcopy(network)

    def run():
        with torch.no_grad():
            return call_network(network, x, **NETWORKS[name].options)

    return network, x, run, path


@pytest.mark.parametrize("name", NETWORKS)
def test_without_rounding_the_file_computes_what_the_network_does_in_float(name, tmp_path):
    network, x, run, path = exported(name)
    weights = [weight.detach().numpy() for weight in unrounded_weights(network, run)]
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    unrounded = without_rounding(model, weights, constants)
    onnx.checker.check_model(unrounded)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in unrounded.graph.node}
    onnx.save(unrounded, tmp_path / "unrounded.onnx")
    network.fake_quantizers.enable_fake_quant_(False)
    expected = run()
    torch.testing.assert_close(
        OnnxPredictor(tmp_path / "unrounded.onnx")(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_in_integers_has_a_ratio(name):
    network, x, run, path = exported(name)
    ratios = layer_noise(path, unrounded_weights(network, run), [x])
    layers = {site["layer"] for site in network.fake_quantizers.sites.values() if site["channels"]}
    reaches_the_logits = layers - ({"edges", "small"} if name in ("segmentation", "two convolutions") else set())
    assert reaches_the_logits - OTHER_NAMES <= {*ratios}
    assert all(20 < ratio < 80 for ratio in ratios.values())


@pytest.mark.parametrize("name", ["residual", "mobile", "signal", "resnet", "twice"])
def test_the_ratios_are_those_of_torch(name):
    """Of linear layers, whose outputs nothing rounds: read by hooks."""
    network, x, run, path = exported(name)
    ratios = layer_noise(path, unrounded_weights(network, run), [x])
    last = [layer for layer in ratios if isinstance(network.get_submodule(layer), torch.nn.Linear)]
    outputs = {layer: [] for layer in last}
    handles = [
        network.get_submodule(layer).register_forward_hook(lambda m, a, out, layer=layer: outputs[layer].append(out))
        for layer in last
    ]
    run()
    network.fake_quantizers.enable_fake_quant_(False)
    run()
    for handle in handles:
        handle.remove()
    assert last
    for layer, (rounded, exact) in outputs.items():
        expected = 10 * math.log10(float(exact.square().sum() / (rounded - exact).square().sum()))
        # Single values of layers before are rounded to the other side of a half.
        assert ratios[layer] == pytest.approx(expected, abs=0.7)


@pytest.mark.parametrize("name", ["resnet", "mobile", "mlp", "vit"])
def test_reading_changes_nothing_of_what_the_runtime_does(name, tmp_path):
    _, x, _, path = exported(name)
    model = onnx.load(path)
    readings = find_readings(model)
    onnx.save(with_outputs(model, [one.value for one in readings]), tmp_path / "read.onnx")
    executed = [[(one.layer, one.type) for one in inspect_onnx(file)] for file in (path, tmp_path / "read.onnx")]
    assert sorted(executed[0]) == sorted(executed[1])
    both = [OnnxPredictor(path)(x).numpy()]
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "read.onnx")
    both.append(session.run(["logits"], {"input": x.numpy()})[0])
    np.testing.assert_array_equal(*both)


def test_fewer_bits_are_noisier(tmp_path):
    ratios = []
    for bits in (8, 4):
        network, x = quantized("residual", bits={"conv2": bits})
        export_onnx(network, x, tmp_path / "model.onnx")

        def run(network=network, x=x):
            with torch.no_grad():
                return network(x)

        ratios.append(layer_noise(tmp_path / "model.onnx", unrounded_weights(network, run), [x]))
    assert ratios[0]["conv2"] > ratios[1]["conv2"] + 6
    assert ratios[0]["conv1"] == pytest.approx(ratios[1]["conv1"])


def test_a_float_file_has_no_layer_in_integers(tmp_path):
    export_onnx(torch.nn.Linear(4, 2), torch.zeros(1, 4), tmp_path / "model.onnx")
    assert layer_noise(tmp_path / "model.onnx", [], [torch.zeros(1, 4)]) == {}


def test_silence_has_no_signal():
    assert signal_to_noise(0.0, 1.0) == -math.inf
