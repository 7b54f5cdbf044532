"""Tests of pictures: which samples stand in them, and what they say."""

import numpy as np
import torch

from lit_xai.report.explaining import Maps
from lit_xai.report.pictures import Look, galleries, one_picture
from lit_xai.report.record import Candidate, Explained, Record


def made(n=40, classes=3, task="classes"):
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(n, classes)), rng.normal(size=(n, classes))
    similarity = rng.uniform(-1, 1, n)
    explained = Explained("Occlusion", np.arange(n), {"int8": similarity}, np.zeros((3, n)))
    labels = before.argmax(1) if task == "classes" else before
    record = Record((Candidate("dense", before), Candidate("int8", after)), task, labels, explained=(explained,))
    images = torch.rand(n, 1, 8, 8)
    by_network = {name: {"input": torch.randn(n, 1, 8, 8)} for name in ("dense", "int8")}
    return record, Maps("Occlusion", "black", range(n), images, by_network, {"int8": torch.from_numpy(similarity)})


def test_the_galleries_hold_all_flips_there_is_room_for_and_no_sample_twice():
    record, maps = made()
    flipped, changed = galleries(record, maps, record.n, lambda places: Maps("", "", places, None, {}, {}))
    before, after = record.reference.outputs.argmax(1), record.candidate.outputs.argmax(1)
    all_flipped = set(np.flatnonzero(before != after))
    assert set(flipped.maps.places) <= all_flipped
    assert len(flipped.maps.places) == 8
    assert f"8 of {len(all_flipped)} predictions that changed" in flipped.caption
    assert not set(changed.rows) & all_flipped
    kept = sorted(set(range(40)) - all_flipped, key=lambda row: maps.similarity["int8"][row])
    assert list(changed.rows) == kept[:8]


def test_flips_beyond_the_samples_at_hand_are_not_looked_for():
    record, maps = made()
    flipped, _ = galleries(record, maps, 10, lambda places: Maps("", "", places, None, {}, {}))
    assert max(flipped.maps.places) < 10


def test_values_change_without_flipping():
    record, maps = made(task="values")
    moved, changed = galleries(record, maps, record.n, lambda places: Maps("", "", places, None, {}, {}))
    distance = np.abs(record.candidate.outputs - record.reference.outputs).mean(1)
    assert moved.maps.places == np.argsort(-distance)[:8].tolist()
    assert len(changed.rows) == 8


def test_the_one_picture_says_what_it_shows_and_what_not():
    record, maps = made()
    picture = one_picture(record, maps, Look())
    assert "baseline of black" in picture["caption"]
    assert "dense, int8" in picture["alt"]
    assert "png" not in one_picture(record, maps, Look("none"))
    assert "No explanations" in one_picture(record, None, Look())["caption"]
    broken = Maps(
        "", "", maps.places, maps.inputs, {name: {"input": torch.zeros(40, 0)} for name in ("dense", "int8")}, {}
    )
    assert "Nothing can be drawn" in one_picture(record, broken, Look())["caption"]
