"""An export is the old one or the new one whenever somebody looks, and replaces nothing by accident."""

import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.export import export_model, swap
from lit_xai.export.folder import FILES, check_folder, staged

LOCK = ".export.lock"


def contents(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}


def write(folder, text, *names, overwrite=True):
    with staged(folder, overwrite) as temporary:
        for name in names:
            (temporary / name).write_text(text)


@pytest.fixture(params=["swapped", "moved"])
def folder(request, tmp_path, monkeypatch):
    """A folder's path, whose files are exchanged in one step or moved one by one."""
    if request.param == "moved":
        monkeypatch.setattr(swap, "_exchange", lambda *_: False)
    return tmp_path / "export"


def test_files_appear_at_the_end(folder):
    folder = folder.parent / "a" / "b" / "export"
    with staged(folder) as temporary:
        (temporary / "model.onnx").write_text("new")
        assert not [*folder.iterdir()]
    assert contents(folder) == {"model.onnx": "new"}
    assert sorted(os.listdir(folder.parent)) == [LOCK, "export"]
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(error, folder):
    folder.mkdir()
    (folder / "model.onnx").write_text("old")
    (folder / "notes.txt").write_text("mine")

    def broken(folder):
        with staged(folder) as temporary:
            (temporary / "model.onnx").write_text("new")
            raise error

    with pytest.raises(error):
        broken(folder)
    assert contents(folder) == {"model.onnx": "old", "notes.txt": "mine"}
    assert sorted(os.listdir(folder.parent)) == [LOCK, "export"]
    with pytest.raises(error):
        broken(folder.parent / "a" / "b")
    assert not (folder.parent / "a").exists()


def test_files_of_an_earlier_export_go_and_others_stay(folder):
    folder.mkdir()
    for name in (*FILES, "notes.txt"):
        (folder / name).write_text("old")
    (folder / "link").symlink_to("notes.txt")
    (folder / "__pycache__").mkdir()  # of the old infer.py
    with staged(folder) as temporary:
        (temporary / "model.onnx").write_text("new")
        (folder / "late.txt").write_text("mine")
    with contextlib.suppress(FileNotFoundError):
        (folder / "__pycache__").rmdir()
    assert contents(folder) == {"model.onnx": "new", "notes.txt": "old", "link": "old", "late.txt": "mine"}
    assert (folder / "link").is_symlink()


def test_folders_in_the_folder_stay(folder):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("mine")
    write(folder, "old", "model.onnx", "infer.py")
    write(folder, "new", "model.onnx")
    assert (folder / "checkpoints" / "last.ckpt").read_text() == "mine"
    assert (folder / "model.onnx").read_text() == "new"
    assert sorted(os.listdir(folder)) == ["checkpoints", "model.onnx"]


def test_the_working_directory_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    write(Path("."), "new", "model.onnx")
    assert (os.stat(".").st_ino, tmp_path.stat().st_ino) == (before, before)
    assert Path("model.onnx").read_text() == "new"


def test_a_link_to_a_folder_stays_one(folder):
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to("elsewhere")
    write(folder, "new", "model.onnx")
    assert folder.is_symlink()
    assert contents(folder.parent / "elsewhere") == {"model.onnx": "new"}


OLD, NEW = ("model.onnx", "model.int8.onnx", "infer.py", "report.md"), ("model.onnx", "infer.py", "report.json")
WHOLE = [dict.fromkeys(OLD, "old"), dict.fromkeys(NEW, "new")]


@pytest.mark.parametrize("folder", ["swapped"], indirect=True)
def test_killed_at_any_moment_it_is_the_old_or_the_new(folder):
    """In processes forked from one that has imported all, since that takes longer than an export."""
    died = 0
    for deadly in range(200):
        if killed(folder, deadly):
            died += 1
            assert contents(folder) in [{**whole, "notes.txt": "mine"} for whole in WHOLE], deadly
            write(folder, "next", "model.onnx")  # goes through, and clears up
            assert contents(folder) == {"model.onnx": "next", "notes.txt": "mine"}
            assert sorted(os.listdir(folder.parent)) == [LOCK, "export"]
        else:
            break
    assert died > 15


@pytest.mark.parametrize("folder", ["moved"], indirect=True)
def test_killed_at_any_moment_without_an_exchange_there_is_no_mix(folder):
    """And what was complete is completed by whoever exports next, who may then be refused."""
    outcomes = set()
    for deadly in range(200):
        if not killed(folder, deadly):
            break
        left = {name: text for name, text in contents(folder).items() if name != "notes.txt"}
        assert left == WHOLE[0] or {*left.values()} <= {"new"} or {*left} < {*OLD}, deadly
        outcomes.add("whole" if left in WHOLE else "incomplete")
        with refused("without an earlier export"), staged(folder, overwrite=False):
            pass
        assert {k: v for k, v in contents(folder).items() if k != "notes.txt"} in WHOLE, deadly
        assert sorted(os.listdir(folder.parent)) == [LOCK, "export"]
    assert outcomes == {"whole", "incomplete"}


