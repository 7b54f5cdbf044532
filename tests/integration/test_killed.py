"""Texts and series in one run of everything, which is killed amid an epoch after a cut and ends as if it was not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_xai.export.parity import OnnxPredictor

SCRIPT = Path(__file__).with_name("everything_run.py")
POINTS = ["2:4", "4:4"]
"""Between two cuts, and trained for integers."""


def run(folder, kind, *point):
    command = [sys.executable, str(SCRIPT), str(folder), kind, *point]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


@pytest.fixture(scope="module", params=["text", "bert", "series"])
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, request.param)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, folder


def same(folder, other):
    found, expected = (torch.load(one / "end.pt") for one in (folder, other))
    assert found["weights"].keys() == expected["weights"].keys()
    for name, value in expected["weights"].items():
        assert torch.equal(found["weights"][name], value), name
    assert torch.equal(found["rng"], expected["rng"])


@pytest.mark.slow
@pytest.mark.timeout(1200)  # three runs of everything, a minute each where nothing else runs
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_in_the_same_weights(whole, point, tmp_path):
    kind, expected = whole
    killed = run(tmp_path, kind, point)
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert not (tmp_path / "end.pt").exists()
    recipe = torch.load(tmp_path / "last.ckpt", weights_only=True)["lit_xai_recipe"]
    assert "prune" in [step["kind"] for step in recipe["steps"]]
    resumed = run(tmp_path, kind)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    same(tmp_path, expected)
    # What explains and what is exported is there as well.
    for folder in (tmp_path, expected):
        assert list(folder.rglob("attribution/**/epoch=4/figure.png"))
        assert list(folder.rglob("retention/**/*.png"))
        for name in ("model.onnx", "model.int8.onnx"):
            (file,) = folder.rglob(name)
            OnnxPredictor(file)
