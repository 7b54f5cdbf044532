"""Nothing that a RetentionMonitor writes or logs tells of samples that must not be shown."""

import pytest
import torch
from attribution.test_samples_shown import fit
from planted import Secretive, arrays_and_pictures, holds_planted, samples

from lit_xai import RetentionMonitor

SHAPES = {"images": (1, 8, 8), "series": (2, 20), "table": (6,)}
QUICK = {"n": 36, "nulls": 2, "ladder": (8,), "second_explainer": None, "time_share": 1e9, "time_budget": 1e9}


def run(folder, kind, seed=0, **options):
    shape = SHAPES[kind]
    network = Secretive(int(torch.tensor(shape).prod()))
    monitor = RetentionMonitor(explainer="Saliency", cache=False, **QUICK, **options)
    return fit(folder, network, samples(shape, seed=seed), monitor)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("shown", ["maps_only", "none"])
def test_no_file_or_event_tells_of_the_inputs(kind, shown, tmp_path):
    first, second = (run(tmp_path / name, kind, seed, samples=shown) for seed, name in enumerate("ab"))
    files = [path for path in first.rglob("*") if path.is_file()]
    assert {"retention.json", "samples.csv", "samples.npz", "last.ckpt"} <= {path.name for path in files}
    assert [path for path in files if holds_planted(path)] == []
    own, other = map(arrays_and_pictures, (first, second))
    assert own == other
    assert any("maps Saliency" in name for name in own) == (shown == "maps_only")
    assert any(name.endswith(".png") for name in own) == (shown == "maps_only")
    assert any("retention/maps" in name for name in own) == (shown == "maps_only")


def test_what_is_shown_differs(tmp_path):
    first, second = (arrays_and_pictures(run(tmp_path / name, "images", seed)) for seed, name in enumerate("ab"))
    pictures = [name for name in first if name.endswith(".png")]
    assert pictures
    assert all(first[name] != second[name] for name in pictures)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="samples expected one of show, maps_only, none, but got 'nothing'"):
        RetentionMonitor(samples="nothing")
