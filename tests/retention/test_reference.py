"""What other networks are held against, on networks whose explanations are known."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.retention.explainer import Explainer
from lit_xai.retention.reference import ReferenceExplanations, predict
from lit_xai.retention.similarity import signed_cosine


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


@pytest.mark.parametrize("method", ["IntegratedGradients", "InputXGradient", "Occlusion", "Saliency"])
def test_a_linear_model_in_closed_form(method):
    """Attributions are weight times input, or the weight's size, of the class that the reference predicts."""
    one, other, x = torch.randn(4, 12), torch.randn(4, 12), torch.randn(40, 12)
    reference = ReferenceExplanations(linear(one), x, Explainer(method))
    predicted = (x @ one.T).argmax(1)
    assert torch.equal(reference.predictions, predicted)
    maps = [(w[predicted].abs() if method == "Saliency" else w[predicted] * x) for w in (one, other)]
    found = reference.compare(linear(other))
    assert torch.allclose(found.similarity, signed_cosine(*maps), atol=1e-5)
    assert torch.allclose(reference.compare(linear(one)).similarity, torch.ones(40).double(), atol=1e-6)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


def test_untrained_networks_are_near_zero_and_rounding_is_ordered():
    network, x = small(), torch.randn(100, 30)
    reference = ReferenceExplanations(network, x, Explainer())
    nulls = reference.nulls(6)
    assert nulls.shape == (6, 100)
    assert abs(float(nulls.mean())) < 0.1
    assert nulls.mean(1).unique().numel() == 6
    levels = [float(similar.mean()) for _, similar in reference.ladder((8, 6, 4, 3, 2))]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 0.97


def test_samples_of_the_same_class_are_paired_once():
    x = torch.randn(60, 30)
    reference = ReferenceExplanations(small(), x, Explainer("InputXGradient"))
    found = reference.of_same_class()
    maps, predictions = reference.maps, reference.predictions
    alone = torch.bincount(predictions, minlength=5)[predictions] == 1
    assert torch.equal(found.isnan(), alone)
    # Each value is that of some pair of different samples of one class.
    for row in (~alone).nonzero().flatten().tolist():
        others = [k for k in range(60) if k != row and predictions[k] == predictions[row]]
        pairs = signed_cosine(maps[row].expand(len(others), -1), maps[others])
        assert (pairs - found[row]).abs().min() < 1e-9


def test_the_input_itself_is_less_its_baseline():
    x, baseline = torch.rand(20, 30) + 1, torch.ones(1, 30)
    reference = ReferenceExplanations(small(), x, Explainer(), baselines=baseline)
    assert torch.allclose(reference.of_input(), signed_cosine(reference.maps, x - baseline))


def test_an_explainer_that_draws_is_held_against_itself():
    x = torch.randn(30, 30)
    assert ReferenceExplanations(small(), x, Explainer()).of_another_draw() is None
    noisy = Explainer("IntegratedGradients", noise_tunnel={"nt_samples": 4, "stdevs": 0.5})
    found = ReferenceExplanations(small(), x, noisy)
    assert torch.allclose(found.compare(small()).similarity, torch.ones(30).double())
    assert 0.3 < float(found.of_another_draw().mean()) < 0.999


def test_the_reference_is_left_as_it_was():
    network, x = small().train(), torch.randn(40, 30)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    reference = ReferenceExplanations(network, x, Explainer())
    reference.nulls(2), list(reference.ladder((4,)))
    assert network.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_values_are_each_explained():
    """Of two values that depend on different inputs: a network with one of them wrong has a mean of both."""
    weight = torch.zeros(2, 8)
    weight[0, :4] = torch.randn(4)
    weight[1, 4:] = torch.randn(4)
    wrong = weight.clone()
    wrong[1] *= -1
    x = torch.randn(35, 8)
    reference = ReferenceExplanations(linear(weight), x, Explainer("InputXGradient"), each_output=True)
    assert reference.predictions is None
    found = reference.compare(linear(wrong)).similarity
    assert torch.allclose(found, torch.zeros(35).double(), atol=1e-6)  # (1 + -1) / 2


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_a_single_output_needs_no_class(shape):
    class Value(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x):
            return (x @ self.weight).reshape(len(x), *shape[1:])

    one, other, x = torch.randn(6), torch.randn(6), torch.randn(40, 6)
    reference = ReferenceExplanations(Value(one), x, Explainer("InputXGradient"))
    assert reference.predictions is None
    assert reference.of_same_class() is None
    assert torch.allclose(reference.compare(Value(other)).similarity, signed_cosine(one * x, other * x), atol=1e-5)


