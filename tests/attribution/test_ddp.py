"""Two processes attribute their shares of the probe; one figure comes out."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_script
from torch import nn

from lit_xai.functional import attribute


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ddp")
    run_script(Path(__file__).with_name("ddp_monitor.py"), found)
    return found


def test_shares_make_the_whole(folder):
    files = sorted((folder / "whole").rglob("attributions.npz"))
    assert len(files) == len(list((folder / "whole").rglob("figure.png"))) == 2
    found = np.load(files[-1])
    probe = np.load(next((folder / "whole").rglob("probe-train-*.npz")))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network.load_state_dict({k.removeprefix("net."): v for k, v in torch.load(folder / "whole" / "weights.pt").items()})
    x, y = torch.from_numpy(probe["inputs"]), torch.from_numpy(probe["labels"])
    assert found["attributions"].shape == (5, 1, 8, 8)  # an odd number over two processes
    torch.testing.assert_close(torch.from_numpy(found["attributions"]), attribute(network, x, target=y))
    np.testing.assert_allclose(found["logits"], network(x).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(("part", "n"), [("whole", 5), ("fewer", 1)])
def test_metrics_are_those_of_all_samples_each_counted_once(folder, part, n):
    logged = list(csv.DictReader((folder / part / "metrics.csv").read_text().splitlines()))
    rows = [row for row in logged if row.get("attribution/IntegratedGradients/Total/total")]
    files = sorted((folder / part).rglob("attributions.npz"))
    assert len(rows) == len(files) == 2
    probe = np.load(next((folder / part).rglob("probe-train-*.npz")))
    for row, file in zip(rows, files, strict=True):
        numbers = {key.rpartition("/")[2]: float(value) for key, value in row.items() if "/Total/" in key}
        assert numbers["samples"] == n
        assert numbers["total"] == pytest.approx(np.abs(np.load(file)["attributions"]).sum(), rel=1e-5)
        assert numbers["pixels"] == pytest.approx(probe["inputs"][:, 0, 0, 0].sum(), abs=1e-5)
        # It fails on the second process, which in the other run has nothing to measure.
        assert any("BrokenMetric" in key for key in row) == (n == 1)


def test_failure_of_one_process_leaves_none_waiting(folder):
    assert (folder / "broken" / "weights.pt").exists()
    assert not list((folder / "broken").rglob("attributions.npz"))
