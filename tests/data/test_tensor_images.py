import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from lit_xai.data import TensorImages
from lit_xai.data.augmentation import crop_and_flip

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)


@pytest.fixture
def dataset():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 6, 5), dtype=torch.uint8, generator=generator)
    return TensorImages(images, torch.arange(20, dtype=torch.uint8), MEAN, STD)


def test_values_are_the_closed_form(dataset):
    x, y = dataset.__getitems__([4, 0, 19])
    pixels = dataset.images[[4, 0, 19]].numpy().astype(np.float64) / 255
    expected = (pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert y.tolist() == [4, 0, 19]


def test_without_normalization_the_values_are_exactly_the_bytes_over_the_largest(dataset):
    plain = TensorImages(dataset.images % 17, dataset.targets, (0.0,) * 3, (1.0,) * 3, pixel_max=16)
    x, _ = plain.__getitems__(range(20))
    assert torch.equal(x, (dataset.images % 17).float() / 16)


@pytest.mark.parametrize("indices", [[0], [3, 3, 1], list(range(20)), [np.int64(7), np.int64(2)], torch.tensor([5, 6])])
def test_a_batch_is_its_stacked_samples(dataset, indices):
    x, y = dataset.__getitems__(indices)
    samples = [dataset[int(index)] for index in indices]
    assert torch.equal(x, torch.stack([image for image, _ in samples]))
    assert torch.equal(y, torch.stack([target for _, target in samples]))


def test_batches_do_not_touch_the_stored_bytes(dataset):
    before = dataset.images.clone()
    dataset.__getitems__([1])[0].zero_()
    dataset[1][0].zero_()
    assert torch.equal(dataset.images, before)


def test_is_a_sequence(dataset):
    assert len(dataset) == 20
    assert torch.equal(dataset[-1][0], dataset[19][0])
    with pytest.raises(IndexError):
        dataset[20]


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(20)), lambda d: ConcatDataset([d])])
@pytest.mark.parametrize("workers", [0, 1])
def test_loads_behind_the_wrappers_of_torch(dataset, wrap, workers):
    loader = DataLoader(wrap(dataset), batch_size=8, collate_fn=dataset.collate_fn, num_workers=workers)
    batches = list(loader)
    assert all(isinstance(batch, tuple) for batch in batches)
    assert [len(x) for x, _ in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([x for x, _ in batches]), dataset.__getitems__(range(20))[0])


def test_augmentation_applies_to_samples_and_batches_alike(dataset):
    dataset.augment = lambda images: 255 - images
    x, _ = dataset.__getitems__([2, 3])
    pixels = 1 - dataset.images[[2, 3]].double() / 255
    expected = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(x.double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(dataset[2][0], x[0])


def test_augmentation_follows_the_seed_also_in_workers(dataset):
    def epoch(seed, workers):
        torch.manual_seed(seed)
        loader = DataLoader(moving, batch_size=5, collate_fn=moving.collate_fn, num_workers=workers)
        return torch.cat([x for x, _ in loader])

    moving = TensorImages(dataset.images, dataset.targets, MEAN, STD, augment=lambda x: crop_and_flip(x, 2, flip=True))
    for workers in (0, 1):
        assert torch.equal(epoch(0, workers), epoch(0, workers))
        assert not torch.equal(epoch(0, workers), epoch(1, workers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": torch.zeros(2, 3, 4, 4)},
            r"images expected uint8 \(N, C, H, W\), but got torch.float32 \(2, 3, 4",
        ),
        ({"images": torch.zeros(2, 4, 4, dtype=torch.uint8)}, r"but got torch.uint8 \(2, 4, 4\)"),
        ({"targets": torch.zeros(3)}, r"targets expected one label per image, but got shape \(3,\) for 2"),
        ({"mean": (0.5,)}, r"mean and std expected 3 values \(channels\), but got \(0.5,\)"),
        ({"std": (1.0,) * 4}, r"expected 3 values"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    given = {"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "targets": torch.zeros(2), "mean": MEAN, "std": STD}
    with pytest.raises(ValueError, match=message):
        TensorImages(**{**given, **changes})
