import pytest
import torch

from lit_xai.data.corruption import CORRUPTIONS, corrupt_rows


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(4, 1, 28, 28), (4, 3, 8, 12), (2, 1, 3, 3)])
def test_images_stay_images_and_change_the_same_way_each_time(name, shape):
    images = torch.rand(shape)
    before, found = images.clone(), CORRUPTIONS[name](images)
    assert torch.equal(images, before)
    assert found.shape == images.shape
    assert found.isfinite().all()
    assert not torch.equal(found, images) or (name == "impulses" and images.numel() < 50)
    assert torch.equal(found, CORRUPTIONS[name](images))


def test_a_shift_moves_every_pixel():
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(CORRUPTIONS["shift"](images)[..., 3:, 3:], images[..., :-3, :-3])


def test_missing_values_are_the_mean_of_their_feature():
    rows = torch.randn(2000, 3)
    found = corrupt_rows(rows, "missing")
    changed = found != rows
    assert 0.08 < changed.double().mean() < 0.12
    assert torch.equal(found[changed], rows.mean(0).expand_as(rows)[changed])


def test_noise_is_a_fifth_of_each_features_spread():
    rows = torch.randn(5000, 2) * torch.tensor([1.0, 100.0])
    found = (corrupt_rows(rows, "noise") - rows).std(0) / rows.std(0)
    assert found.tolist() == pytest.approx([0.2, 0.2], abs=0.01)
