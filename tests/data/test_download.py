from hashlib import sha256

import pytest

from lit_xai.data.download import download

CONTENT = b"digits" * 50_000
CHECKSUM = sha256(CONTENT).hexdigest()


@pytest.fixture
def source(server):
    (server.folder / "file.bin").write_bytes(CONTENT)
    return f"{server.url}/file.bin"


def test_fetches_into_new_folders_with_a_progress_bar(source, tmp_path, capfd):
    path = tmp_path / "a" / "b" / "file.bin"
    download(source, path, CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]
    bar = capfd.readouterr().err
    assert "file.bin" in bar
    assert "100%" in bar


def test_a_wrong_checksum_is_refused_and_removed(source, tmp_path):
    path = tmp_path / "new" / "file.bin"
    with pytest.raises(
        ValueError, match=rf"{source} was refused and removed: its SHA-256 expected 00, but got {CHECKSUM}"
    ):
        download(source, path, "00")
    assert list(path.parent.iterdir()) == []


def test_a_wrong_checksum_leaves_the_file_that_was_there(source, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="refused"):
        download(source, path, "00")
    assert path.read_bytes() == b"old"


def test_a_truncated_file_is_refused_and_removed(server, source, tmp_path):
    server.short.add("file.bin")
    path = tmp_path / "new" / "file.bin"
    with pytest.raises(
        OSError, match=r"could not be downloaded to '.*file\.bin' \(.*300000.*\): try again, set url to another"
    ):
        download(source, path, CHECKSUM)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{server}/other.bin", "HTTP Error 404"),
        ("http://127.0.0.1:1/file.bin", "refused"),
        ("http:///file.bin", "host"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(server, tmp_path, url, reason):
    url = url.format(server=server.url)
    with pytest.raises(OSError, match=rf"{url} could not be downloaded to .*{reason}") as info:
        download(url, tmp_path / "new" / "file.bin", CHECKSUM)
    assert info.value.__context__ is None or info.value.__suppress_context__  # no second traceback
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(source, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"could not be downloaded to .*data/file\.bin"):
        download(source, tmp_path / "data" / "file.bin", CHECKSUM)
