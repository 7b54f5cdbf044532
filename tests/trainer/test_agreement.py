"""If set-up work fails in one of two processes, both end with a sentence about it, and none waits for the other."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from processes import run_script

from lit_xai.trainer.agreement import agreed

SCRIPT = str(Path(__file__).with_name("ddp_agreement.py"))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    run_script(SCRIPT, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


REASONS = {"network": "this process has no luck", "data": "this process sees no disk", "teacher": "has no teacher"}
CASES = [
    *("pruning, network, 0", "export, network, 0", "quantization, network, 1", "monitor, network, 1"),
    *("pruning, data, 1", "export, data, 1", "quantization, data, 0", "monitor, data, 0", "distillation, teacher, 1"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_end_with_its_reason(found, name):
    for one in found:
        refused, seconds = one[name]
        assert REASONS[name.split(", ")[1]] in refused
        assert seconds < 30


@pytest.mark.slow
def test_both_name_the_process_that_failed(found):
    failed, other = (one["quantization, data, 0"][0] for one in found)
    assert failed.startswith("OSError: this process")
    assert other.startswith("ValueError: The probe: process 0 of 2 failed. OSError: this process sees no disk")


@pytest.mark.slow
def test_what_is_whole_goes_on(found):
    assert [one["whole"][0] for one in found] == ["", ""]


def test_of_one_process_its_own_error_is_raised():
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    assert agreed(trainer, "x", lambda: [1]) == [1]
    with pytest.raises(KeyError, match="here"):
        agreed(trainer, "x", lambda: {}["here"])
