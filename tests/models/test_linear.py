import pytest
import torch
from captum.attr import DeepLift, IntegratedGradients, ShapleyValueSampling

from lit_xai.models import LinearModel


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear")  # Captum, always
@pytest.mark.parametrize("method", [IntegratedGradients, DeepLift, ShapleyValueSampling])
def test_attribution_of_a_linear_model_is_weight_times_difference(method):
    torch.manual_seed(0)
    model = LinearModel(in_features=12, out_features=3)
    inputs, baselines = torch.randn(4, 3, 4).requires_grad_(), torch.randn(1, 3, 4)
    target = torch.tensor([0, 1, 2, 0])
    found = method(model).attribute(inputs, baselines.expand(4, -1, -1), target=target)
    expected = model.coefficients[target].view(4, 3, 4) * (inputs - baselines)
    torch.testing.assert_close(found, expected.detach().to(found.dtype), rtol=1e-4, atol=1e-6)


def test_coefficients_and_intercept_are_the_function():
    model = LinearModel(in_features=4, out_features=2)
    units = torch.eye(4)
    torch.testing.assert_close(model(units) - model.intercept, model.coefficients.T)
    torch.testing.assert_close(model(torch.zeros(1, 4))[0], model.intercept)
    assert LinearModel(4, bias=False).intercept is None


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="out_features expected a positive integer, but got 0"):
        LinearModel(in_features=4, out_features=0)