class Maps(nn.Module):
    """Logits of each pixel."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


def test_dense_outputs_are_compared_at_the_references_pixel():
    torch.manual_seed(1)
    network, x = Maps(), torch.randn(30, 1, 6, 6)
    reference = ReferenceExplanations(network, x, Explainer("InputXGradient"))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.conv.bias[2] += 100  # its own highest class is another one everywhere
    assert torch.allclose(reference.compare(other).similarity, torch.ones(30).double(), atol=1e-6)


def test_padding_is_left_out():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.fc = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, tokens, attention_mask):
            return self.fc((self.embedding(tokens) * attention_mask[..., None]).sum(1))

    torch.manual_seed(0)
    inputs = {"tokens": torch.randint(20, (30, 7)), "attention_mask": (torch.arange(7) < 5).long().expand(30, 7)}
    explainer = Explainer("LayerIntegratedGradients", layer="embedding")
    network, other = Mean(), Mean()
    padded = ReferenceExplanations(network, inputs, explainer, similarity="rank").compare(other).similarity
    short = {key: value[:, :5] for key, value in inputs.items()}
    cut = ReferenceExplanations(network, short, explainer, similarity="rank").compare(other).similarity
    assert torch.allclose(padded, cut, atol=1e-6)


def test_other_outputs_are_refused():
    reference = ReferenceExplanations(small(), torch.randn(40, 30), Explainer())
    with pytest.raises(ValueError, match=r"The reference gives Tensor\[40, 5\].*Tensor\[40, 2\]"):
        reference.compare(nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 2)))


def test_the_hash_knows_weights_samples_and_explainer():
    x = torch.randn(40, 30)
    one = ReferenceExplanations(small(), x, Explainer()).hash
    other = small()
    with torch.no_grad():
        other[0].bias[0] += 1e-3
    assert one == ReferenceExplanations(small(), x.clone(), Explainer()).hash
    different = [
        ReferenceExplanations(other, x, Explainer()).hash,
        ReferenceExplanations(small(), x + 1, Explainer()).hash,
        ReferenceExplanations(small(), x, Explainer("Saliency")).hash,
    ]
    assert len({one, *different}) == 4


def test_predictions_are_those_of_evaluation_mode():
    network = nn.Sequential(nn.Linear(30, 4), nn.Dropout(0.5)).train()
    x = torch.randn(10, 30)
    assert torch.allclose(predict(network, x, at_most=3), network[0](x).detach(), atol=1e-6)
    assert network.training


def test_no_pass_is_made_twice():
    """Beside the path: two rows of the baseline, and a few that tell whether samples are taken one by one."""
    network, x, rows = small(), torch.randn(60, 30), []
    reference = ReferenceExplanations(network, x, Explainer())
    network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    known = reference.compare(network, logits=reference.logits)
    path = 60 * reference.steps
    assert path < sum(rows) <= path + 10
    rows.clear()
    found = reference.compare(network)
    assert sum(rows) <= path + 60 + 10
    assert torch.equal(found.similarity, known.similarity)


def test_several_values_share_a_pass():
    network, x, rows = small(), torch.randn(40, 30), []
    network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    reference = ReferenceExplanations(network, x, Explainer("InputXGradient"), each_output=True)
    rows.clear()
    reference.compare(network)
    assert sum(rows) <= 40 + 5 * (40 + 8)


def test_untrained_networks_and_rounded_ones_are_measured_once():
    reference = ReferenceExplanations(small(), torch.randn(40, 30), Explainer())
    once, ladder = reference.nulls(2), dict(reference.ladder((4,)))
    reference.compare = None
    assert torch.equal(reference.nulls(2), once)
    assert torch.equal(dict(reference.ladder((4,)))[4], ladder[4])
