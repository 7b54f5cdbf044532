"""What a cell leaves behind, and what of it is believed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_xai.cli.cell_runs import CellError, CellRun, cell_config, fitted, read_epochs, read_validation, write_config
from lit_xai.cli.config_files import read_config
from lit_xai.cli.configs import find_study
from lit_xai.cli.studying import read_study

EPOCH = {"epoch": 0, "of": 2, "checkpoint": "last.ckpt", "metrics": {"val/loss": 0.5, "val/x": None}}


def test_a_line_that_was_cut_off_or_is_none_is_left_out(tmp_path):
    assert read_epochs(tmp_path) == []
    lines = [json.dumps(EPOCH), "{}", '{"epoch": 1', json.dumps({**EPOCH, "epoch": 1})]
    (tmp_path / "epochs.jsonl").write_text("\n".join(lines)[:-3])
    assert [one["epoch"] for one in read_epochs(tmp_path)] == [0]


@pytest.mark.parametrize("text", ["[]", '{"val/loss": "low"}', "{"])
def test_metrics_of_another_kind_are_refused(tmp_path, text):
    (tmp_path / "validation.json").write_text(text)
    with pytest.raises(ValueError, match=r"validation\.json"):
        read_validation(tmp_path)


def test_a_cell_that_was_trained_is_not_trained_again(tmp_path):
    (tmp_path / "fitted.json").write_text('{"checkpoint": "checkpoints/best.ckpt"}')
    settings = read_study(find_study("pruned_digits"))
    assert CellRun(tmp_path, settings).fit() == fitted(tmp_path) == tmp_path / "checkpoints" / "best.ckpt"


def test_a_cell_has_its_log_and_checkpoints_in_its_folder_whatever_the_configuration_says(tmp_path):
    config = {"model": {"class_path": "x.Y"}, "trainer": {"logger": False, "devices": 4}, "x": 1}
    config["trainer"]["callbacks"] = [{"class_path": "lit_xai.callbacks.ModelReport"}]  # reads the test samples
    write_config(cell_config(config, tmp_path), tmp_path)
    found = read_config(tmp_path / "cell.yaml")
    assert (found["trainer"]["devices"], found["ckpt_path"], found["x"]) == (1, None, 1)
    assert found["trainer"]["logger"]["init_args"]["save_dir"] == str(tmp_path)
    (callback,) = found["trainer"]["callbacks"]
    assert callback == {"class_path": "lit_xai.cli.cell.CellCheckpoint", "init_args": {"dirpath": str(tmp_path)}}


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    # Its lock is held by this test: it waits, as a run that trains for hours would.
    from filelock import FileLock

    given = {"folder": str(tmp_path), "dirpath": ".", "reference": None, "objectives": [], "compare": {}}
    with FileLock(tmp_path / ".lock"):
        command = [sys.executable, "-m", "lit_xai.cli.child"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])
        child.stdin.write(json.dumps({**given, "stages": ["fit"]}).encode() + b"\n")
        child.stdin.flush()
        time.sleep(0.1)
        assert child.poll() is None
        child.stdin.close()  # as the end of this process would
        assert child.wait(timeout=120) == 1


@pytest.mark.slow
def test_what_a_command_says_is_why_a_cell_failed(tmp_path):
    (tmp_path / "cell.yaml").write_text("model: {class_path: nothing.Of}\n")
    with pytest.raises(CellError, match="No module named 'nothing'"):
        CellRun(tmp_path, read_study(find_study("pruned_digits"))).fit()


def test_a_study_by_name_and_one_that_there_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_study(find_study("pruned_digits")).dirpath == "pruned_digits"
    with pytest.raises(ValueError, match=r"there is no study 'prunned_digits'.*Did you mean 'pruned_digits'"):
        find_study("prunned_digits")
    Path("pruned_digits.yaml").write_text("configs: 3")
    assert find_study("pruned_digits") == Path("pruned_digits.yaml")


@pytest.mark.parametrize("text", ["1e-3", "1.e-3", "+1E3", "0.001", "1_0.5"])
def test_numbers_are_those_of_the_command_line(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"a: {text}\nb: e3\n")
    assert isinstance(read_config(tmp_path / "a.yaml")["a"], float)
    assert read_config(tmp_path / "a.yaml")["b"] == "e3"
