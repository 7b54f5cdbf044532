"""Filling removed pixels: a dense solve of the equations as they are written down, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lit_xai.retention.imputation import impute


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


WEIGHTS = {(i, j): 1 / 6 if i == 0 or j == 0 else 1 / 12 for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)}


def dense(image, removed):
    """Solve x = (weighted mean of the neighbours that there are) for the removed pixels of ``(C, H, W)``."""
    height, width = removed.shape
    places = {tuple(place): i for i, place in enumerate(np.argwhere(removed))}
    matrix, right = np.eye(len(places)), np.zeros((len(places), len(image)))
    for (y, x), i in places.items():
        around = {
            (y + dy, x + dx): w for (dy, dx), w in WEIGHTS.items() if 0 <= y + dy < height and 0 <= x + dx < width
        }
        for place, weight in around.items():
            share = weight / sum(around.values())
            if place in places:
                matrix[i, places[place]] -= share
            else:
                right[i] += share * image[:, place[0], place[1]]
    filled = image.copy()
    if places:
        filled[:, removed] = np.linalg.solve(matrix, right).T
    return filled


masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays.arrays(bool, (2, *shape)).filter(lambda gone: not gone.all((1, 2)).any())
)


@given(removed=masks, channels=st.integers(1, 3), scale=st.sampled_from([1e-3, 1.0, 255.0]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_equals_a_dense_solve(removed, channels, scale, seed):
    images = scale * (3 + np.random.default_rng(seed).standard_normal((2, channels, *removed.shape[1:])))
    given_images = torch.from_numpy(images)
    filled = impute(given_images, torch.from_numpy(removed), tolerance=1e-10)
    expected = np.stack([dense(*pair) for pair in zip(images, removed, strict=True)])
    np.testing.assert_allclose(filled.numpy(), expected, atol=1e-6 * scale)
    single = impute(given_images.float(), torch.from_numpy(removed))
    np.testing.assert_allclose(single.numpy(), expected, atol=5e-3 * scale)
    kept = ~torch.from_numpy(removed)[:, None].expand_as(given_images)
    assert torch.equal(filled[kept], given_images[kept])


def test_large_holes_converge():
    images = torch.rand(1, 1, 64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(3) / 5
    removed = torch.zeros(1, 64, 48, dtype=torch.bool)
    removed[:, 4:60, 6:44] = True
    filled = impute(images, removed)
    expected = dense(images[0].numpy(), removed[0].numpy())
    assert np.abs(filled[0].numpy() - expected).max() < 0.01 * images.std()


def test_noise_is_added_to_what_is_filled_alone():
    images, removed = draw(4, 2, 16, 16), draw(4, 16, 16, seed=1) < 0
    noise, gone = draw(4, 2, 16, 16, seed=2), removed[:, None]
    expected = impute(images, removed) + noise * gone
    torch.testing.assert_close(impute(images, removed, noise), expected)


@pytest.mark.parametrize(
    ("images", "removed", "message"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool), r"images expected floats \(N, C, H, W\), but"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), torch.zeros(2, 4, 4, dtype=torch.bool), "images expected floats"),
        (
            torch.zeros(2, 1, 4, 4),
            torch.zeros(2, 1, 4, 4, dtype=torch.bool),
            "removed expected booleans of sh",
        ),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4), "removed expected booleans"),
        (torch.zeros(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool), "removed expected one or more pixels left"),
    ],
)
def test_refused(images, removed, message):
    with pytest.raises(ValueError, match=message):
        impute(images, removed)
