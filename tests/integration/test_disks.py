"""A disk that fills up or turns read-only ends no run: what was there stays whole, and a warning says what is not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def can_mount():
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_mount(), reason="needs a mount namespace of its own"),
]


def run(how, tmp_path):
    (tmp_path / "disk").mkdir()
    script = Path(__file__).with_name("disk_run.py")
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, script, tmp_path / "disk", how]
    done = subprocess.run([*command, tmp_path / "result"], capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "result").read_text())


@pytest.mark.parametrize("how", ["full later", "read-only later"])
def test_a_run_goes_on(how, tmp_path):
    found = run(how, tmp_path)
    assert found.get("epochs") == 3, found
    said = " ".join(found["warnings"])
    for part in ("could not be written, so the teacher's new outputs", "ModelExport: nothing was exported", "Saliency"):
        assert part in said, found
    assert found["arrays"] > 3
    assert found["cached"] > 100


@pytest.mark.parametrize("how", ["full from the start", "read-only from the start"])
def test_a_run_is_refused_before_its_first_step_in_one_sentence(how, tmp_path):
    found = run(how, tmp_path)
    assert "epochs" not in found, found
    assert "\n" not in found["error"]
    assert any(word in found["error"] for word in ("No space left", "Read-only file system")), found
