import ast
import inspect
import sys

import pytest
import torch
from sklearn.datasets import load_digits

from lit_xai.data import Digits


@pytest.fixture(scope="module")
def digits():
    data = Digits(val_size=0, normalize=False)
    data.setup()
    return data


def test_holds_scikit_learns_images_in_their_order(digits):
    original = load_digits()
    train, test = digits.read(train=True), digits.read(train=False)
    assert torch.equal(torch.cat([train[0], test[0]])[:, 0].double(), torch.from_numpy(original.images))
    assert torch.equal(torch.cat([train[1], test[1]]), torch.from_numpy(original.target))
    assert (len(train[0]), len(test[0])) == (1437, 360)


def test_every_class_is_tested(digits):
    assert torch.bincount(digits.test_dataset.targets).min() >= 33


def test_pixels_lie_between_0_and_1(digits):
    x, _ = digits.test_dataset.__getitems__(range(360))
    assert (x.min(), x.max()) == (0, 1)


def test_the_constants_are_those_of_the_training_images(digits):
    pixels = digits.train_dataset.images.double() / 16
    assert Digits.pixel_mean == pytest.approx([pixels.mean().item()], abs=5e-5)
    assert Digits.pixel_std == pytest.approx([pixels.std().item()], abs=5e-5)
    normalized = Digits(val_size=0)
    normalized.setup("fit")
    x, _ = normalized.train_dataset.__getitems__(range(1437))
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_importing_the_data_leaves_sklearn_alone():
    tree = ast.parse(inspect.getsource(sys.modules[Digits.__module__]))
    modules = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert modules == ["torch", "lit_xai.data.images"]
