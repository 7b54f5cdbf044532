"""Quantized networks of every kind in ONNX Runtime, and errors in one sentence."""

import collections
import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import cnn, mlp
from quantized_networks import NETWORKS, Twice, make
from refusals import refused
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.network.calling import call_network, module_names
from lit_xai.network.profiling import with_batch_size
from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.folding import find_foldable, fold_batch_norms_
from lit_xai.quantization.quantization import (
    calibrate_,
    describe_quantization,
    is_quantized,
    plan_quantization,
    prepare_,
    quantize,
)
from lit_xai.runtime.onnx import export_onnx, named_tensors

PRODUCTS = ("QGemm", "MatMulIntegerToFloat", "QLinearMatMul")
FAST = ("residual", "mobile", "in place", "unet", "attention", "ratings", "patched")
"""Of which a file is written in every run of the tests; of the others in slow ones."""


class File:
    """A quantized network as ONNX Runtime executes it."""

    def __init__(self, path, network, inputs, options):
        export_onnx(network, inputs, path, **options)
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
        settings.intra_op_num_threads, settings.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.graph = onnx.load(path).graph
        optimized = onnx.load(settings.optimized_model_filepath).graph
        self.operators = collections.Counter(node.op_type for node in optimized.node)
        onnx.checker.check_model(onnx.load(path), full_check=True)

    def __call__(self, inputs):
        return self.session.run(None, {k: v.numpy() for k, v in named_tensors(inputs).items()})[0]

    def weights(self):
        """The integers of the weights, ``(channels, rest)``, and the names of what is stored in float of that size."""
        stored = {found.name: onnx.numpy_helper.to_array(found) for found in self.graph.initializer}
        taken = {n.output[0]: n.input[0] for n in self.graph.node if n.op_type == "DequantizeLinear"}
        integers = [stored[name] for name in taken.values() if name in stored and stored[name].dtype == np.int8]
        return [values.reshape(len(values), -1) for values in integers], stored


def saturates(weights):
    """Whether pairs of products of 8 bits, added up in 16 as on x86 without VNNI, can leave those."""
    worst = 0
    for values in weights:
        for sign in (1, -1):
            largest = np.sort(np.maximum(values.astype(int) * sign, 0), axis=1)[:, -2:]  # whichever meet
            worst = max(worst, 255 * int(largest.sum(1).max()))
    return worst > 32767


CELLS = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in NETWORKS]


@pytest.mark.parametrize("name", CELLS)
def test_runs_in_integers_as_torch_fake_quantizes(name, tmp_path):
    case, (network, inputs) = NETWORKS[name], make(name, 200)
    before = digest(module_state(network))
    quantized = quantize(network, [inputs], progress=False, **case.options)
    assert digest(module_state(network)) == before
    file = File(tmp_path / "network.onnx", quantized, with_batch_size(inputs, 2), case.options)
    # Integer operators, where they were counted by hand.
    assert file.operators["QLinearConv"] == case.convs
    assert file.operators["QLinearAdd"] == case.adds
    assert sum(file.operators[kind] for kind in PRODUCTS) == case.products
    assert not {"Conv", "FusedConv", "Gemm"} & set(file.operators)
    # What comes out of them, on other batches too.
    for n in (1, 7, 64, 200):
        given = with_batch_size(inputs, n)
        with torch.no_grad():
            expected = call_network(quantized, given, **case.options).numpy()
            plain = call_network(network, given, **case.options).numpy()
        found = file(given)
        assert np.abs(found - expected).max() <= 6 / 255 * np.ptp(plain)
        agree = (found.argmax(1) == expected.argmax(1)).mean()
        assert agree >= 0.995 or n < 200
    assert 0 < np.abs(expected - plain).max() < 0.1 * np.abs(plain).max()
    # What is stored: weights as integers, which no CPU adds up too far.
    weights, stored = file.weights()
    assert len(weights) >= case.convs + case.products - (name in ("twice", "parent")) * 2
    assert all(values.min() >= -64 and values.max() <= 63 for values in weights)
    assert not saturates(weights)
    integers = set(describe_quantization(quantized)["integer"])
    taken = {p.shape for n, p in quantized.named_parameters() if p.dim() > 1 and n.rpartition(".")[0] in integers}
    kept = {v.shape for v in stored.values() if v.dtype == np.float32 and v.ndim > 1}
    assert not kept & {shape for shape in taken if len(shape) > 2 or not case.floats}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_reported_as_integer_or_with_a_reason(name):
    case, (network, inputs) = NETWORKS[name], make(name, 4)
    found = describe_quantization(quantize(network, [inputs], progress=False, **case.options))
    assert set(found["float"]) == set(case.floats)
    assert set(found["tables"]) == set(case.tables)
    weighty = {n for n, m in module_names(network).items() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))}
    assert weighty <= {*found["integer"], *found["float"]}
    assert found["weights"] == "7 bits, symmetric, per output channel"
    assert found["cpu"] == "any"


