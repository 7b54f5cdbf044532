from hashlib import sha256

import pytest

from lit_xai.data.local_files import find_folder, require_files

SOURCE = "the archive is at example.org"


def test_the_folder_may_be_named_itself_and_from_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        find_folder("~/data", "own") == find_folder(str(tmp_path / "data" / "own"), "own") == tmp_path / "data" / "own"
    )


def test_what_is_missing_is_named_with_its_folder_and_where_to_get_it(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a")
    sums = {"a.txt": sha256(b"a").hexdigest(), "b.txt": "0"}
    with pytest.raises(FileNotFoundError) as info:
        require_files("Letters", tmp_path, sums, SOURCE)
    assert str(info.value) == (
        f"Letters misses b.txt in the folder '{tmp_path}': put the files there ({SOURCE}), or set data_dir to another"
        " folder."
    )
    (tmp_path / "b.txt").mkdir()  # not a file
    with pytest.raises(FileNotFoundError, match=r"misses b\.txt"):
        require_files("Letters", tmp_path, sums, SOURCE)


def test_another_file_under_the_name_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"b")
    expected = sha256(b"a").hexdigest()
    with pytest.raises(ValueError, match=rf"a\.txt' is not the published file: its SHA-256 expected {expected}, but"):
        require_files("Letters", tmp_path, {"a.txt": expected}, SOURCE)
    (tmp_path / "a.txt").write_bytes(b"a")
    require_files("Letters", tmp_path, {"a.txt": expected}, SOURCE)
