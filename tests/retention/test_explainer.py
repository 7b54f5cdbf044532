"""Settings that make the explanations of two networks comparable."""

import pytest
import torch
from torch import nn

from lit_xai.attribution.explanation import explain
from lit_xai.retention.explainer import (
    MOST_STEPS,
    Explainer,
    as_explainer,
    completeness_error,
    explain_fully,
    occlusion_window,
)


def test_what_an_explainer_can_be_given_as():
    given = [as_explainer(one).name for one in ("Saliency", Explainer("Saliency"), {"method": "Saliency"})]
    assert given == ["Saliency"] * 3
    with pytest.raises(ValueError, match="explainer expected a method's name, a class or an Explainer, but got 3"):
        as_explainer(3)
    with pytest.raises(ValueError, match="second expected the arguments of Explainer"):
        as_explainer({"metod": "Saliency"}, "second")
    with pytest.raises(ValueError, match="IntegratedGradient"):
        as_explainer("IntegratedGradient")


class Steep(nn.Module):
    def forward(self, x):
        return torch.sigmoid(60 * (x.sum(1, keepdim=True) - 0.37))


def test_steps_double_until_attributions_add_up():
    x = torch.full((4, 3), 1 / 3)
    explanation, steps = explain_fully(nn.Linear(3, 2), x, Explainer(), target=0)
    assert steps == 16
    assert completeness_error(explanation) < 1e-4
    explanation, steps = explain_fully(Steep(), x, Explainer())
    assert 16 < steps <= MOST_STEPS
    assert completeness_error(explanation) <= 0.05
    coarse, steps = explain_fully(Steep(), x, Explainer(attribute_args={"n_steps": 4}))
    assert steps is None
    assert completeness_error(coarse) > 0.05


def test_the_gap_is_the_share_of_the_change():
    """By hand: f(x) - f(0) against the sum of attributions."""
    network, x = Steep(), torch.rand(5, 3)
    found, _ = explain_fully(network, x, Explainer(attribute_args={"n_steps": 3}))
    change = (network(x) - network(torch.zeros(1, 3))).flatten()
    gap = (found.attributions[""].sum(1) - change).abs() / change.abs()
    assert completeness_error(found) == pytest.approx(float(gap.median()), rel=1e-3)
    assert completeness_error(explain(network, x, method="Saliency")) is None


@pytest.mark.parametrize(
    ("shape", "window"), [((3, 32, 32), (3, 5, 5)), ((1, 8, 8), (1, 2, 2)), ((4, 50), (4, 8)), ((6,), (1,))]
)
def test_windows_of_occlusion(shape, window):
    options = occlusion_window(torch.zeros(2, *shape))
    assert options == {"sliding_window_shapes": window, "strides": window}
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    network(torch.zeros(1, *shape))
    explanation, steps = explain_fully(network, torch.randn(2, *shape), Explainer("Occlusion"), target=0)
    assert steps is None
    assert explanation.attributions[""].shape == (2, *shape)
