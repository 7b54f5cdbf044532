"""What a reference is held against is measured once; a file that is not what it should be is made anew."""

import json

import numpy as np
import pytest
import torch
from retention_runs import FAST, Module, data, run
from torch import nn
from torch.utils.data import DataLoader

from lit_xai import RetentionMonitor
from lit_xai.network.saving import save_arrays
from lit_xai.retention.cache import ReferenceCache, read_similarities, write_similarities
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.reference import ReferenceExplanations


def explained(seed=0, x=None):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    return ReferenceExplanations(network, data(40).tensors[0] if x is None else x, Explainer())


def measured(own):
    own.nulls(3), list(own.ladder((8, 3)))
    return own


def test_what_was_measured_comes_back(tmp_path):
    cache, first = ReferenceCache(tmp_path, pytest.fail), measured(explained())
    cache.load(first)
    cache.save(first)
    second = explained()
    cache.load(second)
    second.compare = None  # nothing is left to explain
    assert torch.equal(second.nulls(3), first.nulls(3))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(second.ladder((8, 3)), first.ladder((8, 3)), strict=True))
    for other in (explained(seed=1), explained(x=data(40, 5).tensors[0])):
        cache.load(other)
        assert not other.measured


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "one byte":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif how == "pickled":
        np.savez(path, similarity=np.array([{}], dtype=object), names=np.zeros(1), version=1, sha256=np.zeros(1))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    else:  # sound numbers, but of other samples, too large or not finite
        rows = {"samples": torch.zeros(3), "large": torch.full((40,), 7.0), "nan": torch.full((40,), torch.nan)}[how]
        write_similarities(path, {"untrained 0": rows})


@pytest.mark.parametrize("how", ["truncated", "one byte", "pickled", "empty", "a folder", "samples", "large", "nan"])
def test_another_file_is_made_anew_with_a_sentence(how, tmp_path):
    own, said = measured(explained()), []
    cache = ReferenceCache(tmp_path, said.append)
    cache.save(own)
    (path,) = tmp_path.glob("*.npz")
    damage(path, how)
    again = explained()
    cache.load(again)
    assert not again.measured
    assert len(said) == 1
    assert said[0].startswith("what the reference is held against is measured anew.")
    cache.save(measured(again))
    if how != "a folder":
        assert read_similarities(path, 40).keys() == own.measured.keys()


def test_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_similarities(path, {"8 bits": torch.ones(2)})
    monkeypatch.setattr("lit_xai.retention.cache.VERSION", 2)
    with pytest.raises(ValueError, match="damaged or of another version"):
        read_similarities(path, 2)
    save_arrays(path, {"maps": torch.ones(2)}, compress=False)
    with pytest.raises(ValueError, match="expected arrays"):
        read_similarities(path, 2)


def test_a_second_run_measures_nothing_again(tmp_path, monkeypatch):
    def once(folder, **options):
        monitor = RetentionMonitor(dense(), on_error="raise", **{**FAST, **options})
        run(tmp_path / folder, monitor, val=DataLoader(data(50, 1), 16), epochs=1)
        return json.loads((tmp_path / folder / "retention" / "retention.json").read_text())["explainers"]

    first = once("a", cache=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 1
    assert not list(tmp_path.glob("a/**/retention-cache"))
    made = []
    monkeypatch.setattr("lit_xai.retention.reference.untrained_copy", lambda *args: made.append(args))
    assert once("b", cache=tmp_path / "kept") == first
    assert not made
    monkeypatch.undo()
    assert once("c", cache=False) == first
    assert not list((tmp_path / "c").rglob("*cache*"))
    once("d")
    assert len(list((tmp_path / "d" / "retention-cache").glob("*.npz"))) == 1


def dense():
    torch.manual_seed(3)
    return Module()
