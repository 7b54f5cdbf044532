import pytest
import torch

from lit_xai.models.flatten import Flatten


def test_flatten_keeps_the_order_of_values():
    inputs = torch.arange(24.0).view(2, 3, 4)
    assert torch.equal(Flatten(12)(inputs), inputs.reshape(2, 12))


def test_flatten_names_the_argument_that_does_not_fit():
    with pytest.raises(ValueError, match=r"in_features=784 values per sample, but got 64 .* \(2, 1, 8, 8\)"):
        Flatten(784)(torch.zeros(2, 1, 8, 8))
