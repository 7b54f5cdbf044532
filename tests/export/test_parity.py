"""Differences, agreement and metrics against NumPy, over every kind of labels; and what is refused."""

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from witness import digest, rng_state

from lit_xai.export.parity import (
    OnnxPredictor,
    Parity,
    Rounding,
    check_float,
    check_int8,
    measure_parity,
    network_predictor,
)
from lit_xai.runtime.onnx import export_onnx

X = torch.randn(70, 6, generator=torch.Generator().manual_seed(0))


def pair(outputs=5, shift=0.3):
    torch.manual_seed(0)
    left = nn.Linear(6, outputs)
    right = nn.Linear(6, outputs)
    with torch.no_grad():
        right.weight.copy_(left.weight + shift * torch.randn(outputs, 6))
        right.bias.copy_(left.bias)
    return left, right


def evaluated(labels, metric=None, networks=None, batches=16):
    left, right = networks or pair()
    loader = [(X[i : i + batches], labels[i : i + batches]) for i in range(0, len(X), batches)]
    predictors = {"left": network_predictor(left), "right": network_predictor(right)}
    with torch.no_grad():
        outputs = left(X).numpy(), right(X).numpy()
    return measure_parity(predictors, [("left", "right")], loader, left, metric, progress=False), *outputs


def test_against_numpy():
    labels = torch.randint(5, (70,), generator=torch.Generator().manual_seed(1))
    found, left, right = evaluated(labels)
    parity = found.parities["left", "right"]
    assert parity.samples == parity.predictions == 70
    assert parity.equal == (left.argmax(1) == right.argmax(1)).sum() < 70
    assert parity.largest == pytest.approx(np.abs(left - right).max() / np.abs(right).max())
    assert parity.mean == pytest.approx(np.abs(left - right).mean() / np.abs(right).max())
    assert found.metrics == {
        "left": pytest.approx((left.argmax(1) == labels.numpy()).mean()),
        "right": pytest.approx((right.argmax(1) == labels.numpy()).mean()),
    }
    assert (found.metric, found.classification, found.outputs) == ("accuracy", True, 5)


