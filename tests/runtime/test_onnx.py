"""What ONNX Runtime computes from the file against torch, and that exporting changes nothing."""

import contextlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import STATES, cnn
from refusals import refused
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.models import MLP, ResNet, VisionTransformer
from lit_xai.network.calling import call_network
from lit_xai.network.profiling import with_batch_size
from lit_xai.quantization.quantization import quantize
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.onnx import PreparesExport, check_opset, export_onnx


class Ratings(nn.Module):
    """Called with a dict, some of it no tensors, some not per sample; returns more than logits."""

    def __init__(self):
        super().__init__()
        self.users, self.items, self.head = nn.Embedding(7, 4), nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, user, item, scale, flip=False):
        found = self.head(torch.cat([self.users(user), self.items(item)], 1)) * scale
        return {"scores": -found if flip else found, "text": "more"}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(5, 3)

    def score(self, left, right):
        return self.left(left) * self.right(right)


IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
RATINGS = {"user": torch.tensor([1, 5, 2]), "item": torch.randn(3, 3), "scale": torch.full((1,), 2.0), "flip": True}
CASES = {
    "mlp": (lambda: MLP(64, (24, 16), 10), IMAGES, {}),
    "resnet": (lambda: ResNet(8, width=8, in_channels=1), IMAGES, {}),
    "vit": (lambda: VisionTransformer(8, 2, 1, 10, dim=16, depth=2, heads=2), IMAGES, {}),
    "dict": (Ratings, RATINGS, {"output": "scores"}),
    "tuple": (Pair, (torch.randn(3, 4), torch.randn(3, 5)), {"call": "score"}),
    "lstm": (lambda: nn.LSTM(4, 5, batch_first=True), torch.randn(3, 6, 4), {}),
}


def run(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    assert output.name == "logits"
    return session.run(None, {name: tensor.numpy() for name, tensor in named_tensors(inputs).items()})[0]


def same(path, network, inputs, options):
    with torch.no_grad():
        expected = call_network(network.eval(), inputs, **options)
    np.testing.assert_allclose(run(path, inputs), expected.float().numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_file_computes_what_the_network_does(name, tmp_path):
    made, inputs, options = CASES[name]
    torch.manual_seed(0)
    network, path = made().train(), tmp_path / "new" / "network.onnx"
    export_onnx(network, with_batch_size(inputs, 1), path, **options)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert [file.name for file in path.parent.iterdir()] == ["network.onnx"]
    for rows in (1, 2, 5):
        same(path, network, with_batch_size(inputs, rows), options)


def test_exactly_the_given_batch(tmp_path):
    network = ResNet(8, width=8, in_channels=1)
    export_onnx(network, IMAGES, tmp_path / "network.onnx", dynamic_batch=False)
    same(tmp_path / "network.onnx", network, IMAGES, {})
    assert [d.dim_value for d in onnx.load(tmp_path / "network.onnx").graph.input[0].type.tensor_type.shape.dim] == [
        *IMAGES.shape
    ]


@pytest.mark.parametrize("state", STATES)
def test_the_network_is_left_as_it_is(state, tmp_path, capfd, recwarn):
    network, x = STATES[state](), torch.randn(3, 2, 6, 6)
    before = digest([module_state(network), rng_state()])
    with contextlib.suppress(ValueError):  # of those that cannot be exported
        export_onnx(network, x, tmp_path / "network.onnx")
    assert digest([module_state(network), rng_state()]) == before
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu")])
def test_in_other_modes(context, tmp_path):
    network = cnn()
    with context():
        x = torch.randn(3, 2, 6, 6)
        export_onnx(network, x, tmp_path / "network.onnx")
    same(tmp_path / "network.onnx", network, x.clone(), {})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_become_float32(dtype, tmp_path):
    network = cnn().to(dtype)
    export_onnx(network, torch.randn(3, 2, 6, 6, dtype=dtype), tmp_path / "network.onnx")
    same(tmp_path / "network.onnx", network.float(), torch.randn(3, 2, 6, 6), {})


def test_compiled_networks(tmp_path):
    network = cnn()
    export_onnx(torch.compile(network, backend="aot_eager"), torch.zeros(1, 2, 6, 6), tmp_path / "network.onnx")
    same(tmp_path / "network.onnx", network, torch.randn(3, 2, 6, 6), {})
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_quantised_networks_of_other_precisions_and_in_other_modes(dtype, tmp_path):
    network = quantize(cnn().to(dtype), [torch.randn(8, 2, 6, 6, dtype=dtype)], progress=False).train()
    x = torch.randn(3, 2, 6, 6)
    before = digest([module_state(network), rng_state()])
    with torch.inference_mode(), torch.autocast("cpu"):
        export_onnx(network, x.to(dtype), tmp_path / "network.onnx")
    assert digest([module_state(network), rng_state()]) == before
    network.float().eval()
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.abs(run(tmp_path / "network.onnx", x) - expected).max() < 0.02 * np.abs(expected).max()


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Broken(nn.Module):
    def forward(self, x):
        raise KeyError("weights")


def test_refusals(tmp_path, capfd):
    path = tmp_path / "network.onnx"
    path.write_text("old")
    with refused("Undecided cannot be exported to ONNX", "data-dependent", "module="):
        export_onnx(Undecided(), torch.zeros(1, 2), path)
    with refused("Broken cannot be exported to ONNX", "KeyError: 'weights'"):
        export_onnx(Broken(), torch.zeros(1, 2), path)
    with refused("No logits", "output='logits'"):
        export_onnx(Ratings(), RATINGS, path, output="logits")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    assert capfd.readouterr() == ("", "")


def test_versions_of_operators_that_no_exporter_writes():
    for wrong in (17, 0, 20.0, True, "20"):
        with refused("opset expected an integer of at least 18", repr(wrong)):
            check_opset(wrong)
    check_opset(None)


class Doubling(nn.Module):
    """Doubles its inputs when it is exported, and leaves them alone otherwise."""

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def prepare_export_(self, network, run):
        assert not network.training
        assert run().shape == (3, 4)
        self.factor = 2.0

    def forward(self, x):
        return x * self.factor


def test_modules_of_ones_own_say_how_they_are_written_down(tmp_path):
    network, x = nn.Sequential(nn.Linear(4, 4), Doubling()), torch.randn(3, 4)
    assert isinstance(network[1], PreparesExport)
    export_onnx(network, x, tmp_path / "network.onnx")
    assert network[1].factor == 1
    np.testing.assert_allclose(run(tmp_path / "network.onnx", x), 2 * network(x).detach().numpy(), atol=1e-5)
