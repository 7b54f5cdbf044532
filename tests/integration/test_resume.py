"""A pruned, or quantised, run that is killed with SIGKILL and resumed ends in the very weights of one that was not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("pruned_run.py")


def run(folder, point, how):
    save_at, quantizes, partial = how
    environment = os.environ | {"SAVE_AT": save_at, "OMP_NUM_THREADS": "1"}
    environment |= {"THEN_QUANTIZE": str(int(quantizes)), "PARTIAL": str(int(partial))}
    command = [sys.executable, str(SCRIPT), str(folder), point]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


RUNS = {
    "train": ("train", False, False),
    "validation": ("validation", False, False),
    "quantized": ("train", True, False),
    "partial": ("train", False, True),
}
POINTS = {
    "train": ["train:3:2", "prune:2", "save:2"],
    "validation": ["train:3:2", "prune:2", "save:2"],
    "quantized": ["prune:3", "save:3"],  # where quantisation begins
    "partial": ["train:3:2", "prune:2"],  # a shuffle keeps half of the layers whole
}
QUICK = {("quantized", "save:3")}  # half a minute each
CELLS = [
    pytest.param(run, point, marks=[] if (run, point) in QUICK else [pytest.mark.slow])
    for run, points in POINTS.items()
    for point in points
]


@pytest.fixture(scope="module")
def uninterrupted(request, tmp_path_factory):
    folder, how = tmp_path_factory.mktemp("whole"), RUNS[request.param]
    done = run(folder, "whole", how)
    assert done.returncode == 0, done.stderr[-3000:]
    return how, torch.load(folder / "end.pt")


def check(uninterrupted, point, folder):
    how, expected = uninterrupted
    killed = run(folder, point, how)
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert not (folder / "end.pt").exists()
    resumed = run(folder, "whole", how)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    found = torch.load(folder / "end.pt")
    assert found["weights"].keys() == expected["weights"].keys()
    for name, value in expected["weights"].items():
        assert torch.equal(found["weights"][name], value), name
    assert torch.equal(found["rng"], expected["rng"])


@pytest.mark.parametrize(("uninterrupted", "point"), CELLS, indirect=["uninterrupted"])
def test_killed_at_a_forced_point(uninterrupted, point, tmp_path):
    check(uninterrupted, point, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("uninterrupted", RUNS, indirect=True)
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_a_random_point(uninterrupted, seed, tmp_path):
    check(uninterrupted, f"random:{seed}", tmp_path)
