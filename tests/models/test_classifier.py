import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.models import MLP, Classifier, LinearModel, ResNet, VisionTransformer

NETWORKS = {
    "linear": lambda outputs: LinearModel(64, outputs),
    "mlp": lambda outputs: MLP(64, [32], outputs, dropout=0.1),
    "resnet": lambda outputs: ResNet(8, width=4, in_channels=1, num_classes=outputs),
    "vit": lambda outputs: VisionTransformer(
        image_size=8, patch_size=4, in_channels=1, num_classes=outputs, dim=16, depth=1, heads=2
    ),
}


@pytest.fixture(scope="module")
def tasks(digits):
    """The digits as three tasks: which one, whether it is odd, and which of three properties it has."""
    images, labels = digits[:]
    properties = torch.stack([labels % 2, labels > 4, labels % 3 == 0], dim=1)
    return {
        "multiclass": (digits, 10, 10),
        "binary": (TensorDataset(images, (labels % 2).float()), None, 1),
        "multilabel": (TensorDataset(images, properties.float()), 3, 3),
    }


@pytest.mark.parametrize(
    ("task", "network"),
    [
        *(("multiclass", network) for network in NETWORKS),
        ("binary", "linear"),
        ("binary", "vit"),
        ("multilabel", "mlp"),
    ],
)
def test_every_network_and_every_task_learns(tasks, fit, task, network):
    data, num_classes, outputs = tasks[task]
    torch.manual_seed(0)
    module = Classifier(NETWORKS[network](outputs), num_classes, task, optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    logged = fit(module, data, max_epochs=4).callback_metrics
    labels = data[:][1]
    chance = max(torch.bincount(labels.flatten().long()).tolist()) / labels.numel()
    assert logged["val/accuracy"] > chance + 0.05
    module.eval()
    with torch.no_grad():
        scores = module.predictions(module(data[:][0]))
    predicted = scores.argmax(dim=1) if task == "multiclass" else scores > 0.5
    expected = accuracy_score(labels.flatten(), predicted.flatten())
    assert logged["val/accuracy"].item() == pytest.approx(expected, abs=1e-6)


def test_logistic_regression_finds_scikit_learns_optimum(digits, fit):
    images, labels = digits[:]
    expected = LogisticRegression(C=1.0, tol=1e-6, max_iter=1000).fit(images.flatten(1).numpy(), labels.numpy())
    module = Classifier(
        LinearModel(64, 10), 10, optimizer=lambda p: torch.optim.LBFGS(p, max_iter=500, tolerance_grad=1e-7)
    )
    penalty = module.compute_loss  # scikit-learn's C: half the squared weights against the sum of the losses
    module.compute_loss = lambda *args: penalty(*args) + module.network.linear.weight.square().sum() / 2 / len(labels)
    fit(module, digits, batch_size=len(digits), max_epochs=3)
    found = module.network.coefficients.numpy()
    assert np.abs(found - expected.coef_).max() < 0.02 * np.abs(expected.coef_).max()


def test_predict_returns_probabilities_with_and_without_labels(digits, fit):
    module = Classifier(LinearModel(64, 10), 10)
    trainer = fit(module, digits, limit_train_batches=1)
    images = digits[:][0]
    labelled = torch.cat(trainer.predict(module, DataLoader(digits, batch_size=500)))
    bare = torch.cat(trainer.predict(module, DataLoader(images, batch_size=500)))
    torch.testing.assert_close(labelled, module(images).softmax(dim=1).detach())
    assert torch.equal(labelled, bare)


def test_class_weights_and_smoothing_reach_the_logged_loss(digits, fit):
    images, labels = digits[:]
    weights = compute_class_weight("balanced", classes=np.arange(10), y=labels.numpy())
    module = Classifier(LinearModel(64, 10), 10, label_smoothing=0.1, class_weights=weights)
    logged = fit(module, digits, batch_size=len(digits), limit_train_batches=0).callback_metrics
    trainer = fit(module, digits, batch_size=len(digits))
    expected = F.cross_entropy(module(images), labels, weight=torch.tensor(weights).float(), label_smoothing=0.1)
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert not logged


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(digits, fit, precision):
    module = Classifier(
        MLP(64, [32]), 10, class_weights=[1.0] * 10, optimizer=lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9)
    )
    logged = fit(module, digits, precision=precision, max_epochs=3).callback_metrics
    assert logged["val/accuracy"] > 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "num_classes expected an integer of at least 2 for task='multiclass', but got None"),
        ({"num_classes": 1}, "num_classes expected an integer of at least 2 for task='multiclass', but got 1"),
        ({"task": "multilabel"}, "num_classes expected an integer of at least 1 for task='multilabel', but got None"),
        ({"task": "binary", "num_classes": 3}, "None or 2 for task='binary', but got 3"),
        ({"task": "multi-class", "num_classes": 3}, "but got 'multi-class'. Did you mean 'multiclass'"),
        ({"num_classes": 3, "label_smoothing": 1.0}, r"label_smoothing expected a number in \[0, 1\), but got 1.0"),
        ({"num_classes": 3, "class_weights": [1, 2]}, r"class_weights expected 3 weights .* but got \[1.0, 2.0\]"),
        ({"task": "binary", "class_weights": [1]}, "class_weights expected 2 weights"),
        ({"num_classes": 2, "class_weights": [1, -2]}, "class_weights expected 2 weights of 0 or more"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Classifier(LinearModel(64, 10), **arguments)


@pytest.mark.parametrize(
    ("outputs", "num_classes", "message"),
    [
        (
            10,
            5,
            r"logits expected shape \(batch, 5\) for task='multiclass', but got \(128, 10\) from the network: change",
        ),
        (5, 5, "labels expected classes from 0 to num_classes - 1 = 4, but got values from 0 to 9"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(digits, fit, outputs, num_classes, message):
    module = Classifier(LinearModel(64, outputs), num_classes)
    module.on_train_start = lambda: pytest.fail("training began")
    with pytest.raises(ValueError, match=message):
        fit(module, digits)
