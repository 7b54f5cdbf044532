"""A recommender in one run of everything, which is killed amid an epoch after a cut and ends as if it was not."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from lit_xai.export.parity import OnnxPredictor

pytestmark = pytest.mark.timeout(1200)  # up to three runs of everything

SCRIPT = Path(__file__).with_name("recommender_run.py")
POINTS = ["2:4", "3:5"]
"""Amid the epoch of the second cut, and amid one that trains for integers."""


def run(folder, *point):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), *point]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_in_the_same_weights(whole, point, tmp_path):
    killed = run(tmp_path, point)
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert not (tmp_path / "end.pt").exists()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert "prune" in [step["kind"] for step in saved["lit_xai_recipe"]["steps"]]
    resumed = run(tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    found, expected = (torch.load(folder / "end.pt") for folder in (tmp_path, whole))
    assert found["weights"].keys() == expected["weights"].keys()
    for name, value in expected["weights"].items():
        assert torch.equal(found["weights"][name], value), name
    assert torch.equal(found["rng"], expected["rng"])
    # What is recommended is still held against the dense model from before the kill.
    assert overlaps(tmp_path)[-1] == overlaps(whole)[-1]


def overlaps(folder):
    with (folder / "log" / "metrics.csv").open() as file:
        return [row["ranking/overlap"] for row in csv.DictReader(file) if row.get("ranking/overlap")]


@pytest.mark.slow
def test_all_that_explains_and_all_that_is_written_is_there(whole):
    assert overlaps(whole)
    (header,) = list(csv.reader((whole / "log" / "metrics.csv").read_text().splitlines()))[:1]
    names = {"val/ndcg", "val/ndcg_biases", "ranking/overlap", "retention/similarity/IntegratedGradients"}
    assert names <= set(header)
    for name in ("history", "seen", "genres"):
        assert list(whole.rglob(f"attribution/**/epoch=3/figure-{name}.png"))
    for pattern in ("ranking/epoch=3.png", "retention/**/*.png", "report.html"):
        assert list(whole.rglob(pattern)), pattern
    for name in ("model.onnx", "model.int8.onnx"):
        (file,) = whole.rglob(name)
        OnnxPredictor(file)
    stored = onnx.load(file).graph.initializer
    tables = {(40, 8), (60, 8), (40, 1), (60, 1)}  # of users and items, half as wide as they were
    assert tables <= {tuple(one.dims) for one in stored if one.data_type == onnx.TensorProto.INT8}
