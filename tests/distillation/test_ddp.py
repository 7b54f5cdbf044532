"""Two processes end with the weights, adapters included, of one process that sees the same batches."""

from pathlib import Path

import pytest
import torch
from processes import run_script

pytestmark = pytest.mark.slow  # starts processes; pruning, quantization and attribution keep theirs in the quick tests

SCRIPT = str(Path(__file__).with_name("ddp_distillation.py"))
SETTINGS = ["adapters", "explained", "ema", "dense", "cached"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ddp")
    for processes in (2, 1):
        run_script(SCRIPT, found, processes=processes)
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
