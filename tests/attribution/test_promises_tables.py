"""Tables, where the answer is known: a linear model's coefficients, and the one feature that a network was taught."""

from functools import cache

import captum.attr
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum_methods import METHODS
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from torch import nn

from lit_xai.attribution.methods import attribute_parameters, explains_layer
from lit_xai.attribution.promises import promises
from lit_xai.functional import attribute
from lit_xai.models import MLP, LinearModel, NeuralAdditiveModel

EXPLAINERS = [name for name in METHODS if not explains_layer(getattr(captum.attr, name))]
EXACT = [name for name in EXPLAINERS if promises(getattr(captum.attr, name)).weight_x_input]
# Ten features in all orders are 3.6 million calls, in pairs 120.
PAIRS = torch.arange(10)[None] // 2
ARGUMENTS = {
    "Occlusion": {"sliding_window_shapes": (1,)},
    "ShapleyValues": {"feature_mask": PAIRS},
    "ShapleyValueSampling": {"n_samples": 5},
    "KernelShap": {"n_samples": 60},
    "Lime": {"n_samples": 60},
    "GradientShap": {"n_samples": 20},
}


def explain(name, network, x):
    """Explain against a row of zeros, which of a normalized table is the mean."""
    takes = attribute_parameters(getattr(captum.attr, name))
    own = {key: value for key, value in ARGUMENTS.get(name, {}).items() if key != "feature_mask" or x.shape[1] == 10}
    more = {"baselines": torch.zeros(2 if "Shap" in name and "Kernel" not in name else 1, x.shape[1]).to(x)}
    if name in ("ShapleyValues", "ShapleyValueSampling") or "baselines" not in takes:
        more = {}
    if name == "Lime":  # the default, a lasso, shrinks what it finds
        more["init_args"] = {"interpretable_model": SkLearnLinearRegression()}
    return attribute(network, x, method=name, target=0 if "target" in takes else None, attribute_args=own, **more)


@cache
def diabetes():
    """Return standardized rows, and a linear model with scikit-learn's coefficients."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    model, fitted = LinearModel(10, bias=False), LinearRegression(fit_intercept=False).fit(x, y)
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(fitted.coef_)[None])
    return torch.from_numpy(x).float(), model


@pytest.mark.parametrize("name", [*EXACT, "Lime"])
def test_a_linear_models_explanation_is_weight_times_input(name):
    x, model = diabetes()
    x = x[:12]
    found, expected = explain(name, model, x), model.coefficients * x
    if name == "ShapleyValues":
        sums = expected.reshape(len(x), 5, 2).sum(2)
        expected = sums.repeat_interleave(2, 1)
    tolerance = {"KernelShap": 1e-2, "Lime": 1e-2}.get(name, 1e-4)
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_feature_permutation_ranks_by_coefficients():
    x, model = diabetes()
    found = explain("FeaturePermutation", model, x).abs().mean(0)
    # A row's change is w (x - x') with another row's x': on average the coefficient times the mean difference.
    differences = (x[:, None] - x[None]).abs().mean((0, 1))
    torch.testing.assert_close(found, model.coefficients[0].abs() * differences, rtol=0.15, atol=1e-3)


def test_an_additive_models_explanation_is_what_each_feature_adds():
    torch.manual_seed(0)
    model, x = NeuralAdditiveModel(4, hidden=[8]).eval(), torch.randn(50, 4)
    found = attribute(model, x, method="ShapleyValueSampling", target=0, attribute_args={"n_samples": 3})
    expected = model.contributions(x) - model.contributions(torch.zeros(1, 4))
    torch.testing.assert_close(found, expected[..., 0].detach(), atol=1e-5, rtol=1e-4)


@cache
def taught():
    """Return a network that was taught to tell the sign of feature 3 of five, and 100 rows that it has not seen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.randn(1100, 5)
        x[:, 3] = x[:, 3].sign() * (1 + x[:, 3].abs() / 4)
        y = (x[:, 3] > 0).long()
        network = MLP(5, [16], 2)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.02, weight_decay=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[:1000]), y[:1000]).backward()
            optimizer.step()
    return network.eval(), x[1000:]


# Guided backpropagation drops a part of the gradient and finds 92: it shows what excites units, not what decides.
@pytest.mark.parametrize("name", sorted({*EXPLAINERS} - {"GuidedBackprop", "FeaturePermutation"}))
@pytest.mark.filterwarnings("ignore:.* does not add up")
def test_the_planted_feature_is_found(name):
    network, x = taught()
    found = explain(name, network, x)
    assert len(x) == 100
    assert (found.abs().argmax(1) == 3).sum() >= 95


def test_the_planted_feature_is_found_by_permutation():
    network, x = taught()
    # Of one row, whose feature may be swapped with its like, it says little: it is a method of all rows.
    draws = [attribute(network, x, method="FeaturePermutation", target=0, seed=seed) for seed in range(100)]
    assert sum(int(found.abs().mean(0).argmax()) == 3 for found in draws) >= 95
