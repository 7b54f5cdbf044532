"""Two processes quantize alike, although each observes other batches."""

import json
from pathlib import Path

import pytest
import torch
from processes import run_script

SCRIPT = str(Path(__file__).with_name("ddp_quantization.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ddp")
    run_script(SCRIPT, found)
    return found


@pytest.mark.parametrize("broadcast", [True, False], ids=["buffers broadcast", "buffers left alone"])
def test_both_processes_hold_the_same_scales(folder, broadcast):
    first, second = (torch.load(folder / f"{broadcast}-{rank}.pt") for rank in (0, 1))
    assert len(first) == 4
    for one, other in zip(first[1:], second[1:], strict=True):
        assert one.keys() == other.keys()
        scales = [name for name in one if name.endswith(("scale", "zero_point", "min_val", "max_val"))]
        assert len(scales) == 6 * 4 - 4
        for name, value in one.items():
            # DDP leaves each process its own statistics of BatchNorms where it does not broadcast buffers.
            if broadcast or ".running_" not in name:
                assert torch.equal(value, other[name]), name
    assert all(torch.equal(value, second[3][name]) for name, value in first[3].items())  # frozen: agreed on
    moved = [name for name in first[1] if not torch.equal(first[1][name], first[2][name])]
    assert any(name.endswith("input.scale") for name in moved)
    frozen = [name for name in first[2] if "input" in name and name.endswith(("val", "scale"))]
    assert all(torch.equal(first[2][name], first[3][name]) for name in frozen)


@pytest.mark.slow
def test_synchronized_batch_norms_train_as_in_float(tmp_path):
    run_script(Path(SCRIPT).with_name("ddp_norms.py"), tmp_path, timeout=900)
    first, second = (json.loads((tmp_path / f"norms-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second  # accuracies are synchronized, and so are the statistics
    assert first["float"]["accuracy"] > 0.95
    for start in ("0.25", "0.7"):
        assert first[start]["accuracy"] >= first["float"]["accuracy"] - 0.01
