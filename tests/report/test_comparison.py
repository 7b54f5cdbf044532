"""Tests of comparisons: predictions, explanations, costs and latency of networks on the same samples."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.functional import measure_retention
from lit_xai.models import DeepAverage
from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.measured import evidence_of
from lit_xai.retention.requirements import Requirement
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.runtime.onnx import export_onnx

QUICK = {"nulls": 3, "rounds": 0, "explainers": ["IntegratedGradients"], "corruption": False, "samples": "none"}


def network(seed=0, inputs=6, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))


def text_network(seed):
    torch.manual_seed(seed)
    return DeepAverage(30, 3, dim=8, hidden=8, padding=1)


def loader(n=70, classes=3, batch=32, **columns):
    torch.manual_seed(5)
    return DataLoader(TensorDataset(torch.randn(n, 6), torch.randint(classes, (n,))), batch)


def test_predictions_and_labels_are_those_of_the_loader():
    dense, other, data = network(), network(1), loader()
    record = compare_networks({"dense": dense, "other": other}, data, CompareOptions(**QUICK))
    x, y = (torch.cat(part) for part in zip(*data, strict=True))
    with torch.no_grad():
        np.testing.assert_allclose(record.candidate.outputs, other(x).numpy(), rtol=1e-5)
    np.testing.assert_array_equal(record.labels, y.numpy())
    assert record.task == "classes"
    assert record.facts["data"]["splits"][0]["n"] == 70


def test_retention_is_that_of_the_function():
    torch.manual_seed(5)
    data = DataLoader(TensorDataset(torch.randn(60, 40), torch.randint(3, (60,))), 60)
    dense, other = network(inputs=40), network(1, inputs=40)
    record = compare_networks({"dense": dense, "other": other}, data, CompareOptions(**{**QUICK, "nulls": 8}))
    (x, _), explained = next(iter(data)), record.explained[0]
    expected = measure_retention(dense, other, x[explained.samples], nulls=8, ladder=())
    wanted = [Requirement.read("retention", ">=0.4"), Requirement.read("similarity", ">=0.4")]
    found = evidence_of(record, wanted)
    assert expected.retention is not None
    assert found["retention"].value == pytest.approx(expected.retention, abs=1e-6)
    assert found["similarity"].value == pytest.approx(expected.similarity, abs=1e-6)


def test_retention_says_nothing_where_an_untrained_network_may_be_as_similar():
    small = torch.nn.Sequential(torch.nn.Linear(6, 3))
    record = compare_networks({"dense": small, "same": small}, loader(), CompareOptions(**{**QUICK, "nulls": 3}))
    (reason,) = evidence_of(record, [Requirement.read("retention", ">=0.4")]).values()
    assert "an untrained network may be as similar" in reason


def test_networks_are_left_as_they_are():
    dense = network().train()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    compare_networks({"dense": dense, "same": dense}, loader(), CompareOptions(**QUICK))
    assert dense.training
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())


def test_files_are_compared_by_occlusion_and_in_one_runtime(tmp_path):
    dense, path = network(), tmp_path / "dense.onnx"
    export_onnx(dense, torch.zeros(2, 6), path)
    options = CompareOptions(nulls=3, rounds=5)
    record = compare_networks({"dense": dense, "file": FileNetwork(path)}, loader(), options)
    assert [one.explainer for one in record.explained] == ["Occlusion"]
    assert record.explained[0].similarity["file"].mean() == pytest.approx(1, abs=1e-4)
    assert [len(one.latency) for one in record.networks] == [5, 5]
    assert record.candidate.costs == {"size kB": path.stat().st_size / 1000}
    two = compare_networks({"a": FileNetwork(path), "b": FileNetwork(path)}, loader(), CompareOptions(rounds=0))
    assert two.explained[0].null.shape[0] == 0


def test_groups_and_clusters():
    torch.manual_seed(0)
    batches = [
        {"x": torch.randn(20, 6), "y": torch.randint(3, (20,)), "site": ["a", "b"] * 10, "who": torch.arange(20) // 2}
        for _ in range(2)
    ]
    options = CompareOptions(batch_to_inputs="x", batch_to_target="y", groups="site", clusters="who", **QUICK)
    record = compare_networks({"dense": network(), "other": network(1)}, batches, options)
    assert record.group_names == ("a", "b")
    assert len(np.unique(record.clusters)) == 10
    assert record.labels.shape == (40,)


def test_probabilities_are_scored_as_probabilities():
    dense, data = network(), loader()
    soft = nn.Sequential(dense, nn.Softmax(1))
    record = compare_networks({"dense": dense, "soft": soft}, data, CompareOptions(**QUICK))
    wanted = [Requirement.read("nll", "ratio<=1"), Requirement.read("brier", "ratio<=1")]
    assert [one.value for one in evidence_of(record, wanted).values()] == pytest.approx([1, 1], abs=1e-5)


def test_values_are_explained_one_by_one():
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(60, 6), torch.randn(60, 2)), 30)
    record = compare_networks({"a": network(outputs=2), "b": network(1, outputs=2)}, data, CompareOptions(**QUICK))
    assert record.task == "values"
    assert record.labels.shape == (60, 2)


@pytest.mark.parametrize(
    ("networks", "batches", "sentence"),
    [
        ({"dense": network()}, loader(), "networks expected a reference and one network or more"),
        ({"dense": network(), "other": network(outputs=4)}, loader(), "the same outputs"),
        ({"dense": network(), "other": network()}, [], "batches expected one batch or more"),
    ],
)
def test_mistakes_are_one_sentence(networks, batches, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare_networks(networks, batches, CompareOptions(**QUICK))


@pytest.mark.parametrize(
    ("outputs", "labels", "sentence"),
    [
        ((3, 4, 4), torch.zeros(60, 4, 4, dtype=torch.long), "one answer for each sample"),
        ((12,), (torch.arange(720).view(60, 12) % 3 == 0).float(), "one class for each sample, but got several"),
    ],
)
def test_several_answers_for_a_sample_are_refused(outputs, labels, sentence):
    several = nn.Sequential(network(outputs=int(np.prod(outputs))), nn.Unflatten(1, outputs))
    data = DataLoader(TensorDataset(torch.randn(60, 6), labels), 30)
    with pytest.raises(ValueError, match=sentence):
        compare_networks({"a": several, "b": several}, data, CompareOptions(**QUICK))


def test_values_that_add_up_to_one_are_no_probabilities():
    data = DataLoader(TensorDataset(torch.randn(60, 6), torch.randn(60, 3)), 30)
    shares = nn.Sequential(network(), nn.Softmax(1))
    record = compare_networks({"a": shares, "b": shares}, data, CompareOptions(**QUICK))
    assert record.task == "values"
    assert record.candidate.outputs.sum(1) == pytest.approx(1, abs=1e-5)


def test_outputs_that_are_not_finite_are_refused():
    broken = network()
    nn.init.constant_(broken[2].bias, float("nan"))
    with pytest.raises(ValueError, match="broken gives NaN or infinity"):
        compare_networks({"dense": network(), "broken": broken}, loader(), CompareOptions(**QUICK))


def test_images_of_known_mean_and_std_are_explained_against_black_as_by_the_monitors():
    class Normalize:
        mean, std = [0.5], [0.25]

    torch.manual_seed(0)
    images = (torch.rand(40, 1, 8, 8) - 0.5) / 0.25
    data = DataLoader(TensorDataset(images, torch.arange(40) % 3), 20)
    dense = nn.Sequential(nn.Flatten(), network(inputs=64))
    options = {**QUICK, "nulls": 0, "n": 20}
    given = compare_networks({"a": dense, "b": dense}, data, CompareOptions(mean=[0.5], std=[0.25], **options))
    zero = compare_networks({"a": dense, "b": dense}, data, CompareOptions(**options))
    data.dataset.transform = Normalize()
    found = compare_networks({"a": dense, "b": dense}, data, CompareOptions(**options))
    baselines = [one.explained[0].arguments["baseline"] for one in (given, zero, found)]
    assert baselines == ["black", "zero", "black"]


def test_names_that_are_not_one_per_feature_are_refused():
    with pytest.raises(ValueError, match="feature_names expected 6 names, one per feature, but got 2"):
        compare_networks({"a": network(), "b": network()}, loader(), CompareOptions(feature_names=["a", "b"], **QUICK))


def texts(lengths, to):
    """Return batches of texts, each filled up with token 1 to its own length or to a given one."""
    torch.manual_seed(0)
    for longest in lengths:
        sizes = torch.randint(2, longest + 1, (20,))
        sizes[0] = longest
        mask = (torch.arange(to or longest) < sizes[:, None]).long()
        ids = nn.functional.pad(torch.randint(2, 30, (20, longest)), (0, mask.shape[1] - longest))
        ids = torch.where(mask > 0, ids, 1)
        yield {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(20) % 3}


def test_texts_may_be_as_long_as_the_longest_of_their_batch():
    networks = {str(seed): text_network(seed) for seed in range(2)}
    options = CompareOptions(**{**QUICK, "explainers": ["Occlusion"]})
    short, full = (compare_networks(networks, list(texts((7, 12, 9), to)), options) for to in (None, 12))
    np.testing.assert_allclose(short.candidate.outputs, full.candidate.outputs, atol=1e-6)
    similar, expected = (record.explained[0].similarity["1"] for record in (short, full))
    np.testing.assert_allclose(similar, expected, atol=1e-5)


def test_samples_of_several_sizes_without_a_mask_are_one_sentence():
    batches = [(torch.randn(20, 3, length), torch.arange(20) % 3) for length in (8, 9)]
    networks = {name: nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 3)) for name in "ab"}
    with pytest.raises(ValueError, match=r"got shapes \(20, 3, 8\), \(20, 3, 9\): have the loader fill them up"):
        compare_networks(networks, batches, CompareOptions(**QUICK))


class Sum(nn.Module):
    """Adds up two inputs, each with weights of its own."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(3, 1), nn.Linear(2, 1)

    def forward(self, seen, genres):
        return self.first(seen) + self.second(genres)


def test_of_several_inputs_the_first_is_drawn_with_its_own_names():
    batch = {"seen": torch.randn(40, 3), "genres": torch.randn(40, 2), "labels": torch.randn(40, 1)}
    names = {"seen": ["Alien", "Heat", "Fargo"], "genres": ["Drama", "War"]}
    options = CompareOptions(**{**QUICK, "samples": "show"}, input_features=names)
    record = compare_networks({"a": Sum(0), "b": Sum(1)}, [batch], options)
    tables = [table for table in record.facts["tables"] if table["section"] == "pictures"]
    assert all(any(name in row[-1] for name in names["seen"]) for table in tables for row in table["rows"])
    assert "IntegratedGradients of the input 'seen' against" in tables[0]["note"]
