import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import partial_dependence as of_scikit_learn
from torch import nn

from lit_xai.attribution.dependence import partial_dependence, score_of
from lit_xai.models import MLP, NeuralAdditiveModel, shape_functions


class Forest(nn.Module):
    """scikit-learn's estimator as a network, so that both libraries look at the same function."""

    def __init__(self, estimator):
        super().__init__()
        self.estimator = estimator

    def forward(self, x):
        return torch.from_numpy(self.estimator.predict(x.numpy())).float()


def test_it_is_scikit_learns():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x = x[:60].astype(np.float32)
    forest = RandomForestRegressor(5, random_state=0).fit(x, y[:60])
    expected = of_scikit_learn(forest, x, [2], grid_resolution=9, method="brute", kind="average")
    grid = torch.from_numpy(expected["grid_values"][0]).float()[:, None]
    found = partial_dependence(Forest(forest), torch.from_numpy(x), [2], grid)
    np.testing.assert_allclose(found, expected["average"][0], rtol=1e-5)


def test_of_an_additive_model_it_is_the_shape_function():
    torch.manual_seed(0)
    model, x = NeuralAdditiveModel(3, 2, hidden=[8]), torch.randn(200, 3)
    shapes = shape_functions(model, x, 20)
    for k in range(3):
        curve = partial_dependence(model, x, [k], shapes.grid[k][:, None], target=1)
        expected = shapes.contributions[k, :, 1]
        torch.testing.assert_close(curve - curve.mean(), expected - expected.mean(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 7, 9000])  # more than one pass takes
def test_columns_of_a_category_are_set_together(n):
    torch.manual_seed(0)
    network, x = MLP(4, [6], 2), torch.randn(n, 4)
    grid = torch.eye(3)
    found = partial_dependence(network, x, [1, 2, 3], grid)
    rows = torch.stack([torch.cat([x[:, :1], grid[k].expand(n, 3)], 1) for k in range(3)])
    logits = network(rows.flatten(0, 1)).detach().unflatten(0, (3, n))
    torch.testing.assert_close(found, (logits[..., 1] - logits[..., 0]).mean(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: score_of(torch.zeros(2, 3)),
            "target expected a class from 0 to 2, as the network has 3",
        ),
        (lambda: score_of(torch.zeros(2, 3), 3), "target expected a class from 0 to 2, .* but got 3"),
        (lambda: score_of(torch.zeros(2, 3, 4)), r"outputs expected scores or values of each sample"),
        (lambda: partial_dependence(MLP(4), torch.zeros(2, 2, 2), [0], torch.zeros(1, 1)), "inputs expected a table"),
        (lambda: partial_dependence(MLP(4), torch.zeros(2, 4), [0], torch.zeros(1, 2)), "grid expected values"),
    ],
)
def test_refuses_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
