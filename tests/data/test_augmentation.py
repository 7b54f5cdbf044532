import pytest
import torch

from lit_xai.data.augmentation import crop_and_flip, darken


def images(count=64, channels=3, height=8, width=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def shifted(image, dy, dx, mirrored):
    """The window that starts dy below and dx right of the image's corner, one pixel at a time."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row + dy, (width - 1 - column if mirrored else column) + dx
            if 0 <= y < height and 0 <= x < width:
                out[:, row, column] = image[:, y, x]
    return out


@pytest.mark.parametrize("flip", [False, True])
def test_every_image_is_a_shift_of_itself_and_all_shifts_occur(flip):
    torch.manual_seed(0)
    x, padding = images(count=300), 1
    ways = [(dy, dx, m) for dy in (-1, 0, 1) for dx in (-1, 0, 1) for m in (False, True)[: 1 + flip]]
    used = set()
    for image, moved in zip(x, crop_and_flip(x, padding, flip), strict=True):
        matches = [way for way in ways if torch.equal(shifted(image, *way), moved)]
        assert len(matches) == 1
        used.update(matches)
    assert used == set(ways)


def test_half_of_the_images_are_mirrored():
    torch.manual_seed(0)
    x = images(count=2000, channels=1, height=1, width=2)
    mirrored = (crop_and_flip(x, padding=0, flip=True) != x).flatten(1).any(1).float().mean()
    same_anyway = (x[..., 0] == x[..., 1]).float().mean()
    expected = 0.5 * (1 - same_anyway.item())
    assert mirrored.item() == pytest.approx(expected, abs=0.04)


def test_leaves_its_input_alone_and_keeps_shape_and_dtype():
    x = images()
    before = x.clone()
    moved = crop_and_flip(x, padding=2, flip=True)
    moved.zero_()
    assert torch.equal(x, before)
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype


def test_without_padding_and_flip_nothing_moves():
    assert torch.equal(crop_and_flip(images(), padding=0), images())


def test_follows_the_global_seed():
    def moved(seed):
        torch.manual_seed(seed)
        return crop_and_flip(images(), padding=1, flip=True)

    assert torch.equal(moved(3), moved(3))
    assert not torch.equal(moved(3), moved(4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_images_is_darkened_each_by_one_factor(share, dtype):
    torch.manual_seed(0)
    x = torch.full((2000, 1, 2, 2), 200).to(dtype)
    dimmed = darken(x, share)
    assert dimmed.dtype == dtype
    assert torch.equal(dimmed.flatten(1).amin(1), dimmed.flatten(1).amax(1))
    factors = dimmed[:, 0, 0, 0].double() / 200
    changed = factors[factors < 1]
    assert abs(len(changed) / 2000 - share) < 0.04
    if share:
        assert abs(float(changed.mean()) - 0.5) < 0.02
        assert abs(float(changed.std()) - 12**-0.5) < 0.02
