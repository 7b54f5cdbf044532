"""A run that is killed and resumed ends, bit for bit, where the uninterrupted one does."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_xai.structure.checkpoints import newest_whole_checkpoint, read_checkpoint
from lit_xai.trainer.random_states import random_states, restore_random_states_

KILLS = ("training", "prune", "save")


def draws():
    return random.gauss(0, 1), np.random.randn(3).tolist(), np.random.rand(), torch.rand(3).tolist()


def test_states_come_back_from_a_checkpoint(tmp_path):
    draws()  # Gaussians come in pairs: the second is part of the state
    torch.save(random_states(), tmp_path / "states.pt")
    first = draws()
    assert draws() != first
    restore_random_states_(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == first


def run(*jobs):
    script = Path(__file__).with_name("kill_and_resume.py")
    command = [sys.executable, str(script), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


def assert_same_end(folder, whole, names=("final.pt", "rest.pt")):
    for name in names:
        found, expected = torch.load(folder / name), torch.load(whole / name)
        found, expected = (list(d.values()) if isinstance(d, dict) else d for d in (found, expected))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (folder.name, name)


def check(tmp_path, **options):
    whole = tmp_path / "whole"
    run({"folder": str(whole), **options}, *({"folder": str(tmp_path / k), "when": k, **options} for k in KILLS))
    assert torch.load(whole / "final.pt")["network.0.weight"].shape[0] == 4
    assert len(list(whole.rglob("best/*-dense.ckpt"))) == 1
    assert [len(list((tmp_path / kill).glob("*.ckpt"))) for kill in KILLS] == [3, 2, 3]
    assert not list(tmp_path.rglob("[tps]*/final.pt"))
    # The newest file torn, as a disk without atomic renames may leave it.
    shutil.copytree(tmp_path / "training", tmp_path / "torn")
    newest = tmp_path / "torn" / "epoch=2.ckpt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    run(*({"folder": str(tmp_path / name), **options} for name in (*KILLS, "torn")))
    for name in (*KILLS, "torn"):
        assert_same_end(tmp_path / name, whole)


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(tmp_path):
    check(tmp_path)


@pytest.mark.slow  # integration/test_resume.py kills runs as well
def test_killed_and_resumed_is_bit_identical_with_checkpoints_of_validation(tmp_path):
    check(tmp_path, at_validation=True)


@pytest.mark.slow
@pytest.mark.parametrize("at_validation", [False, True])
def test_killed_and_resumed_is_bit_identical_with_loader_processes(tmp_path, at_validation):
    check(tmp_path, at_validation=at_validation, workers=2)


@pytest.mark.slow
def test_killed_at_any_time_is_bit_identical(tmp_path):
    shares = np.random.default_rng(0).uniform(0.1, 1.0, size=20).tolist()
    killed = [{"folder": str(tmp_path / str(i)), "share": share} for i, share in enumerate(shares)]
    run({"folder": str(tmp_path / "whole")}, *killed)
    assert sum(not (Path(job["folder"]) / "final.pt").exists() for job in killed) > 10
    run(*({"folder": job["folder"]} for job in killed))
    for job in killed:
        # Killed after its last checkpoint, a run has nothing left to train, and no metrics.
        assert_same_end(Path(job["folder"]), tmp_path / "whole", ["final.pt"])


# --- damaged files ----------------------------------------------------------------------------------------------------


def damaged(file, how):
    content = bytearray(file.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:
        place = content.find(torch.full((64,), 0.5).numpy().tobytes())
        content[place + 9] ^= 0xFF
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["truncated", "empty", "one byte"])
def test_newest_whole_checkpoint(tmp_path, how):
    assert newest_whole_checkpoint(tmp_path) is None
    for second, name in enumerate("cab"):
        torch.save({"state_dict": {"weight": torch.full((64,), 0.5)}}, tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (second, second))
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "b.ckpt"
    damaged(tmp_path / "b.ckpt", how)
    (tmp_path / "last.ckpt").symlink_to("b.ckpt")
    (tmp_path / "notes.txt").write_text("newer, but no checkpoint")
    assert newest_whole_checkpoint(tmp_path / "b.ckpt") == tmp_path / "a.ckpt"
    if how != "one byte":
        message = (
            r"'.*b.ckpt' is damaged, or no checkpoint .*The newest whole checkpoint in that folder is '.*a.ckpt'\."
        )
        with pytest.raises(ValueError, match=message):
            read_checkpoint(str(tmp_path / "b.ckpt"))
