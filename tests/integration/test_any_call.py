"""A network gives the same results however it is called: the witness is its twin, which takes one tensor."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from lit_xai.attribution.attribution import attribute
from lit_xai.attribution.explanation import explain
from lit_xai.export.parity import OnnxPredictor, in_float
from lit_xai.network.arguments import Arguments, Inputs
from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.profiling import batch_size, count_macs, count_samples
from lit_xai.pruning.pruning import pruned_copy
from lit_xai.quantization.folding import folded_copy
from lit_xai.quantization.quantization import calibrate_, plan_quantization, prepare_
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.latency import network_latency
from lit_xai.runtime.onnx import export_onnx

ROWS = 3
X = torch.rand(ROWS, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class OneTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.mix, self.head = nn.Conv2d(8, 6, 3), nn.Linear(6, 3)
        self.norm.running_mean = torch.rand(8)
        self.eval()

    def compute(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.norm(self.conv(x)).relu()).relu().mean((2, 3)))

    forward: Any = compute


class NestedDict(OneTensor):
    def forward(self, batch):
        return self.compute(batch["inputs"]["image"])


class Flags(OneTensor):
    def forward(self, image, flag=False, mask=None, *, scale=2):
        return self.compute(image * mask / scale) if flag else None


class Several(OneTensor):
    def forward(self, *parts):
        nothing, image, how, times = parts
        assert nothing is None
        return self.compute(image) * (times - 2) if how == "once" else None


class FromObject(OneTensor):
    def forward(self, batch):
        return self.compute(batch.image)


class FromGraph(OneTensor):
    """Nodes carry images; the second graph has two of them, joined by an edge, and the result is one row per graph."""

    def forward(self, graph, pool="mean"):
        per_node = self.compute(graph.image)
        left, right = graph.edge_index
        per_node = per_node.index_add(0, left, 0 * per_node[right])
        sums = per_node.new_zeros(int(graph.size), 3).index_add(0, graph.batch, per_node)
        return {"graphs": {"logits": sums}}


class OfManySizes(OneTensor):
    def forward(self, images):
        return [None, (self.compute(torch.stack([image[:, :8, :8] for image in images])), "aux")]


class NestedOutput(OneTensor):
    def forward(self, image):
        logits = self.compute(image)
        return {"heads": [{"logits": logits, "more": logits + 1}], "name": "nested"}


@dataclass(frozen=True)
class Images:
    image: Tensor
    valid_mask: Tensor
    name: str = "images"


class Graph:
    def __init__(self, image, edge_index, batch, size):
        self.image, self.edge_index, self.batch, self.size = image, edge_index, batch, size


def larger(image: Tensor, height: int, width: int) -> Tensor:
    found = torch.zeros(1, height, width)
    found[:, :8, :8] = image
    return found


@dataclass(frozen=True)
class Case:
    network: Callable[[], nn.Module]
    inputs: Inputs
    name: str
    """of the images among the attributions"""
    output: OutputSpec = None
    dynamic: bool = True
    """whether samples can be cut"""


CASES = {
    "nested dict": Case(NestedDict, ({"inputs": {"image": X, "id": ["a", "b", "c"]}},), "0.inputs.image"),
    "flags": Case(Flags, Arguments((2 * X, True), {"mask": torch.ones(ROWS, 1, 1, 1)}), "0"),
    "several": Case(Several, (None, X, "once", 3), "1"),
    "dataclass": Case(FromObject, (Images(X, torch.ones(ROWS, dtype=torch.bool)),), "0.image"),
    "nested output": Case(NestedOutput, {"image": X}, "image", lambda found: found["heads"][0]["logits"]),
    "graph": Case(
        FromGraph,
        Arguments((Graph(X, torch.tensor([[1], [2]]), torch.arange(ROWS), ROWS),), {"pool": "mean"}),
        "0.image",
        lambda found: found["graphs"]["logits"],
        dynamic=False,
    ),
    "many sizes": Case(
        OfManySizes,
        ([larger(image, 8 + i, 9 + i) for i, image in enumerate(X)],),
        "0.0",
        lambda found: found[1][0],
        dynamic=False,
    ),
}


@pytest.fixture(params=CASES, ids=[name.replace(" ", "-") for name in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def images_of(case: Case, attributions: dict[str, Tensor]) -> Tensor:
    if case.network is OfManySizes:
        return torch.stack([attributions[f"0.{i}"][:, :8, :8] for i in range(ROWS)])
    return attributions[case.name]


@pytest.mark.parametrize("method", ["Saliency", "IntegratedGradients", "FeatureAblation"])
def test_explained_alike(case, method):
    labels = torch.tensor([0, 2, 1])
    options = {"attribute_args": {"feature_mask": 4}} if method == "FeatureAblation" else {}
    if not case.dynamic:  # patches would be of all samples
        options = {}
    expected = explain(OneTensor(), X, labels, method=method, **options)
    found = explain(case.network(), case.inputs, labels, method=method, output=case.output, **options)
    same(found.logits, expected.logits)
    assert torch.equal(found.targets, labels)
    maps = images_of(case, found.attributions)
    # A gradient is that of twice the image; a product with the input is as it was.
    same(maps, expected.attributions[""] / (2 if method == "Saliency" and case.network is Flags else 1))


def test_pruned_alike(case):
    expected = pruned_copy(OneTensor(), X, pruning_ratio=0.5)
    found = pruned_copy(case.network(), case.inputs, pruning_ratio=0.5, output=case.output)
    assert [tuple(p.shape) for p in found.parameters()] == [tuple(p.shape) for p in expected.parameters()]
    assert found.conv.out_channels < 8
    same(call_network(found, case.inputs, output=case.output), expected(X))


def test_folded_alike(case):
    found = folded_copy(case.network(), case.inputs, output=case.output)
    assert isinstance(found.norm, nn.Identity)
    same(call_network(found, case.inputs, output=case.output), OneTensor()(X))


def test_quantized_alike(case):
    outputs, plans = [], []
    for network, inputs, output in ((OneTensor(), X, None), (case.network(), case.inputs, case.output)):
        plans.append(plan_quantization(network, inputs, output=output))
        calibrate_(network, prepare_(network, plans[-1]), [inputs], output=output)
        outputs.append(call_network(network, inputs, output=output).detach())
    assert [site["name"] for site in plans[0]["sites"] if site["name"].endswith("weight")] == [
        site["name"] for site in plans[1]["sites"] if site["name"].endswith("weight")
    ]
    # Images of other values (flags) have other roundings.
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0.05, atol=0.02)
    assert not torch.equal(outputs[1], OneTensor()(X))


def test_as_many_macs(case):
    assert count_macs(case.network(), case.inputs, output=case.output) == count_macs(OneTensor(), X)


def test_exported_alike(case, tmp_path):
    network, path = case.network(), tmp_path / "network.onnx"
    export_onnx(network, case.inputs, path, output=case.output, dynamic_batch=case.dynamic)
    same(OnnxPredictor(path)(in_float(case.inputs)), OneTensor()(X))


@pytest.mark.slow  # as many exports again
def test_measured(case):
    latency = network_latency(case.network(), case.inputs, output=case.output, measure=lambda path: 1.0)
    assert latency.milliseconds == 1
    assert latency.batch_size == (1 if case.dynamic else ROWS)


def test_what_has_no_samples_is_kept_whole(case):
    found = explain(case.network(), case.inputs, method="Saliency", target=1, output=case.output)
    assert found.whole == (not case.dynamic)
    gathered = found.gathered(lambda value: value, 1, 1)
    for name, value in found.attributions.items():
        assert len(gathered.attributions[name]) == (1 if case.dynamic else len(value))


def test_lengths_go_along():
    """A list of numbers, one for each sample, cannot be cut: the call is measured as it is."""

    class OfLengths(OneTensor):
        def forward(self, image, lengths):
            return self.compute(torch.cat([row[None] * n for row, n in zip(image, lengths, strict=True)]))

    expected = count_macs(OneTensor(), X)
    assert count_macs(OfLengths(), (X, torch.ones(ROWS))) == expected
    assert count_macs(OfLengths(), (X, [1] * ROWS)) == expected
    assert count_samples(OfLengths(), (X, [1] * ROWS)) is None
    same(
        explain(OfLengths(), (X, [1] * ROWS), method="Saliency").attributions["0"],
        explain(OneTensor(), X, method="Saliency").attributions[""],
    )


def test_deep_lift_needs_samples():
    case = CASES["graph"]
    with refused("inputs: DeepLift compares samples", "IntegratedGradients"):
        attribute(case.network(), case.inputs, method="DeepLift", target=0, output=case.output)


def test_names_of_a_file():
    case = CASES["flags"]
    assert list(named_tensors(case.inputs)) == ["input.0", "mask"]
    assert batch_size(case.inputs) == ROWS
