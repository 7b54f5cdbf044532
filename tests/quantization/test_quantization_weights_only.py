"""Weights alone in integers: what is computed is the float network with rounded weights, in torch and in the file."""

import copy

import onnx
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from planted_layers import digits
from quantized_networks import NETWORKS, Residual, make
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import QuantizationAwareTraining, load_from_checkpoint
from lit_xai.export.parity import OnnxPredictor
from lit_xai.network.calling import call_network
from lit_xai.quantization.float_layers import quantize_within
from lit_xai.quantization.plan import check_plan
from lit_xai.quantization.quantization import describe_quantization, plan_quantization, quantize
from lit_xai.quantization.sensitivity import quantization_sensitivity
from lit_xai.runtime.onnx import export_onnx

SIMPLE = ["mlp", "residual", "mobile", "vit", "bert", "signal", "dense"]


def rounded(weight, bits=8):
    """Round each output channel to the smallest grid around 0 that holds it."""
    rows = weight.flatten(1).double()
    low, high = 2 ** (bits - 1), 2 ** (bits - 1) - 1
    scale = torch.maximum(-rows.amin(1) / low, rows.amax(1) / high).clamp(min=0)[:, None]
    return ((rows / scale).round().clamp(-low, high) * scale).reshape(weight.shape).to(weight.dtype)


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("bits", [8, 4])
def test_it_is_the_network_with_rounded_weights(name, bits):
    (network, x), options = make(name), NETWORKS[name].options
    quantized = quantize(network, [x], activations="float", bits=bits, progress=False, **options)
    layers, tables = (describe_quantization(quantized)[kind] for kind in ("integer", "tables"))
    expected = copy.deepcopy(quantized)
    expected.fake_quantizers.enable_fake_quant_(False)
    with torch.no_grad():
        for layer in layers:
            module = expected.get_submodule(layer)
            module.weight.copy_(rounded(module.weight, bits))
        for table in tables:  # by column
            weight = expected.get_submodule(table).weight
            weight.copy_(rounded(weight.t(), bits).t())
        torch.testing.assert_close(
            call_network(quantized, x, **options), call_network(expected, x, **options), rtol=1e-4, atol=1e-4
        )
    assert layers
    assert all(site["channels"] for site in quantized.fake_quantizers.sites.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_computes_the_same_and_stores_integers(name, tmp_path):
    (network, x), options = make(name), NETWORKS[name].options
    quantized = quantize(network, [x], activations="float", progress=False, **options)
    export_onnx(quantized, x, tmp_path / "weights.onnx", **options)
    with torch.no_grad():
        expected = call_network(quantized, x, **options)
    found = OnnxPredictor(tmp_path / "weights.onnx")(x)
    # ONNX Runtime's MatMulNBits rounds activations in blocks of 32.
    assert float((found - expected).abs().mean() / expected.abs().max()) < 0.02
    model = onnx.load(tmp_path / "weights.onnx")
    assert "QuantizeLinear" not in {node.op_type for node in model.graph.node}
    integers = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    others = {"edges", "small"}  # whose outputs are not the logits
    assert len(integers) >= len({*describe_quantization(quantized)["integer"]} - others)


def test_all_eight_bits_whatever_the_cpu():
    network, x = make("residual")
    for cpu in ("any", "vnni"):
        plan = plan_quantization(network, x, activations="float", cpu=cpu)
        check_plan(plan)
        assert {(site["low"], site["high"]) for site in plan["sites"]} == {(-128, 127)}
    facts = describe_quantization(quantize(network, [x], activations="float", progress=False))
    assert facts["activations"] == "in float"
    assert facts["cpu"] == "any"
    assert facts["weights"].startswith("8 bits")


def test_a_plan_with_activations_all_the_same_is_refused():
    network, x = make("residual")
    plan = plan_quantization(network, x)
    plan["scheme"]["activations"] = "float"
    with pytest.raises(ValueError, match="The integers of site"):
        check_plan(plan)


def test_outliers_among_activations_cost_nothing():
    """One sample of hundreds with activations a thousand times as large, as tokens of transformers have them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    x = torch.randn(256, 16)
    outlier = torch.cat([x, 1000 * x[:1]])
    error = {}
    for activations in ("unsigned", "float"):
        quantized = quantize(network, [outlier], activations=activations, cpu="vnni", progress=False)
        with torch.no_grad():
            error[activations] = float((quantized(x) - network(x)).square().mean() / network(x).square().mean())
    assert error["float"] < 1e-3 < 1e-1 < error["unsigned"]


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Residual()

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_training_for_it_a_checkpoint_and_back(tmp_path):
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(32, 1, 8, 8), torch.randint(10, (32,))), batch_size=16)
    trainer = Trainer(
        max_epochs=2,
        callbacks=[QuantizationAwareTraining(1, activations="float")],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
    )
    module = Module()
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_from_checkpoint(Module, tmp_path / "last.ckpt").eval()
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), module.eval().network(x))
        float_network = copy.deepcopy(module)
        float_network.network.fake_quantizers.enable_fake_quant_(False)
        assert not torch.equal(float_network.network(x), module.network(x))
    export_onnx(module.network, x, tmp_path / "weights.onnx")
    with torch.no_grad():
        torch.testing.assert_close(OnnxPredictor(tmp_path / "weights.onnx")(x), module.network(x), rtol=1e-2, atol=0.02)


def test_which_layers_tolerate_fewer_bits_of_weights_alone():
    network, x = make("residual")
    with torch.no_grad():
        expected = network(x)

    def error(changed):
        with torch.no_grad():
            return float((changed(x) - expected).square().mean())

    options = {"higher_is_better": False, "progress": False}
    both = [
        quantization_sensitivity(network, [x], error, (2,), activations=a, **options) for a in ("float", "unsigned")
    ]
    assert both[0].layers == both[1].layers
    assert bool((both[0].values <= both[1].values * 1.5).all())
    assert bool((both[0].values > both[0].dense).all())


def is_enabled(network):
    return network.fake_quantizers.is_enabled()


def test_layers_are_left_in_float_there_too():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    scheme = {"activations": "float", "bits": {"1": 2, "*": 8}}
    values = {(): 0.5, ("1",): 0.9}
    _, found = quantize_within(
        network,
        digits()[1],
        0.01,
        metric=lambda one: (
            0.9 if not one.fake_quantizers.is_enabled() else values[tuple(one.fake_quantizers.float_layers)]
        ),
        higher_is_better=True,
        progress=False,
        **scheme,
    )
    assert found.layers == ("1",)
