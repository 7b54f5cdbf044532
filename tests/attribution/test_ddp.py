"""Two processes attribute their shares of the probe; one figure comes out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lit_xai.functional import attribute


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ddp")
    script = Path(__file__).with_name("ddp_monitor.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run([*command, str(found)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
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


def test_failure_of_one_process_leaves_none_waiting(folder):
    assert (folder / "broken" / "weights.pt").exists()
    assert not list((folder / "broken").rglob("attributions.npz"))