class Tokens(nn.Module):
    """Of five tokens, whose scores of classes differ, and which are hardly told apart."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        classes = torch.tensor([1.0, 3.0, 2.0]).expand(len(x), 5, 3)
        return classes + self.step * torch.arange(5.0)[:, None]


def test_tokens_are_predicted_by_their_classes():
    predictors = {"left": network_predictor(Tokens(1e-6)), "right": network_predictor(Tokens(-1e-6))}
    found = measure_parity(predictors, [("left", "right")], [torch.rand(4, 5, 7)], Tokens(0.0), progress=False)
    parity = found.parities["left", "right"]
    assert (parity.predictions, parity.equal, found.outputs) == (20, 20, 3)


@pytest.mark.parametrize("metric", [MulticlassAccuracy(5, average="micro"), MulticlassF1Score(5)])
def test_metrics_of_torchmetrics(metric):
    labels = torch.randint(5, (70,), generator=torch.Generator().manual_seed(1))
    metric.update(torch.eye(5), torch.arange(5))  # what the user has counted so far
    before = float(metric.compute())
    found, left, _ = evaluated(labels, metric)
    fresh = metric.clone()
    fresh.reset()
    assert found.metrics["left"] == pytest.approx(float(fresh(torch.from_numpy(left), labels)))
    assert found.metric == type(metric).__name__
    assert float(metric.compute()) == before


def loss(logits, labels):
    return nn.functional.cross_entropy(logits, labels)


def test_a_function_sees_everything_at_once():
    labels = torch.randint(5, (70,), generator=torch.Generator().manual_seed(1))
    found, _, right = evaluated(labels, loss)
    assert found.metrics["right"] == pytest.approx(float(loss(torch.from_numpy(right), labels)))
    assert found.metric == "loss"


def test_labels_in_float_are_no_classes():
    found, *_ = evaluated(torch.randn(70, 5), MeanSquaredError())
    assert not found.classification
    assert found.parities["left", "right"].agreement is None
    found, *_ = evaluated(torch.randn(70, 5))
    assert found.metrics == {}


def test_one_output_is_predicted_by_its_sign():
    labels = torch.randint(2, (70,), generator=torch.Generator().manual_seed(1))
    found, left, right = evaluated(labels, networks=pair(1, 1.0))
    assert found.parities["left", "right"].equal == ((left > 0) == (right > 0)).sum() < 70
    assert found.metrics["left"] == pytest.approx(((left[:, 0] > 0) == labels.numpy()).mean())


def test_several_labels_for_each_sample():
    labels = torch.randint(2, (70, 5), generator=torch.Generator().manual_seed(1))
    found, left, right = evaluated(labels)
    parity = found.parities["left", "right"]
    assert (parity.samples, parity.predictions) == (70, 350)
    assert parity.equal == ((left > 0) == (right > 0)).sum()
    assert found.metrics["left"] == pytest.approx(((left > 0) == labels.numpy()).mean())
    assert not found.classification


def test_pixels():
    class Pixels(nn.Module):
        def forward(self, x):
            return torch.stack([x, -x, x.roll(1, 1)], 1)

    labels = torch.randint(3, (70, 6), generator=torch.Generator().manual_seed(1))
    found, left, _ = evaluated(labels, networks=(Pixels(), Pixels()))
    assert found.parities["left", "right"].predictions == 420
    assert found.metrics["left"] == pytest.approx((left.argmax(1) == labels.numpy()).mean())


def test_without_labels():
    left, right = pair()
    predictors = {"left": network_predictor(left), "right": network_predictor(right)}
    found = measure_parity(predictors, [("left", "right")], [X[:30], X[30:]], left, progress=False)
    assert found.metrics == {}
    assert found.parities["left", "right"].predictions == 70


def test_the_loader_goes_on_as_if_nothing_had_been():
    left, _ = pair()
    loader = DataLoader(TensorDataset(X, X), 16, shuffle=True, generator=torch.Generator().manual_seed(3))
    before = digest([rng_state(), loader.generator.get_state()])
    measure_parity({"left": network_predictor(left)}, [("left", "left")], loader, left)
    assert before == digest([rng_state(), loader.generator.get_state()])


def test_a_file(tmp_path):
    left, _ = pair()
    export_onnx(left, X, tmp_path / "network.onnx")
    predict = OnnxPredictor(tmp_path / "network.onnx")
    torch.testing.assert_close(predict(X), left(X).detach())
    with refused("network.onnx does not run on inputs of", "Tensor[70, 5]"):
        predict(X[:, :5])


def test_refusals():
    left, _ = pair()
    predictors = {"left": network_predictor(left)}
    with refused("loader expected one or more batches"):
        measure_parity(predictors, [("left", "left")], [], left, progress=False)
    with refused("Outputs expected finite numbers", "left"):
        measure_parity(predictors, [("left", "left")], [X / 0], left, progress=False)
    labels = torch.zeros(70, dtype=torch.long)
    for wrong in (lambda logits, labels: logits, lambda logits, labels: float("nan"), lambda logits, labels: "good"):
        with refused("metric expected"):
            evaluated(labels, wrong)


def parity(agreed, n=1000, largest=0.01, mean=0.001):
    return Parity(n, n, round(agreed * n), largest, mean)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (parity(1.0), "fine"),
        (parity(0.99), "fine"),
        (parity(0.989), "wrong"),
        (parity(0.9899, 100), "fine"),  # 99 of 100
        (parity(0.98, 100), "wrong"),
        (parity(0.9, 50), "warned of"),
        (parity(0.9, 50, mean=0.03), "wrong"),
        (parity(1.0, 50, mean=0.03), "wrong"),
        (parity(1.0, mean=0.03), "fine"),
        (Parity(1000, 0, 0, 0.5, 0.019), "fine"),
        (Parity(1000, 0, 0, 0.5, 0.021), "wrong"),
        (Parity(1000, 0, 0, float("nan"), float("nan")), "wrong"),
    ],
)
def test_limits_of_int8(found, verdict):
    if verdict == "wrong":
        with refused("model.int8.onnx expected what the quantized network computes"):
            check_int8(found)
    else:
        assert (check_int8(found) is None) == (verdict == "fine")


@pytest.mark.parametrize(
    ("network", "file", "verdict"),
    [
        (parity(0.9, mean=0.02), parity(0.9, mean=0.021), "warned of"),  # two roundings of one network
        (parity(0.9, mean=0.02), parity(0.85, mean=0.021), "wrong"),
        (parity(0.9, mean=0.02), parity(0.95, mean=0.03), "wrong"),
        (parity(1.0, mean=0.001), parity(0.9, mean=0.001), "wrong"),
        (parity(0.9, mean=0.02), parity(0.9, mean=float("nan")), "wrong"),
        (Parity(1000, 0, 0, 0.1, 0.02), Parity(1000, 0, 0, 0.1, 0.02), "warned of"),
        (Parity(1000, 0, 0, 0.1, 0.02), Parity(1000, 0, 0, 0.1, 0.03), "wrong"),
    ],
)
def test_what_rounding_explains(network, file, verdict):
    found, rounding = parity(0.9, mean=0.02), lambda: Rounding(network, file)
    if verdict == "wrong":
        with refused("model.int8.onnx expected what the quantized network computes"):
            check_int8(found, rounding)
    else:
        assert "Quantization itself changes as much" in check_int8(found, rounding)


def test_rounding_is_measured_in_doubt_alone():
    assert check_int8(parity(0.99), lambda: 1 / 0) is None


def test_limits_of_float():
    check_float(parity(0.5, largest=1e-3), 1e-3)
    for largest in (1.1e-3, float("nan")):
        with refused("model.onnx expected what the network computes, within 0.001", f"{largest:.2g}"):
            check_float(parity(1.0, largest=largest), 1e-3)
