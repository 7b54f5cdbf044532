import numpy as np
import pytest
import torch

from lit_xai.render.pixels import to_pixels

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.262)


@pytest.mark.parametrize("as_given", [tuple, list, np.array, torch.tensor])
def test_normalisation_is_undone_exactly(rng, as_given):
    pixels = rng.random((2, 3, 5, 4))
    normalized = (pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    back = to_pixels(normalized, as_given(MEAN), as_given(STD))
    assert back == pytest.approx(pixels.transpose(0, 2, 3, 1), abs=1e-6)


def test_one_number_serves_all_channels_and_grey_becomes_rgb(rng):
    pixels = rng.random((2, 6, 5))
    back = to_pixels((pixels - 0.286) / 0.353, mean=0.286, std=0.353)
    assert back.shape == (2, 6, 5, 3)
    assert back == pytest.approx(np.repeat(pixels[..., None], 3, axis=-1))


def test_without_normalisation_pixels_in_range_stay_and_others_are_stretched_per_image(rng):
    pixels = 0.2 + 0.5 * rng.random((2, 3, 4, 4))
    assert to_pixels(pixels) == pytest.approx(pixels.transpose(0, 2, 3, 1))
    stretched = to_pixels(np.stack([pixels[0] * 255, np.full((3, 4, 4), -7.0)]))
    assert (stretched[0].min(), stretched[0].max()) == (0, 1)
    assert (stretched[1] == 0.5).all()


def test_values_out_of_range_are_clipped_and_not_finite_ones_drawn_dark():
    back = to_pixels(np.array([[[[9.0, -9.0, np.nan, np.inf]]]]), mean=0.0, std=1.0)
    assert back[0, 0, :, 0].tolist() == [1, 0, 0, 0]


def test_transparent_pixels_show_white_paper():
    rgba = np.array([0.5, 0.0, 1.0, 0.25]).reshape(1, 4, 1, 1)
    assert to_pixels(rgba)[0, 0, 0] == pytest.approx([0.875, 0.75, 1.0])


@pytest.mark.parametrize("name", ["mean", "std"])
def test_entries_that_are_not_one_per_channel_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} expected 1 or 3 numbers, .* but got 2\."):
        to_pixels(np.zeros((1, 3, 2, 2)), **{name: (0.5, 0.5)})
