"""An export is there whole or not at all, and replaces nothing by accident."""

import os
import signal
import subprocess
import sys

import pytest
from refusals import refused

from lit_xai.export.folder import FILES, check_folder, staged


def contents(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_files_appear_at_the_end(tmp_path):
    folder = tmp_path / "a" / "b"
    with staged(folder) as temporary:
        (temporary / "model.onnx").write_text("new")
        assert [file.name for file in folder.iterdir()] == [temporary.name]
    assert contents(folder) == {"model.onnx": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(error, tmp_path):
    (tmp_path / "model.onnx").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")

    def broken(folder):
        with staged(folder) as temporary:
            (temporary / "model.onnx").write_text("new")
            raise error

    with pytest.raises(error):
        broken(tmp_path)
    assert contents(tmp_path) == {"model.onnx": "old", "notes.txt": "mine"}
    with pytest.raises(error):
        broken(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_a_killed_run_leaves_no_file_of_an_export(tmp_path):
    (tmp_path / "model.onnx").write_text("old")
    program = (
        "import sys, time; from pathlib import Path; from lit_xai.export.folder import staged\n"
        "with staged(Path(sys.argv[1])) as t:\n"
        "    (t / 'model.onnx').write_text('new'); print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "written\n"
        run.send_signal(signal.SIGKILL)
    left, kept = sorted(os.listdir(tmp_path))
    assert left.startswith(".export-")
    assert (kept, (tmp_path / kept).read_text()) == ("model.onnx", "old")
    with staged(check_folder(tmp_path, overwrite=True)) as temporary:  # the next one goes through, and clears up
        (temporary / "model.onnx").write_text("new")
    assert contents(tmp_path) == {"model.onnx": "new"}


def test_files_of_an_earlier_export_go(tmp_path):
    for name in (*FILES, "notes.txt"):
        (tmp_path / name).write_text("old")
    with staged(tmp_path) as temporary:
        (temporary / "model.onnx").write_text("new")
    assert contents(tmp_path) == {"model.onnx": "new", "notes.txt": "old"}


def test_refusals(tmp_path):
    (tmp_path / "model.int8.onnx").write_text("old")
    with refused("dirpath expected a folder without an earlier export", "model.int8.onnx", "overwrite=True"):
        check_folder(tmp_path)
    assert check_folder(tmp_path, overwrite=True) == tmp_path
    with refused("dirpath expected a folder, but got the file"):
        check_folder(tmp_path / "model.int8.onnx")
    for wrong in (None, "", 3):
        with refused("dirpath expected a folder's path", repr(wrong)):
            check_folder(wrong)
    with refused("dirpath expected a folder that can be written to", "Not a directory"):
        with staged(tmp_path / "model.int8.onnx" / "deeper"):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with refused("dirpath expected a folder that can be written to", "Permission denied"):
        with staged(tmp_path):
            pass
