"""Logits, targets and attributions in one call."""

import pytest
import torch
from networks import Observer, Tokens, TwoInputs, cnn, mlp
from refusals import refused
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.attribution.explanation import Explanation, by_name, check_target, choose_targets, class_labels, explain
from lit_xai.functional import attribute

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LOGITS = torch.tensor([[1.0, 3.0, 2.0], [9.0, 0.0, 0.0]])


def test_explanation_is_what_its_parts_are():
    network, labels = mlp().train(), torch.tensor([2, 1, 0, 1, 2, 0])
    found = explain(network, X, labels, method="DeepLift")
    assert torch.equal(found.logits, mlp()(X))
    assert torch.equal(found.targets, labels)
    maps, delta = attribute(mlp(), X, method="DeepLift", target=labels, return_convergence_delta=True)
    assert torch.equal(found.attributions[""], maps)
    assert torch.equal(found.delta, delta)
    assert list(found.tensors()) == ["attributions", "logits", "targets", "convergence_delta"]
    assert not found.logits.requires_grad


def test_leaves_no_trace():
    network = nn.Sequential(Observer(), *cnn()).train()
    before = digest([module_state(network), rng_state()])
    explain(network, torch.randn(3, 2, 6, 6, generator=torch.Generator()), torch.tensor([0, 1, 2]))
    assert digest([module_state(network), rng_state()]) == before


def test_forward_passes_are_bounded_too():
    network, sizes = mlp(), []
    network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    found = explain(network, X.repeat(9, 1), method="Saliency", internal_batch_size=4)
    assert max(sizes) == 16
    assert torch.equal(found.logits[:6], mlp()(X.repeat(9, 1))[:6])


@pytest.mark.parametrize(
    ("labels", "target", "expected"),
    [
        (torch.tensor([2, 0]), "label", [2, 0]),
        (torch.tensor([[2], [0]]), "label", [2, 0]),
        (torch.tensor([2, 0], dtype=torch.uint8), "label", [2, 0]),
        (torch.tensor([2, 0]), "prediction", [1, 0]),
        (torch.tensor([2, 0]), 1, [1, 1]),
        (None, "label", [1, 0]),
        (torch.tensor([0.5, 2.0]), "label", [1, 0]),
        (torch.tensor([[0, 1, 1], [0, 0, 1]]), "label", [1, 2]),
        (torch.tensor([[0.0, 0, 1], [0, 0, 0]]), "label", [2, 0]),
        (torch.tensor([[False, False, True], [True, True, True]]), "label", [2, 0]),
        (torch.tensor([[0.1, 0.2, 0.7], [0.0, 1.0, 0.0]]), "label", [2, 1]),
        (torch.tensor([-100, 7]), "label", [1, 0]),
    ],
)
def test_targets_of_several_classes(labels, target, expected):
    found = choose_targets(LOGITS, labels, target)
    assert found.tolist() == expected
    assert found.dtype == torch.int64


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 0]), torch.tensor([0.5, 2.0]), torch.tensor([[1.0], [0.0]])])
@pytest.mark.parametrize("target", ["label", "prediction", 0])
@pytest.mark.parametrize("logits", [torch.tensor([-1.0, 2.0]), torch.tensor([[-1.0], [2.0]])])
def test_targets_of_one_output(logits, target, labels):
    """Binary and regression: there is nothing to choose."""
    assert choose_targets(logits, labels, target).tolist() == [0, 0]


@pytest.mark.parametrize("last", [nn.Linear(5, 1), nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), nn.Linear(5, 4)])
@pytest.mark.parametrize("method", ["IntegratedGradients", "Occlusion", "KernelShap", "ShapleyValueSampling"])
def test_every_kind_of_output(last, method):
    torch.manual_seed(0)
    given = {"attribute_args": {"sliding_window_shapes": [1]}} if method == "Occlusion" else {}
    labels = torch.ones(6, dtype=torch.int64)
    found = explain(nn.Sequential(last), X, labels, method=method, **given)
    assert found.attributions[""].shape == (6, 5)
    assert (found.targets is None) == (found.logits.dim() == 1)


def test_of_values_of_several_outputs_the_largest_is_explained():
    assert torch.equal(choose_targets(LOGITS, LOGITS), LOGITS.argmax(1))
    assert choose_targets(LOGITS, LOGITS, 2).tolist() == [2, 2]
    assert class_labels(torch.zeros(5), (2, 3)) is None


@pytest.mark.parametrize("target", ["lable", -1, True, 1.0, None, [0]])
def test_target_refused(target):
    with refused("target expected 'label', 'prediction' or a class", repr(target)):
        check_target(target)


def test_class_out_of_range():
    with refused("target expected classes from 0 to 2, but got 3"):
        explain(mlp(), X, target=3)


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.layers, self.value = mlp(), value

    def forward(self, x):
        return self.layers(x) + self.value


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", ["IntegratedGradients", "Lime"])
def test_output_that_is_no_number(value, method):
    with refused("The network's output holds NaN or infinite values"):
        explain(Returns(value), X, method=method)


def test_attributions_that_are_no_numbers():
    class Cusp(nn.Module):
        def forward(self, x):
            return x.abs().sqrt()  # a gradient of inf at 0, the output is fine

    with refused("The attributions hold NaN or infinite values"):
        explain(Cusp(), torch.zeros(2, 3), target=0, method="InputXGradient")


@pytest.mark.parametrize("size", [0, None, 1.5])
def test_bound_refused(size):
    with refused("internal_batch_size expected a positive integer"):
        explain(mlp(), X, internal_batch_size=size)


def test_output_refused():
    with refused("one row of logits per sample"):
        explain(nn.Conv2d(2, 3, 1), torch.zeros(2, 2, 4, 4), output=lambda maps: maps.sum())
    with refused("defines no forward()"):
        explain(nn.Module(), X)


def test_inputs_by_name():
    pair = {"left": X, "right": X[:, :4]}
    assert list(explain(TwoInputs(), pair).attributions) == ["left", "right"]
    assert list(explain(TwoInputs(), (X, X[:, :4], torch.zeros(6, dtype=torch.int64))).attributions) == ["0", "1"]
    found = explain(Tokens(), torch.ones(2, 3, dtype=torch.int64), method="LayerIntegratedGradients", layer="embedding")
    assert found.attributions[""].shape == (2, 3, 4)
    assert by_name({"a": X, "b": None}) == {"a": X}


@pytest.mark.parametrize(("n", "world_size"), [(6, 1), (6, 2), (7, 3), (2, 3)])
def test_gathered_is_the_whole_in_order(n, world_size):
    whole = Explanation(torch.randn(n, 3), torch.arange(n), {"a": torch.randn(n, 2, 2)}, torch.randn(n))
    rows = [[r % n for r in range(rank, -(-n // world_size) * world_size, world_size)] for rank in range(world_size)]

    def share(rank):
        def cut(value):
            return value[rows[rank]]

        return Explanation(cut(whole.logits), cut(whole.targets), {"a": cut(whole.attributions["a"])}, cut(whole.delta))

    everywhere = [share(rank).tensors() for rank in range(world_size)]

    def all_gather(value):
        key = next(key for key, mine in everywhere[0].items() if mine is value)
        return torch.stack([shares[key] for shares in everywhere])

    mine = Explanation(*(everywhere[0][k] for k in ("logits", "targets")), {"a": everywhere[0]["attributions.a"]})
    mine.delta = everywhere[0]["convergence_delta"]
    found = mine.gathered(all_gather, world_size, n).tensors()
    assert all(torch.equal(found[key], value) for key, value in whole.tensors().items())
