"""Two processes prune the same channels, and train on as one process with the same batches does."""

from pathlib import Path

import pytest
import torch
from processes import run_script

SCRIPT = str(Path(__file__).with_name("ddp_pruning.py"))
IMPORTANCES = ["GroupMagnitudeImportance", "GroupTaylorImportance", "RandomImportance"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ddp")
    for processes in (2, 1):
        run_script(SCRIPT, found, *IMPORTANCES, processes=processes)
    return found


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_both_processes_hold_the_same_weights(folder, importance):
    first, second = (torch.load(folder / f"{importance}-2-{rank}.pt") for rank in (0, 1))
    assert first[0]["net.1.weight"].shape[0] == 32
    assert first[-1]["net.1.weight"].shape[0] == 16
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_one_process_comes_to_the_same(folder):
    two, one = (torch.load(folder / f"GroupMagnitudeImportance-{n}-0.pt") for n in (2, 1))
    for of_two, of_one in zip(two, one, strict=True):
        for name, value in of_one.items():
            torch.testing.assert_close(of_two[name], value, rtol=1e-4, atol=1e-6)
