import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

from lit_xai.data import TextRows

IDS, LABELS = [[5, 3], [4], [7, 8, 9]], torch.tensor([1, 0, 1])


def read(dataset, **options):
    return list(DataLoader(dataset, 2, collate_fn=TextRows.collate_fn, **options))


def test_a_batch_is_as_long_as_its_longest_text():
    first, last = read(TextRows(IDS, LABELS, padding=1))
    assert first["input_ids"].tolist() == [[5, 3], [4, 1]]
    assert first["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert last["input_ids"].tolist() == [[7, 8, 9]]
    assert {value.dtype for value in first.values()} == {torch.int64}


def test_a_length_holds_for_all_batches():
    assert [batch["input_ids"].shape[1] for batch in read(TextRows(IDS, LABELS, length=5))] == [5, 5]


def test_texts_that_are_read_one_by_one_make_the_same_batches():
    rows = TextRows(IDS, LABELS, padding=1)
    for one, other in zip(read(rows), read(ConcatDataset([rows])), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_label_for_each_text():
    with pytest.raises(ValueError, match="one row per sample"):
        TextRows(IDS, LABELS[:2])


def test_no_texts_are_no_rows():
    assert len(TextRows([], torch.zeros(0, dtype=torch.int64))) == 0
