"""The gap is Captum's own, and takes no pass that is known already."""

import captum.attr
import pytest
import torch
from torch import nn

from lit_xai.attribution.explanation import explain
from lit_xai.functional import attribute


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.last = nn.Linear(6, 3)
        self.rows = []

    def forward(self, x, scale=None):
        self.rows.append(len(x))
        return self.last(torch.tanh(self.first(x)) * (1 if scale is None else scale))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().double()


X = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SCALE = torch.arange(1, 8)[:, None]  # integers are passed along
TARGET = torch.tensor([0, 1, 2, 0, 1, 2, 0])
BASELINES = {"none": None, "a number": 0.5, "one": X[:1] / 2, "by sample": X.flip(0)}


@pytest.mark.parametrize("baseline", list(BASELINES))
@pytest.mark.parametrize(
    ("method", "layer"),
    [("IntegratedGradients", None), ("LayerIntegratedGradients", "first"), ("LayerConductance", "first")],
)
@pytest.mark.parametrize("along", [False, True])
def test_equals_captum(method, layer, baseline, along, network):
    given = BASELINES[baseline]
    inputs = (X, SCALE) if along else X
    steps = {"n_steps": 2, "internal_batch_size": 64}
    _, delta = attribute(
        network,
        inputs,
        method=method,
        layer=layer,
        target=TARGET,
        baselines=given,
        attribute_args={"n_steps": 2},
        internal_batch_size=3,
        return_convergence_delta=True,
    )
    captums = getattr(captum.attr, method)(network, *([] if layer is None else [network.first]))
    _, expected = captums.attribute(X, given, TARGET, SCALE if along else None, return_convergence_delta=True, **steps)
    assert torch.allclose(delta, expected, atol=1e-10)
    assert expected.abs().max() > 1e-8


def test_what_is_known_does_not_run_again(network):
    options = {"method": "IntegratedGradients", "attribute_args": {"n_steps": 4}, "baselines": 0.5}
    first = explain(network, X, TARGET, **options)
    network.rows.clear()
    again = explain(network, X, TARGET, known=first, **options)
    assert torch.equal(first.delta, again.delta)
    path = 4 * len(X)
    # Beside the path the baseline, and what tells whether the network takes samples one by one.
    assert sum(network.rows) <= path + 2 + 4
    network.rows.clear()
    other = explain(network, X, target=2, known=first, **options)
    assert other.targets.tolist() == [2] * 7
    assert torch.allclose(other.delta, explain(network, X, target=2, **options).delta, atol=1e-12)


def test_logits_that_are_not_finite_are_refused(network):
    first = explain(network, X, TARGET, method="Saliency")
    first.logits[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        explain(network, X, TARGET, known=first, method="Saliency")