def killed(folder, deadly):
    """Export over an old export, in a process that is killed at this call to the operating system."""
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for name in OLD:
        (folder / name).write_text("old")
    (folder / "notes.txt").write_text("mine")
    child = os.fork()
    if child == 0:
        calls = [0]

        def counted(function):
            def call(*args, **kwargs):
                if calls[0] == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls[0] += 1
                return function(*args, **kwargs)

            return call

        for name in ("rename", "replace", "link", "unlink", "rmdir", "fsync", "open", "chmod", "utime"):
            setattr(os, name, counted(getattr(os, name)))
        swap._exchange = counted(swap._exchange)
        write(folder, "new", *NEW)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status == signal.SIGKILL


def test_two_at_once(folder):
    """The second is refused while the first writes; each leaves its own files alone."""
    with staged(folder) as slow:
        (slow / "model.onnx").write_text("first")
        with refused("another process is exporting to", "wait until it has ended, or name another folder"):
            write(folder, "second", "model.onnx", "infer.py")
        (slow / "report.md").write_text("first")
    assert contents(folder) == {"model.onnx": "first", "report.md": "first"}
    with refused("without an earlier export"):
        write(folder, "second", "model.onnx", overwrite=False)
    write(folder, "second", "infer.py")
    assert contents(folder) == {"infer.py": "second"}


def test_who_is_refused_leaves_the_folder_that_the_other_has_not_filled_yet(folder, monkeypatch):
    from lit_xai.export import folder as module

    missing = module._missing

    def slow_look(path):  # at the folder, before the other one makes it
        found = missing(path)
        if not entered:
            entered.append(True)
            first.__enter__()
        return found

    entered, first = [], staged(folder)
    monkeypatch.setattr(module, "_missing", slow_look)
    with refused("another process is exporting to"):
        write(folder, "second", "model.onnx")
    assert folder.is_dir()
    first.__exit__(None, None, None)
    write(folder, "third", "model.onnx")
    assert contents(folder) == {"model.onnx": "third"}


def test_many_at_once_never_mix(folder):
    done = []

    def one(text):
        for _ in range(10):
            try:
                write(folder, text, "model.onnx", "infer.py", f"{'report.md' if text == 'a' else 'report.json'}")
            except ValueError as error:
                assert "another process is exporting" in str(error)  # noqa: PT017  # either is fine
            else:
                done.append(text)

    threads = [threading.Thread(target=one, args=(text,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*contents(folder).values()}) == 1
    assert len(contents(folder)) == 3
    assert done


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_full_disk_is_one_sentence_and_the_old_files_stay(code, folder, monkeypatch):
    write(folder, "old", *OLD)

    def full(*_):
        raise OSError(code, "No space left on device")

    with refused("expected a folder with room for the files", "No space left on device", "left as it was"):
        with staged(folder):
            full()
    monkeypatch.setattr(os, "fsync", full)  # found at the end alone
    with refused("expected a folder with room for the files", "left as it was"):
        write(folder, "new", *NEW)
    monkeypatch.undo()
    assert contents(folder) == WHOLE[0]
    assert sorted(os.listdir(folder.parent)) == [LOCK, "export"]


def test_an_error_of_the_users_own_files_is_theirs(folder):
    with pytest.raises(PermissionError, match="mine"), staged(folder):
        raise PermissionError(errno.EACCES, "mine")


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


def export(folder, source):
    loader = [(torch.rand(16, 4), torch.arange(16) % 3)]
    torch.manual_seed(len(source))
    export_model(nn.Linear(4, 3), loader, folder, source=source, program=False, overwrite=True, progress=False)


def manifest(folder):
    """Return where the weights are from, after every file was compared with its hash in the report."""
    report = json.loads((folder / "report.json").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del found["report.json"]
    assert found == {name: entry["sha256"] for name, entry in report["files"].items()}
    return report["source"].partition(";")[0]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, since an import takes longer than an export")
def test_twenty_kills_of_exports_over_an_earlier_one(tmp_path):
    folder, rng, seen = tmp_path / "export", random.Random(14), set()
    child = os.fork()
    if child == 0:
        export(folder, "first")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    seconds = 1.0
    for i in range(21):
        child, start = os.fork(), time.perf_counter()
        if child == 0:
            export(folder, f"number {i}")
            os._exit(0)
        if i:  # the first one tells how long it takes
            time.sleep(rng.uniform(0.5, 1.05) * seconds)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seconds = seconds if i else time.perf_counter() - start
        seen.add(manifest(folder))
    assert len(seen) > 1
    export(folder, "last")
    assert manifest(folder) == "last"
    assert sorted(os.listdir(tmp_path)) == [LOCK, "export"]
