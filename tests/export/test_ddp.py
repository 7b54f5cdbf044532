"""Of two processes one exports, on all of the data, and both refuse what it refuses."""

from pathlib import Path

import pytest
import torch
from processes import run_script

pytestmark = pytest.mark.slow  # starts processes; pruning, quantization and attribution keep theirs in the quick tests

SCRIPT = str(Path(__file__).with_name("ddp_export.py"))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    run_script(SCRIPT, folder)
    return folder, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_one_process_exports_and_compares_on_every_sample_once(found):
    folder, (first, second) = found
    assert (first["samples"], second["samples"]) == (41, None)
    assert {"model.onnx", "model.int8.onnx", "infer.py"} <= {file.name for file in (folder / "export").iterdir()}


def test_both_hold_the_same_weights_in_the_end(found):
    first, second = (one["weights"] for one in found[1])
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_both_refuse_a_folder_that_is_taken(found):
    for one in found[1]:
        assert one["refused"].startswith("ModelExport: dirpath expected a folder without an earlier export, but ")
