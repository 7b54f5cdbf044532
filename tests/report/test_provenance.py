"""Tests of what a report says of files, machine and data."""

import hashlib

import numpy as np
import pytest
import torch

from lit_xai.report.provenance import environment, identity, sample_hashes, sha256, split_facts


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
