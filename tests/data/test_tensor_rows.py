import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from lit_xai.data import TensorRows


@pytest.fixture
def dataset():
    return TensorRows(torch.arange(20.0).reshape(10, 2), torch.arange(10))


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(10)), lambda d: ConcatDataset([d])])
def test_batches_and_samples_are_the_rows(dataset, wrap):
    batches = list(DataLoader(wrap(dataset), batch_size=4, collate_fn=dataset.collate_fn))
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in batches]), dataset.inputs)
    assert torch.equal(dataset[-1][0], dataset.inputs[9])


def test_what_is_read_is_a_copy(dataset):
    before = dataset.inputs.clone()
    dataset[1][0].zero_()
    dataset.__getitems__([1])[0].zero_()
    assert torch.equal(dataset.inputs, before)


def test_refuses_targets_that_are_not_one_per_row():
    with pytest.raises(ValueError, match=r"targets expected one row per sample, but got shape \(3,\) for 2 samples"):
        TensorRows(torch.zeros(2, 4), torch.zeros(3))
