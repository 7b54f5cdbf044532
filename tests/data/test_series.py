import numpy as np
import pytest
import torch

from lit_xai.data import Series, SeriesDataModule


def make(values, labels, test=None, **options):
    class Own(SeriesDataModule):
        class_names = ["a", "b"]

        def read(self, train):
            return Series(values, labels) if train or test is None else test

    data = Own(**options)
    data.setup()
    return data


@pytest.fixture
def varying():
    rng = np.random.default_rng(0)
    return [rng.normal(3, 5, size=(2, rng.integers(3, 9))) for _ in range(40)]


def test_series_are_normalized_by_the_training_split_and_padded_with_zeros(varying):
    data = make(varying, [0, 1] * 20, val_size=0.25, seed=3)
    train = data.train_dataset.inputs
    length = max(one.shape[1] for one in varying)
    assert train.shape == (30, 2, length)
    # Every training series is one of the given ones: found by its first value, scaled back.
    chosen = data._split[0].tolist()
    positions = np.concatenate([varying[i] for i in chosen], axis=1)
    for row, i in zip(train, chosen, strict=True):
        own = (varying[i] - positions.mean(1, keepdims=True)) / positions.std(1, keepdims=True)
        assert row[:, : own.shape[1]].numpy() == pytest.approx(own, abs=1e-6)
        assert not row[:, own.shape[1] :].any()


def test_a_length_cuts_and_pads(varying):
    x = make(varying, [0, 1] * 20, length=5, normalize=False).test_dataset.inputs
    assert x.shape == (40, 2, 5)
    for row, one in zip(x, varying, strict=True):
        kept = min(5, one.shape[1])
        assert row[:, :kept].numpy() == pytest.approx(one[:, :kept])


def test_a_longer_test_series_is_cut_to_those_trained_on(varying):
    data = make(varying, [0, 1] * 20, Series([np.ones((2, 99))], [1]))
    assert data.test_dataset.inputs.shape[2] == data.train_dataset.inputs.shape[2]


def test_a_constant_channel_becomes_zero():
    data = make(np.ones((10, 1, 4)), np.zeros(10, int))
    assert data.train_dataset.inputs.abs().max() == 0


def test_values_of_a_regression_are_float32():
    data = make(np.ones((10, 1, 4)), np.linspace(0, 1, 10))
    assert data.train_dataset.targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([np.ones((2, 3)), np.ones((1, 3))], [0, 1], "values expected series .* of the same channels"),
        ([np.ones(3)], [0], "values expected series"),
        ([np.ones((2, 0))], [0], "values expected series"),
        ([], [], "values expected series"),
        ([np.ones((1, 2)), np.array([[1, np.nan]])], [0, 1], "NaN or infinity in 1 series, first in series 1"),
        ([np.ones((1, 2))], [0, 1], "labels expected one class index or number for each of 1 series"),
        ([np.ones((1, 2))], ["a"], "labels expected one class index or number"),
    ],
)
def test_what_are_no_series_is_refused(values, labels, message):
    with pytest.raises(ValueError, match=message):
        Series(values, labels)


def test_test_series_of_other_channels_are_refused(varying):
    with pytest.raises(ValueError, match="test series expected 2 channels like those to train on, but got 1"):
        make(varying, [0, 1] * 20, Series([np.ones((1, 4))], [0]))


@pytest.mark.parametrize("length", [0, 2.5, True])
def test_a_length_is_a_positive_integer(length):
    with pytest.raises(ValueError, match="length expected a positive integer"):
        SeriesDataModule(length=length)
