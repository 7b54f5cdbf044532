"""Tests of what a report says of files, machine and data."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from lit_xai.report.provenance import environment, identity, sample_hashes, sha256, split_facts
from lit_xai.report.splits import Split, data_facts


def test_checksums_are_those_of_the_files(tmp_path):
    file = tmp_path / "a.onnx"
    file.write_bytes(b"abc" * 1000)
    assert sha256(file) == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert identity({"reference": file})["sha256 of reference (a.onnx)"] == sha256(file)


def test_a_hash_of_data_does_not_depend_on_their_order():
    x = torch.randn(20, 3)
    hashes = sample_hashes([[row] for row in x])
    order = torch.randperm(20)
    shuffled = sample_hashes([[row] for row in x[order]])
    assert split_facts("test", hashes)["hash"] == split_facts("test", shuffled)["hash"]
    x[0, 0] += 1e-3
    assert split_facts("test", sample_hashes([[row] for row in x]))["hash"] != split_facts("test", hashes)["hash"]


def test_classes_are_counted_by_name():
    found = split_facts("val", np.arange(3, dtype=np.uint64), np.array([0, 0, 5]), ["cat"], "choice of the epoch")
    assert found["classes"] == {"cat": 2, "5": 1}
    assert found["served"] == "choice of the epoch"


def test_versions_of_what_is_installed():
    found = environment()
    assert found["python"].startswith("3.")
    assert found["processor"]
    with pytest.raises(KeyError):
        found["a package that is not installed"]


class Words(nn.Module):
    def forward(self, input_ids, attention_mask):
        return (input_ids * attention_mask).sum(1, keepdim=True).float()


def texts(words, lengths, longest, side="right"):
    """Batches of one text each, filled up to a length with what is no text."""
    for own, length in zip(words, lengths, strict=True):
        fill, ids = torch.full((longest - length,), 7), own[:length]
        parts = [ids, fill] if side == "right" else [fill, ids]
        mask = torch.cat([torch.ones_like(part) if part is ids else torch.zeros_like(part) for part in parts])
        yield {"input_ids": torch.cat(parts)[None], "attention_mask": mask[None]}


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_has_one_hash_however_far_it_is_filled_up(side):
    words, lengths = torch.randint(100, (4, 9), generator=torch.Generator().manual_seed(0)), [3, 5, 5, 8]
    train, test = (
        Split(name, "", list(texts(words, lengths, to, side)), Words()) for name, to in [("a", 9), ("b", 20)]
    )
    shorter = Split("c", "", list(texts(words, [2, 4, 4, 7], 9, side)), Words())
    for one in (train, test, shorter):
        one.read()
    facts = data_facts([train, test, shorter])
    assert facts["splits"][0]["hash"] == facts["splits"][1]["hash"] != facts["splits"][2]["hash"]
    assert [one["n"] for one in facts["overlaps"]] == [4, 0, 0]
