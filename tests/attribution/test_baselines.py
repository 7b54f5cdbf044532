"""Baselines by name, checked against their definitions."""

import pytest
import torch
from refusals import refused

from lit_xai.attribution.baselines import BASELINES, check_baseline, gaussian_blur, make_baselines

IMAGES = torch.randn(4, 3, 8, 10, generator=torch.Generator().manual_seed(0))
BACKGROUND = torch.randn(7, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def test_zero():
    assert torch.equal(make_baselines("zero", IMAGES), torch.zeros(1, 3, 8, 10))


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]), ((0.5,), (0.2,)), (0.5, 0.2), (torch.tensor([0.5, 0.4, 0.3]), 0.5)],
)
def test_black_is_what_a_black_pixel_becomes(mean, std):
    found = make_baselines("black", IMAGES, mean=mean, std=std)
    channel = torch.tensor(mean).reshape(-1, 1, 1) if not torch.is_tensor(mean) else mean.reshape(-1, 1, 1)
    pixels = found * torch.as_tensor(std).reshape(-1, 1, 1) + channel
    torch.testing.assert_close(pixels, torch.zeros(1, 3, 8, 10), atol=1e-6, rtol=0)


def test_mean():
    found = make_baselines("mean", IMAGES, background=BACKGROUND)
    torch.testing.assert_close(found[0], BACKGROUND.sum(0) / 7)


def test_training_samples_one_each_or_all_to_draw_from():
    assert make_baselines("training", IMAGES, background=BACKGROUND, draws=True) is BACKGROUND
    assert torch.equal(make_baselines("training", IMAGES, background=BACKGROUND), BACKGROUND[:4])
    assert torch.equal(make_baselines("training", IMAGES, background=BACKGROUND[:3])[3], BACKGROUND[0])


def test_blur_against_its_formula():
    """One bright pixel becomes the Gaussian itself; constants stay; nothing is lost away from the edges."""
    image = torch.zeros(1, 1, 33, 33)
    image[0, 0, 16, 16] = 1
    found = gaussian_blur(image, sigma=2.0)[0, 0]
    distance = torch.arange(33.0) - 16
    line = torch.exp(-0.5 * (distance / 2) ** 2) * (distance.abs() <= 6)
    torch.testing.assert_close(found, torch.outer(line, line) / line.sum() ** 2, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(gaussian_blur(torch.full((2, 3, 5, 9), 1.7)), torch.full((2, 3, 5, 9), 1.7))
    assert torch.equal(make_baselines("blur", IMAGES), gaussian_blur(IMAGES, sigma=1.0))
    torch.testing.assert_close(gaussian_blur(IMAGES)[:, :1], gaussian_blur(IMAGES[:, :1]))


@pytest.mark.parametrize(
    ("name", "given", "parts"),
    [
        ("blak", {}, ["baselines", "'blak'", "Did you mean 'black'"]),
        ("black", {}, ["baselines='black' needs the mean and std"]),
        ("black", {"mean": 0.5}, ["baselines='black' needs the mean and std"]),
        ("mean", {}, ["baselines='mean' needs training samples"]),
        ("training", {"background": BACKGROUND[:0]}, ["baselines='training' needs training samples"]),
    ],
)
def test_refused(name, given, parts):
    with refused(*parts):
        make_baselines(name, IMAGES, **given)


def test_blur_of_what_is_no_image():
    with refused("baselines='blur' expected images", "(4, 5)"):
        make_baselines("blur", torch.zeros(4, 5))


def test_check_passes_names_numbers_and_tensors():
    for baseline in (*BASELINES, 0, 0.5, None, torch.zeros(1)):
        check_baseline(baseline)
