"""Two processes end with the weights, adapters included, of one process that sees the same batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = str(Path(__file__).with_name("ddp_distillation.py"))
SETTINGS = ["adapters", "explained", "ema", "dense", "cached"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ddp")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", SCRIPT]
    for command in (two, [sys.executable, SCRIPT]):
        done = subprocess.run([*command, str(found)], capture_output=True, text=True, timeout=250, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_both_processes_hold_the_same_weights(setting, folder):
    first, second = (torch.load(folder / f"{setting}-2-{rank}.pt")["weights"] for rank in (0, 1))
    assert any(name.startswith("adapter") for name in first[-1]) == (setting in ("adapters", "dense"))
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("setting", SETTINGS)
def test_one_process_comes_to_the_same(setting, folder):
    two, one = (torch.load(folder / f"{setting}-{n}-0.pt")["weights"] for n in (2, 1))
    for found, expected in zip(two, one, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