class TestBits:
    def test_are_what_lands_in_the_file(self, tmp_path):
        network, x = make("residual")
        bits = {"conv1": 2, "conv*": 4, "torch.nn.Linear": 3, "stem": 8, "*": 5}
        quantized = quantize(network, [x], bits=bits, cpu="vnni", progress=False)
        export_onnx(quantized, x, tmp_path / "network.onnx")
        sites = find_fake_quantizers(quantized).sites
        found = {s["layer"]: (s["low"], s["high"]) for s in sites.values() if s["channels"]}
        expected = {"stem": 8, "conv1": 2, "conv2": 4, "short": 5, "head": 3}
        assert found == {layer: (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for layer, n in expected.items()}
        graph = onnx.load(tmp_path / "network.onnx").graph
        stored = [onnx.numpy_helper.to_array(i) for i in graph.initializer if len(i.dims) > 1]
        assert {values.dtype for values in stored} == {np.dtype(np.int8)}
        for layer, n in expected.items():
            shape = network.get_submodule(layer).weight.shape
            values = next(v for v in stored if v.shape == shape)
            assert values.min() == -(2 ** (n - 1)) or values.max() == 2 ** (n - 1) - 1
            assert np.abs(values.astype(int)).max() <= 2 ** (n - 1)

    def test_of_classes_and_of_parts(self):
        network, x = make("attention")
        for bits in ({nn.TransformerEncoder: 3, nn.Linear: 4}, {"encoder": 3, "torch.nn.Linear": 4}):
            sites = plan_quantization(network, x, bits=bits)["sites"]
            found = {site["layer"]: site["high"] + 1 for site in sites if site["channels"]}
            assert found["encoder.layers.0.self_attn.out_proj"] == found["encoder.layers.0.linear1"] == 4
            assert found["first"] == found["head"] == 8
            assert found["look"] == 64

    def test_of_plans_are_plain_values(self):
        plan = plan_quantization(mlp(), torch.zeros(2, 5), bits={nn.Linear: 3})
        assert plan["scheme"]["bits"] == {"torch.nn.modules.linear.Linear": 3}
        assert {type(value) for site in plan["sites"] for value in site.values()} <= {str, int}

    def test_fewer_bits_are_worse(self):
        network, x = make("residual")
        with torch.no_grad():
            errors = [(quantize(network, [x], bits=n, progress=False)(x) - network(x)).norm() for n in (7, 5, 4, 3, 2)]
        assert errors == sorted(errors)


class TestSaturation:
    @pytest.mark.parametrize(("cpu", "expected"), [("any", False), ("vnni", True)])
    def test_of_the_largest_weights_there_are(self, cpu, expected, tmp_path):
        network, x = nn.Sequential(nn.Linear(6, 4)), torch.rand(8, 6)
        nn.init.constant_(network[0].weight, 0.3)
        quantized = quantize(network, [x], cpu=cpu, progress=False)
        file = File(tmp_path / "network.onnx", quantized, x, {})
        weights, _ = file.weights()
        assert saturates(weights) == expected
        # As a CPU without VNNI adds up a batch of the largest inputs.
        pairs = (255 * weights[0].astype(np.int64)).reshape(4, 3, 2).sum(2)
        wrong = np.clip(pairs, -(2**15), 2**15 - 1) != pairs
        assert wrong.any() == expected
        assert describe_quantization(quantized)["cpu"] == ("any" if cpu == "any" else "vnni or arm64")


class TestCalibration:
    def test_a_bias_too_large_for_32_bits_in_steps_of_a_dead_channel(self, tmp_path):
        network, x = nn.Sequential(nn.Linear(4, 3)), torch.rand(8, 4) * 0.05
        with torch.no_grad():
            network[0].weight[0], network[0].weight[1], network[0].bias[:2] = 0.0, 1e-9, 50.0
        quantized = quantize(network, [x], progress=False)
        file = File(tmp_path / "network.onnx", quantized, x, {})
        np.testing.assert_allclose(file(x), quantized(x).detach().numpy(), rtol=1e-4)
        np.testing.assert_allclose(file(x)[:, :2], 50.0, rtol=1e-4)

    def test_ranges_are_the_mean_of_what_batches_span(self):
        x = [torch.rand(4, 5) + n for n in range(3)]
        quantized = quantize(mlp(), [(batch, torch.zeros(4)) for batch in x], batches=2, progress=False)
        seen = find_fake_quantizers(quantized).fake_quants["0/linear/input"].activation_post_process
        assert seen.max_val.item() == pytest.approx(sum(batch.max().item() for batch in x[:2]) / 2)
        assert seen.min_val.item() == pytest.approx(sum(batch.min().item() for batch in x[:2]) / 2)

    def test_moves_neither_batchnorm_nor_random_numbers_nor_modes(self):
        network, x = make("preactivation")
        network.train()
        before = digest([module_state(network), rng_state()])
        plan = plan_quantization(network, x)
        assert digest([module_state(network), rng_state()]) == before
        quantized = quantize(network, [x], progress=False)
        assert digest([module_state(network), rng_state()]) == before
        assert not any(module.training for module in quantized.modules())
        norms = dict(network.named_buffers())
        assert all(torch.equal(v, norms[k]) for k, v in quantized.named_buffers() if k in norms)
        fake_quantizers = prepare_(network, plan)
        state = digest(module_state(network)["weights"])
        modes = [m.training for m in network.modules()]
        calibrate_(network, fake_quantizers, [x])
        assert digest(module_state(network)["weights"]) == state
        assert [m.training for m in network.modules()] == modes
        assert all(torch.equal(v, norms[k]) for k, v in network.named_buffers() if k in norms)

    def test_in_inference_mode(self):
        with torch.inference_mode():
            network, x = make("residual")
        network, _ = make("residual")
        with torch.inference_mode():
            quantized = quantize(network, [x], progress=False)
        quantized.train()(x.clone()).sum().backward()
        assert all(p.grad is not None for p in quantized.parameters())

    def test_a_progress_bar_counts_batches(self, capsys):
        quantize(mlp(), [torch.randn(4, 5)] * 3, batches=2)
        assert "calibration" in capsys.readouterr().err
        quantize(mlp(), [torch.randn(4, 5)] * 3, progress=False)
        assert capsys.readouterr().err == ""


COMPILED = {
    "wrapper": lambda network: torch.compile(network, backend="eager"),
    "in place": lambda network: network.compile(backend="eager") or network,
    "wrapped part": lambda network: nn.Sequential(torch.compile(network[0], backend="eager"), *network[1:]),
    "part in place": lambda network: network[0].compile(backend="eager") or network,
}


@pytest.mark.parametrize("how", COMPILED)
def test_of_what_is_compiled_the_copy_is_not(how):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(16, 4)
    expected = quantize(network, [x], progress=False)
    compiled = COMPILED[how](network)
    names, kinds = list(compiled.state_dict()), list(map(type, compiled.modules()))
    found = quantize(compiled, [x], progress=False)
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert torch.equal(found(x), expected(x))
    assert (list(compiled.state_dict()), list(map(type, compiled.modules()))) == (names, kinds)


class TestScheme:
    def test_layers_that_stay_in_float(self):
        network, x = make("residual")
        for ignored in (["conv*"], ["conv1", "conv2"]):
            found = describe_quantization(quantize(network, [x], ignored_layers=ignored, progress=False))
            assert found["integer"] == ["stem", "short", "head"]
            assert found["float"] == {"conv1": "ignored", "conv2": "ignored"}
        attention, x = make("attention")
        plan = plan_quantization(attention, x, ignored_layers=["look.out_proj", "encoder"])
        assert [s["layer"] for s in plan["sites"] if s["channels"]] == ["first", "look", "look", "head"]

    def test_symmetric_activations_are_signed_integers_around_0(self, tmp_path):
        network, x = make("residual", 200)
        quantized = quantize(network, [x], activations="symmetric", progress=False)
        file = File(tmp_path / "network.onnx", quantized, x, {})
        stored = {i.name: onnx.numpy_helper.to_array(i) for i in file.graph.initializer}
        zeros = [stored[n.input[2]] for n in file.graph.node if n.op_type == "QuantizeLinear"]
        assert {z.dtype for z in zeros} == {np.dtype(np.int8)}
        assert not any(z.any() for z in zeros)
        found, expected = file(x), quantized(x).detach().numpy()
        assert np.abs(found - expected).max() <= 6 / 127 * np.ptp(expected)
        assert describe_quantization(quantized)["activations"] == "8 bits, -128..127 around 0, per tensor"

    def test_what_is_quantized(self):
        network, x = make("residual")
        assert not is_quantized(network)
        assert describe_quantization(network) == {}
        quantized = quantize(network, [x], progress=False)
        assert is_quantized(nn.Sequential(quantized))
        assert describe_quantization(nn.ModuleDict({"net": quantized}))["integer"][0] == "net.stem"
        assert is_quantized(copy.deepcopy(quantized))


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(x)

    def score(self, x):
        return self.fc(x)


BAD = [
    ({"bits": 1}, ["bits expected an integer from 2 to 8, but got 1"]),
    ({"bits": 9}, ["bits expected an integer from 2 to 8, but got 9"]),
    ({"bits": True}, ["bits expected an integer from 2 to 8, but got True"]),
    ({"bits": "8"}, ["bits expected an integer from 2 to 8, but got '8'"]),
    ({"bits": 7.5}, ["bits expected an integer", "7.5"]),
    ({"bits": {"0": 1}}, ["bits['0'] expected an integer from 2 to 8, but got 1"]),
    ({"bits": {nn.Linear: 0}}, ["bits['torch.nn.modules.linear.Linear'] expected an integer"]),
    ({"bits": {"fc*": 4}}, ["bits: 'fc*' matches no layer of the network"]),
    ({"bits": {"torch.nn.Conv2d": 4}}, ["bits: 'torch.nn.Conv2d' matches no layer"]),
    ({"cpu": "x86"}, ["cpu expected one of any, vnni, arm64, but got 'x86'"]),
    ({"cpu": "vnnl"}, ["cpu expected one of", "Did you mean 'vnni'"]),
    ({"activations": "unsinged"}, ["activations expected one of unsigned, symmetric", "Did you mean 'unsigned'"]),
    ({"activations": None}, ["activations expected one of unsigned, symmetric, float, but got None"]),
    ({"ignored_layers": ["nothing"]}, ["ignored_layers: 'nothing' matches no layer"]),
    ({"ignored_layers": [nn.Linear]}, ["calls no convolution or linear layer that can be quantized"]),
    ({"batches": 0}, ["batches expected a positive integer, but got 0"]),
    ({"batches": True}, ["batches expected a positive integer, but got True"]),
    ({"loader": []}, ["loader expected one or more batches, but got none"]),
    ({"loader": [["a", "b"]]}, ["No inputs for", "were found in a batch"]),
    ({"loader": [torch.full((4, 5), torch.nan)]}, ["expected finite numbers to calibrate with, but got NaN"]),
    ({"network": nn.Sequential(nn.ReLU())}, ["Sequential calls no convolution or linear layer"]),
    ({"network": nn.Sequential(nn.LayerNorm(5))}, ["calls no convolution or linear layer"]),
    ({"network": Scores(), "call": "score"}, ["call expected 'forward'", "but got 'score'"]),
    ({"network": Scores(), "call": "socre"}, ["call='socre' is no method of Scores"]),
    ({"network": Scores(), "output": "logits"}, ["No logits were found at output='logits'"]),
]


@pytest.mark.parametrize(("options", "parts"), BAD)
def test_bad_input_is_one_sentence_and_touches_nothing(options, parts):
    options = {"network": mlp(), "loader": [torch.randn(4, 5)], "progress": False, **options}
    network, loader = options.pop("network"), options.pop("loader")
    before = digest([module_state(network), rng_state()])
    with refused(*parts):
        quantize(network, loader, **options)
    assert digest([module_state(network), rng_state()]) == before


def test_twice_prepared_is_refused():
    network, x = make("residual")
    quantized = quantize(network, [x], progress=False)
    before = digest(module_state(quantized))
    with refused("network expected a module without fake-quantizers, but Residual has some already"):
        quantize(quantized, [x], progress=False)
    with refused("network expected a module without fake-quantizers, but Residual has some already"):
        plan_quantization(quantized, x)
    with refused("network expected a module without fake-quantizers"):
        prepare_(quantized, {"sites": [], "float_layers": []})
    assert digest(module_state(quantized)) == before


def test_what_was_never_calibrated_is_no_file(tmp_path):
    network, x = make("residual")
    prepare_(network, plan_quantization(network, x))
    before = digest(module_state(network))
    with refused("Residual expected ranges that were observed on data, but got none yet"):
        export_onnx(network, x, tmp_path / "network.onnx")
    with refused("opset expected an integer of at least 18, but got 17"):
        export_onnx(network, x, tmp_path / "network.onnx", opset=17)
    assert digest(module_state(network)) == before
    assert not list(tmp_path.iterdir())


def test_a_root_that_is_a_layer_itself_or_a_batchnorm_that_stays():
    x = torch.randn(8, 5)
    alone = quantize(nn.Linear(5, 3), [x], progress=False)
    assert describe_quantization(alone)["integer"] == [""]
    assert cnn()[1].training is False
    both, images = make("preactivation")
    assert {type(m) for m in quantize(both, [images], progress=False).modules()} >= {nn.BatchNorm2d}
    assert isinstance(quantize(Twice(), [images], progress=False), Twice)


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_norms_are_part_of_the_layers_before_them(name):
    """The witness: the plan of the network without its BatchNorms."""
    (network, inputs), options = make(name), NETWORKS[name].options
    folded = copy.deepcopy(network)
    pairs = find_foldable(folded, inputs, **options)
    fold_batch_norms_(folded, pairs)
    found, expected = (plan_quantization(one, inputs, **options) for one in (network, folded))
    assert found.pop("norms") == [list(pair) for pair in pairs]
    assert expected.pop("norms") == []
    assert found == expected
