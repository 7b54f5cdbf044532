"""A monitored run is, bit for bit, the run without the monitor."""

import json
from functools import cache
from pathlib import Path

import pytest
from callbacks_settings import METHODS, SETTINGS, fit, monitor
from processes import run_script

# Dynamo reads the gradient of every tensor, and would take the warning as an error for a failure to compile.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@cache
def unmonitored(setting: str, folder: Path):
    return fit(setting, None, folder)


@pytest.fixture(scope="module")
def baseline_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unmonitored")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting != "ddp"])
def test_run_is_bit_identical(setting, method, tmp_path, baseline_folder):
    with_monitor = fit(setting, monitor(method), tmp_path)
    without = unmonitored(setting, baseline_folder)
    assert len(without["losses"]) == 8
    assert with_monitor == without


def test_witness_sees_a_careless_observer(tmp_path, baseline_folder):
    import torch

    careless = monitor("IntegratedGradients")
    original = careless.on_train_epoch_end

    def careless_hook(trainer, pl_module):
        original(trainer, pl_module)
        torch.rand(1)

    careless.on_train_epoch_end = careless_hook
    assert fit("plain", careless, tmp_path) != unmonitored("plain", baseline_folder)


@pytest.mark.slow  # test_ddp.py trains on two processes as well
def test_two_processes(tmp_path):
    run_script(Path(__file__).with_name("ddp_side_effects.py"), tmp_path)
    for rank in (0, 1):
        seen = json.loads((tmp_path / f"seen-{rank}.json").read_text())
        without = seen.pop("none")
        assert len(without["losses"]) == 8
        assert {method: found == without for method, found in seen.items()} == dict.fromkeys(METHODS, True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # Inductor's own import
@pytest.mark.parametrize("method", METHODS)
def test_inductor(method, tmp_path):
    assert fit("compiled", monitor(method), tmp_path, "inductor") == fit("compiled", None, tmp_path, "inductor")
