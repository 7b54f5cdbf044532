import random

import numpy as np
import pytest
import torch

from lit_xai.data.split import shuffled, split_indices


@pytest.mark.parametrize(
    ("val_size", "train_size", "train", "val"),
    [
        (30, 1.0, 70, 30),
        (0.3, 1.0, 70, 30),
        (0, 1.0, 100, 0),
        (0.0, 100, 100, 0),
        (0.001, 1.0, 99, 1),
        (99, 1, 1, 99),
        (20, 0.5, 40, 20),
        (20, 10, 10, 20),
    ],
)
def test_sizes(val_size, train_size, train, val):
    training, validation = split_indices(100, val_size, train_size)
    assert (len(training), len(validation)) == (train, val)
    together = torch.cat([training, validation]).tolist()
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(100))


def test_is_the_same_everywhere():
    # Written down once: what any machine, process and library version has to give.
    training, validation = split_indices(12, 4, seed=5)
    assert validation.tolist() == [7, 5, 2, 9]
    assert training.tolist() == [11, 4, 8, 1, 0, 10, 6, 3]
    assert training.dtype == validation.dtype == torch.int64


def test_another_seed_is_another_split_and_train_size_keeps_the_validation_images():
    assert not torch.equal(split_indices(100, 10, seed=0)[1], split_indices(100, 10, seed=1)[1])
    assert torch.equal(split_indices(100, 10)[1], split_indices(100, 10, train_size=5)[1])


def test_global_random_states_are_neither_read_nor_moved():
    first = split_indices(50, 10)
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    second = split_indices(50, 10)
    assert all(map(torch.equal, first, second))
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"val_size": -1}, r"val_size expected a number of samples up to 100 .* but got -1\."),
        ({"val_size": 101}, "but got 101"),
        ({"val_size": 1.5}, "a fraction from 0 to 1 .* but got 1.5"),
        ({"val_size": float("nan")}, "but got nan"),
        ({"val_size": True}, "but got True"),
        ({"val_size": "0.1"}, "but got '0.1'"),
        ({"val_size": 60, "train_size": 41}, r"train_size expected a number of samples up to 40 .* but got 41"),
        ({"val_size": 100}, "expected to leave samples to train on, but got 100 and 1.0 for 100"),
        ({"val_size": 1.0}, "expected to leave samples to train on"),
        ({"val_size": 0.5, "train_size": 0}, "expected to leave samples to train on"),
    ],
)
def test_refuses_sizes_out_of_range(sizes, message):
    with pytest.raises(ValueError, match=message):
        split_indices(100, **sizes)


def test_shuffled_holds_the_same_indices_and_follows_the_seed():
    indices = torch.arange(100, 120)
    first, again, other = (shuffled(indices, seed) for seed in (0, 0, 1))
    assert first.sort().values.tolist() == indices.tolist()
    assert first.tolist() == again.tolist() != other.tolist()
