"""Pairs of texts: what a batch holds, and how they are split."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import ConcatDataset, DataLoader

from lit_xai.data import PairDataModule
from lit_xai.data.pairs import PairRows

pytest.importorskip("tokenizers")

WORDS = [("one", "eins"), ("two apples", "zwei Äpfel"), ("three", "drei"), ("four old men", "vier alte Männer")]


class Numbers(PairDataModule):
    def read(self):
        return [(f"{source} {i}", f"{target} {i}") for i in range(20) for source, target in WORDS]


def numbers(**options):
    data = Numbers(**{"batch_size": 8, "vocab_size": 120, **options})
    data.setup("fit")
    return data


def test_what_the_decoder_reads_are_the_labels_one_place_later():
    batch = next(iter(numbers().train_dataloader()))
    labels, read = batch["labels"], batch["decoder_input_ids"]
    assert not read[:, 0].any()
    before = labels[:, :-1].clamp(min=0)
    assert torch.equal(read[:, 1:], before)
    assert torch.equal(batch["attention_mask"], (batch["input_ids"] != 0).long())


def test_a_batch_is_as_long_as_its_longest_texts():
    rows = PairRows([[2, 5, 3], [2, 5, 6, 7, 3]], [[8, 3], [3]])
    assert {name: tuple(value.shape) for name, value in rows.__getitems__([0]).items()} == {
        "input_ids": (1, 3),
        "attention_mask": (1, 3),
        "decoder_input_ids": (1, 2),
        "labels": (1, 2),
    }
    both = rows.__getitems__([0, 1])
    assert both["labels"].tolist() == [[8, 3], [3, -100]]
    assert both["decoder_input_ids"].tolist() == [[0, 8], [0, 3]]


def test_single_pairs_make_the_same_batch():
    rows = PairRows([[2, 5, 3], [2, 5, 6, 7, 3]], [[8, 3], [3]])
    joined = next(iter(DataLoader(ConcatDataset([rows]), batch_size=2, collate_fn=PairRows.collate_fn)))
    whole = rows.__getitems__([0, 1])
    assert all(torch.equal(joined[name], value) for name, value in whole.items() if name != "decoder_input_ids")
    counts = whole["labels"] != -100
    assert torch.equal(joined["decoder_input_ids"][counts], whole["decoder_input_ids"][counts])


def test_what_is_written_ends_and_can_be_read_again():
    data = numbers()
    batch = data.train_dataset.__getitems__([0])
    end = data.token_names.index("[SEP]")
    assert batch["labels"][0, -1] == end
    target = data.tokenizer.decode(batch["labels"][0].tolist())
    source = data.tokenizer.decode(batch["input_ids"][0].tolist())
    assert (source, target) in Numbers().read()


def test_a_source_is_in_one_part_alone():
    class Twice(PairDataModule):
        def read(self):
            return [("ab" * (1 + i % 10), f"Wort {i}") for i in range(60)]

    data = Twice(vocab_size=100, test_size=0.2, val_size=0.2)
    data.setup()
    parts = [data.train_dataset, data.val_dataset, data.test_dataset]
    sources = [{tuple(row.tolist()) for row in part.inputs} for part in parts]
    assert all(sources)
    assert sum(map(len, sources)) == len(set.union(*sources)) == 10


def test_long_pairs_are_left_out_where_it_is_asked_for():
    assert max(len(numbers(max_length=8).train_dataset.inputs[0]), 0) <= 8


def test_what_cannot_be_used_is_refused():
    class Empty(PairDataModule):
        def read(self):
            return [("one", "eins"), ("two", " ")]

    with pytest.raises(ValueError, match="pair 1 has an empty one"):
        Empty().setup("fit")
    with pytest.raises(MisconfigurationException, match="implement read"):
        PairDataModule().setup("fit")
    with pytest.raises(ValueError, match="vocab_size expected"):
        Numbers(vocab_size=3)
    with pytest.raises(ValueError, match="test_size"):
        numbers(test_size=1.0)


def test_held_out_pairs_of_a_sorted_file_are_not_sorted():
    data = numbers()
    first = [data.tokenizer.decode(row.tolist()) for row in data.val_dataset.inputs]
    assert len(first) > 4
    assert first != sorted(first)
