"""Tables of embeddings as integers, in training and in files."""

import onnx
import pytest
import torch
from quantized_networks import make
from torch import nn
from torch.nn import functional as F

from lit_xai.export.parity import OnnxPredictor
from lit_xai.network.calling import call_network
from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.plan import check_plan
from lit_xai.quantization.quantization import describe_quantization, plan_quantization, prepare_, quantize
from lit_xai.runtime.onnx import export_onnx

ROWS, COLUMNS = 50, 6


class Words(nn.Module):
    """A mean of words, and a bias for the first: tables that are read by ids of one and of two dimensions."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.first = nn.Embedding(ROWS, COLUMNS, **options), nn.Embedding(ROWS, 1)
        self.head = nn.Linear(COLUMNS, 3, bias=False)
        with torch.no_grad():
            self.words.weight *= torch.logspace(-3, 3, COLUMNS)  # each column needs a scale of its own

    def forward(self, ids):
        return self.head(self.words(ids).mean(1)) + self.first(ids[:, 0])


def sentences(n=8):
    return torch.randint(ROWS, (n, 5), generator=torch.Generator().manual_seed(1))


def prepared(network, **options):
    fake_quantizers = prepare_(network, plan_quantization(network, sentences(), **options))
    network.train()(sentences())
    fake_quantizers.enable_fake_quant_()
    return fake_quantizers


def looked_up(network, layer, ids):
    """What a layer returns while the network runs."""
    found = []
    handle = network.get_submodule(layer).register_forward_hook(lambda module, args, out: found.append(out))
    network(ids)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_and_gradients_are_those_of_torchs_own_operator_on_the_columns(bits):
    network, ids = Words(), sentences()
    prepared(network, bits=bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    found = looked_up(network, "words", ids)
    weight = network.words.weight.detach().clone().requires_grad_()
    scale = torch.maximum(weight.amin(0) / low, weight.amax(0) / high).detach()
    zeros = torch.zeros(COLUMNS, dtype=torch.int32)
    table = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 1, low, high)
    expected = F.embedding(ids, table)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, F.embedding(ids, weight))
    power = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((found * power).sum(), network.words.weight)
    (wanted,) = torch.autograd.grad((expected * power).sum(), weight)
    torch.testing.assert_close(gradient, wanted)


def test_the_file_holds_integers_and_gives_the_same(tmp_path):
    network, ids = Words(), sentences(64)
    quantized = quantize(network, [ids], progress=False)
    for name, one in (("float", network), ("int8", quantized)):
        export_onnx(one, ids, tmp_path / f"{name}.onnx")
    with torch.no_grad():
        expected = quantized(ids)
    torch.testing.assert_close(OnnxPredictor(tmp_path / "int8.onnx")(ids), expected)
    stored = onnx.load(tmp_path / "int8.onnx").graph.initializer
    assert {(ROWS, COLUMNS), (ROWS, 1)} <= {tuple(one.dims) for one in stored if one.data_type == onnx.TensorProto.INT8}
    assert not [one for one in stored if one.data_type == onnx.TensorProto.FLOAT and ROWS in one.dims]


def test_all_eight_bits_of_a_table_are_used_on_any_cpu_unless_fewer_are_asked_for():
    for bits, expected in ((8, (-128, 127)), ({"words": 3, "*": 8}, (-4, 3))):
        plan = plan_quantization(Words(), sentences(), bits=bits)
        check_plan(plan)
        limits = {site["name"]: (site["low"], site["high"]) for site in plan["sites"]}
        assert limits["words/embedding/weight"] == expected
        assert limits["head/linear/weight"] == (-64, 63)


@pytest.mark.parametrize("options", [{"ignored_layers": [nn.Embedding]}, {"max_norm": 1.0}], ids=str)
def test_it_stays_in_float_where_that_is_asked_for_or_a_look_changes_it(options):
    ignored = options.get("ignored_layers", ())
    network = Words(**{key: value for key, value in options.items() if key == "max_norm"})
    prepared(network, ignored_layers=ignored)
    assert "words" in describe_quantization(network)["float"]
    found = looked_up(network.eval(), "words", sentences())
    assert torch.equal(found, F.embedding(sentences(), network.words.weight))


def test_sparse_gradients_stay_sparse():
    network = Words(sparse=True)
    prepared(network)
    network(sentences()).square().sum().backward()
    assert network.words.weight.grad.is_sparse


def test_a_table_in_bfloat16_autocast_and_double_keeps_its_dtype():
    network = Words()
    prepared(network)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(sentences())).all()
    assert looked_up(network.double(), "words", sentences()).dtype == torch.float64


def test_a_plan_from_before_leaves_tables_in_float():
    network, ids = make("ratings")
    plan = plan_quantization(network, ids, output="scores")
    plan["sites"] = [site for site in plan["sites"] if site["layer"] != "users"]
    prepare_(network, plan)
    network.train()(**ids)
    find_fake_quantizers(network).enable_fake_quant_()
    assert torch.equal(looked_up_ratings(network, ids), F.embedding(ids["user"], network.users.weight))


def looked_up_ratings(network, inputs):
    found = []
    network.users.register_forward_hook(lambda module, args, out: found.append(out))
    call_network(network, inputs, output="scores")
    return found[0]


def test_a_network_of_tables_alone_is_quantized_as_well(tmp_path):
    network, ids = nn.Sequential(nn.Embedding(ROWS, COLUMNS)), sentences()
    quantized = quantize(network, [ids], progress=False)
    assert describe_quantization(quantized)["tables"] == ["0"]
    export_onnx(quantized, ids, tmp_path / "int8.onnx")
    with torch.no_grad():
        torch.testing.assert_close(OnnxPredictor(tmp_path / "int8.onnx")(ids), quantized(ids))
