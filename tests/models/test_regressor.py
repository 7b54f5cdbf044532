import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, mean_squared_error
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import R2Score

from lit_xai.models import LinearModel, Regressor


@pytest.fixture(scope="module")
def diabetes():
    features, target = load_diabetes(return_X_y=True)
    features, target = features / features.std(axis=0), (target - target.mean()) / target.std()
    return TensorDataset(torch.tensor(features).float(), torch.tensor(target).float())


def test_linear_regression_finds_the_least_squares(diabetes, fit):
    features, target = (part.numpy() for part in diabetes[:])
    expected = LinearRegression().fit(features, target)
    module = Regressor(LinearModel(10), optimizer=lambda p: torch.optim.LBFGS(p, lr=1.0, max_iter=50))
    logged = fit(module, diabetes, batch_size=len(diabetes), max_epochs=5).callback_metrics
    assert module.network.coefficients[0].tolist() == pytest.approx(expected.coef_.tolist(), abs=1e-3)
    assert module.network.intercept.item() == pytest.approx(expected.intercept_, abs=1e-3)
    predicted = expected.predict(features)
    assert logged["val/loss"].item() == pytest.approx(mean_squared_error(target, predicted), abs=1e-5)
    assert logged["val/mae"].item() == pytest.approx(mean_absolute_error(target, predicted), abs=1e-4)


@pytest.mark.parametrize("target_shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("loss", [F.l1_loss, nn.HuberLoss(), nn.SmoothL1Loss(beta=0.5)])
def test_loss_compares_each_prediction_with_its_own_target(diabetes, target_shape, loss):
    features, target = diabetes[:]
    module = Regressor(LinearModel(10), loss=loss)
    outputs, labels = module.align(module(features), target.view(target_shape), True)
    expected = loss(module(features)[:, 0], target)
    assert outputs.shape == labels.shape == (len(target),)
    torch.testing.assert_close(module.compute_loss(outputs, labels), expected)


def test_several_outputs(fit):
    inputs = torch.randn(256, 6)
    data = TensorDataset(inputs, inputs @ torch.randn(6, 2))
    logged = fit(Regressor(LinearModel(6, 2), metrics=R2Score()), data, max_epochs=2).callback_metrics
    assert logged["val/R2Score"] < 1


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_targets_take_the_type_of_the_predictions(dtype):
    outputs, labels = Regressor(LinearModel(10)).align(torch.zeros(4, 1), torch.ones(4, dtype=dtype), True)
    assert outputs.dtype == labels.dtype == torch.float32


def test_predict_returns_what_forward_returns(diabetes, fit):
    module = Regressor(LinearModel(10))
    trainer = fit(module, diabetes, limit_train_batches=1)
    found = torch.cat(trainer.predict(module, DataLoader(diabetes, batch_size=100)))
    torch.testing.assert_close(found, module(diabetes[:][0]))


def test_shapes_that_do_not_fit_are_said_in_one_sentence():
    with pytest.raises(ValueError, match=r"one shape, but got \(8, 3\) from the network and \(8,\) from the batch"):
        Regressor(LinearModel(4, 3)).training_step((torch.zeros(8, 4), torch.zeros(8)), 0)


def test_loss_is_callable():
    with pytest.raises(TypeError, match="loss expected a callable of predictions and targets, but got 'mse'"):
        Regressor(LinearModel(4), loss="mse")
