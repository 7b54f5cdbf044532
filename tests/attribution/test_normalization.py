"""The normalization of images is read from their dataset's transforms, and believed where it made the inputs."""

import pytest
import torch
from torch.utils.data import Dataset, Subset

from lit_xai.attribution.normalization import find_normalization, is_normalized_image

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.5]
PIXELS = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def normalized(pixels, mean=MEAN, std=STD):
    return (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


class Normalize:
    def __init__(self, mean=MEAN, std=STD):
        self.mean, self.std = mean, std


class Scale:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std


class Compose:
    def __init__(self, *transforms):
        self.transforms = list(transforms)


class Images(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 4


@pytest.mark.parametrize(
    "transform",
    [
        Normalize(),
        Compose(str, Normalize()),
        Compose(str, Compose(Normalize(torch.tensor(MEAN), tuple(STD)))),
        torch.nn.Sequential(),
    ],
)
def test_it_is_found_in_compositions(transform):
    found = find_normalization([Images(transform)], normalized(PIXELS))
    if isinstance(transform, torch.nn.Module):
        assert found is None
    else:
        assert [pytest.approx(MEAN), pytest.approx(STD)] == list(found)


@pytest.mark.parametrize(
    ("transform", "inputs"),
    [
        (Normalize(), PIXELS + 3),  # made by something else
        (Normalize(), normalized(PIXELS)[:, 0]),  # no images
        (Normalize([0.5] * 4, [0.5] * 4), normalized(PIXELS)),  # of other channels
        (Normalize(None, None), normalized(PIXELS)),
        (Normalize("half", "quarter"), normalized(PIXELS)),
        (Scale(MEAN, STD), normalized(PIXELS)),
        (None, normalized(PIXELS)),
    ],
)
def test_another_one_is_not(transform, inputs):
    assert find_normalization([Images(transform)], inputs) is None


def test_a_composition_of_itself_ends():
    circle = Compose()
    circle.transforms.append(circle)
    assert find_normalization([Images(circle)], PIXELS) is None


def test_images_have_a_darkest_value():
    assert is_normalized_image(normalized(PIXELS), MEAN, STD)
    assert is_normalized_image(255 * PIXELS, [0.0], [1.0])
    for inputs, mean in ((PIXELS - 1, [0.0]), (PIXELS.flatten(1), [0.0]), (PIXELS, None), (PIXELS.long(), [0.0])):
        assert not is_normalized_image(inputs, mean, [1.0])


def test_a_subset_has_the_transforms_of_what_it_wraps():
    from types import SimpleNamespace

    from lit_xai.trainer.batches import datasets

    images = Images(Normalize())
    loader = SimpleNamespace(dataset=Subset(images, [0, 1]))
    trainer = SimpleNamespace(train_dataloader=None, val_dataloaders={"one": loader}, test_dataloaders=[])
    assert datasets(trainer)[1] is images
    assert find_normalization(datasets(trainer), normalized(PIXELS)) is not None
