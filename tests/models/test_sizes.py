import pytest
import torch

from lit_xai.models.sizes import check_images, check_positive, check_probability


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", None])
def test_a_size_is_a_positive_integer(size):
    with pytest.raises(ValueError, match="width expected a positive integer, but got"):
        check_positive(depth=1, width=size)


@pytest.mark.parametrize("probability", [-0.1, 1, 1.5, float("nan")])
def test_a_probability_lies_below_one(probability):
    with pytest.raises(ValueError, match=r"dropout expected a number in \[0, 1\)"):
        check_probability(dropout=probability)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 8, 8), (2, 64)])
def test_images_have_four_dimensions_and_the_right_channels(shape):
    with pytest.raises(ValueError, match="set in_channels to that of the data"):
        check_images(torch.zeros(shape), in_channels=1)
